"""The page: self-contained, safe, the same for the same files, and true to them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pluralign.errors import RecordError
from pluralign.reports import compare, read_run, report

from .conftest import SAMPLES, dpo_metrics, evaluation, info, write_lines, write_pipeline, write_run

VOID = {"meta", "link", "br", "img", "hr", "input"}
SVG_OPEN = {"path", "use", "g", "rect"}


class Page(HTMLParser):
    """Tags with their attributes, the text of every element, and whether the tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert tag in SVG_OPEN, f"<{tag}/> does not close itself in HTML"

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def made(path: Path) -> str:
    return report(path).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------ safe and offline


def check_nothing_is_fetched(text: str) -> None:
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "image"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name.split(":")[-1] in {"href", "src", "srcset", "action", "data", "poster", "formaction"}:
                assert re.fullmatch(r"#[A-Za-z][\w-]*|data:,", value or ""), f'<{tag} {name}="{value}">'
            if name in {"style", "clip-path", "fill", "mask", "filter"}:
                assert all(m.startswith("#") for m in re.findall(r"url\((.*?)\)", value or ""))
            assert not name.startswith("xmlns")
    styles = re.findall(r"<style.*?</style>", text, flags=re.DOTALL)
    assert len(styles) == 1
    assert "@import" not in styles[0]
    assert "url(" not in styles[0]


def test_nothing_is_fetched(pipeline):
    text = made(pipeline)
    check_nothing_is_fetched(text)
    policy = next(a["content"] for t, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "http:" not in text
    assert "https:" not in text


def test_local_references_lead_somewhere_and_ids_are_unique(pipeline):
    tags = Page(made(pipeline)).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in tags if a.get("href", "").startswith("#")}
    clips = {c for _, a in tags for c in re.findall(r"url\(#(.*?)\)", a.get("clip-path") or "")}
    assert targets
    assert clips
    assert targets | clips <= set(ids)


EVIL = "</script></style></svg></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{ 7*7 }}&lt;$\\frac$"


def test_every_text_from_outside_is_escaped(tmp_path):
    def evil(value):
        """Every text, and every key that is a name of its maker's choice, with an attack in it."""
        if isinstance(value, dict):
            fixed = {"value", "low", "high", "n", "level", "method"}
            return {k if k in fixed else k + EVIL: evil(v) for k, v in value.items()}
        if isinstance(value, list):
            return [evil(v) for v in value]
        return value + EVIL if isinstance(value, str) else value

    settings = info("preference", "dpo")
    for key in ("command", "recipe", "created", "stage"):
        settings[key] += EVIL
    for key in ("versions", "model", "settings"):
        settings[key] = evil(settings[key])
    settings["data"] |= {"source": EVIL, "format": EVIL, "fingerprint": EVIL}
    settings["data"] |= {EVIL: EVIL, "set_aside": {EVIL: 3}, "truncated": {EVIL: 4}}
    settings["defaults"] = {"objective" + EVIL: {"beta" + EVIL: EVIL}}
    settings[EVIL] = EVIL
    path = tmp_path / EVIL.replace("/", "")[:100]
    write_run(path, settings, ({**row, EVIL: 1.0} for row in dpo_metrics(40)))
    rows = evaluation()
    rows |= {"on": EVIL, "judge": EVIL}
    rows["rows"] = [{**row, "model": row["model"] + EVIL, EVIL: EVIL, EVIL + "2": 0.5} for row in rows["rows"]]
    for row in rows["rows"]:
        row["accuracy"]["method"] = EVIL
    rows["groups"] = {name + EVIL: [{**r, "model": r["model"] + EVIL} for r in g] for name, g in rows["groups"].items()}
    (path / "evaluation.json").write_text(json.dumps(rows))
    turns = [{"role": "system", "content": EVIL}, {"role": "user", "content": EVIL}]
    write_lines(
        path / "samples.jsonl", [{"prompt": turns, "responses": {EVIL: EVIL}}, {"prompt": EVIL, "responses": {}}]
    )

    text = made(path)
    check_nothing_is_fetched(text)
    assert "<script" not in text
    assert "{{ 7*7 }}" in Page(text).text
    assert Page(text).text.count("<script>alert(1)</script>") > 40

    other = write_run(tmp_path / ("b" + EVIL.replace("/", "")[:90]), settings | {"seed": 5}, dpo_metrics(40))
    compare([path, other], tmp_path / "compare.html")
    compared = (tmp_path / "compare.html").read_text()
    check_nothing_is_fetched(compared)
    assert "<script" not in compared


def test_figures_hold_text_and_the_page_s_colours_only(pipeline):
    for svg in re.findall(r"<svg.*?</svg>", made(pipeline), flags=re.DOTALL):
        assert "<text" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert "var(--" in svg
        assert "font-family" not in svg
        assert "<style" not in svg
        assert re.search(r'<svg viewBox="0 0 [\d.]+ [\d.]+" role="img" aria-label="[^"]+">', svg)


def test_every_colour_variable_is_defined_for_light_dark_and_print(pipeline):
    text = made(pipeline)
    style = re.search(r"<style>(.*?)</style>", text, flags=re.DOTALL)[1]
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert set(re.findall(r"var\((--[a-z0-9]+)\)", text)) <= set(re.findall(r"(--[a-z0-9]+):", block))


# -------------------------------------------------------------------------------------------- true to the files


def test_headline_numbers_and_sections(pipeline):
    text = Page(made(pipeline)).text
    assert "dpo: accuracy .63 ± .05 n = 322" in text.replace("\u00a0", " ")
    assert "worst of 3 groups" in text
    for heading in ("Results", "Curves", "Samples", "Data", "Settings", "Changed from the defaults"):
        assert heading in text
    for title in (
        "Loss",
        "Accuracy",
        "Margin",
        "Log-probability drift",
        "KL to the reference",
        "Length",
        "Learning rate",
    ):
        assert title in text
    assert "reference cache hits" in text  # a reading that no panel knows
    assert "pluralign quickstart --output runs/quickstart" in text
    assert "pluralign align dpo --model embedded --data hh.jsonl --output runs/dpo" in text
    assert "longer than the limit 17 1.0 %" in text  # 17 of 1290 + 322 + 67
    assert "sha256:5d1c0f6e2b7a" in text
    assert "torch (version) 2.9.0" in text


def test_changed_settings_come_first_with_their_defaults(pipeline):
    text = Page(made(pipeline)).text
    changed = text[text.index("Changed from the defaults") : text.index("The other settings, at their defaults")]
    assert "training.learning_rate 2e-05 5e-06" in changed
    assert "objective.beta 0.2 0.1" in changed
    assert "training.epochs" not in changed


def test_without_evaluation_and_samples_the_last_validation_leads(single):
    text = Page(made(single)).text.replace("\u00a0", " ")
    assert "Last validation" in text
    assert "accuracy .63 ± .05 validation, step 160, n = 322" in text
    assert "Samples" not in text


@pytest.mark.parametrize("kept", ["run.json", "metrics.jsonl", "evaluation.json", "samples.jsonl"])
def test_any_one_file_makes_a_page(pipeline, kept):
    source = pipeline / kept if (pipeline / kept).exists() else pipeline / "dpo" / kept
    alone = pipeline.parent / "alone"
    alone.mkdir()
    (alone / kept).write_bytes(source.read_bytes())
    check_nothing_is_fetched(made(alone))


def test_empty_lists_make_a_page(tmp_path):
    write_run(tmp_path, {"status": "failed", "settings": {}, "data": {}}, [])
    (tmp_path / "evaluation.json").write_text('{"rows": [], "groups": {"g": []}}')
    write_lines(tmp_path / "samples.jsonl", [{"prompt": [], "responses": {}}, {"prompt": "", "responses": {"m": ""}}])
    text = Page(made(tmp_path)).text
    assert "failed" in text
    assert "Nothing was logged." in text
    assert "(empty prompt)" in text


def test_not_a_number_one_point_and_infinity_can_be_drawn(tmp_path):
    rows = [
        {"step": 1, "phase": "train", "loss": float("nan"), "margin": 1.0, "margin_low": 0.5, "margin_high": 1.5},
        {"step": 2, "phase": "train", "loss": float("inf"), "kl": float("nan")},
        {"step": 3, "phase": "train", "loss": 2.0},
    ]
    text = Page(made(write_run(tmp_path / "r", {}, rows))).text
    assert "Loss" in text
    assert "Margin" in text
    assert "KL to the reference" not in text  # nothing to draw


def test_the_samples_show_all_models_and_say_what_is_not_shown(pipeline):
    write_lines(pipeline / "samples.jsonl", SAMPLES * 10)
    text = Page(made(pipeline)).text
    assert "The first 40 of 70 samples." in text
    assert "عاصمة لبنان هي بيروت." in text
    assert "(empty)" in text


def test_an_unscored_model_is_said_not_drawn(pipeline):
    rows = evaluation()
    rows["rows"][1]["accuracy"] = {"value": None, "low": None, "high": None, "n": 0, "missing": 322}
    (pipeline / "evaluation.json").write_text(json.dumps(rows))
    text = Page(made(pipeline)).text
    assert "not scored" in text
    assert "322 missing" in text


def test_a_p_value_and_missing_items_are_shown(pipeline):
    rows = evaluation()
    rows["rows"][2]["gain over base"] = {
        "value": 0.13,
        "low": 0.05,
        "high": 0.21,
        "n": 300,
        "missing": 22,
        "p_value": 4e-4,
    }
    (pipeline / "evaluation.json").write_text(json.dumps(rows))
    text = Page(made(pipeline)).text.replace("\u00a0", " ")
    assert "+.13 ± .08 n = 300, 22 missing, p < .001" in text


def test_a_part_s_own_evaluation_is_shown_too(pipeline):
    (pipeline / "dpo" / "evaluation.json").write_text(json.dumps({**evaluation(), "on": "another slice"}))
    assert "on another slice" in Page(made(pipeline)).text


# ------------------------------------------------------------------------------------------------ how it is made


def test_the_same_files_give_the_same_bytes(pipeline):
    import matplotlib as mpl

    first = report(pipeline).read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "xtick.major.pad": 20, "axes.linewidth": 7}):
        assert report(pipeline).read_bytes() == first
    code = "import sys; from pluralign.reports import report; report(sys.argv[1])"
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(pipeline)], check=True, env=env, cwd=Path(__file__).parents[2])
    assert report(pipeline).read_bytes() == first


def test_the_place_of_the_folder_does_not_show(pipeline, tmp_path):
    moved = write_pipeline(tmp_path / "elsewhere" / "quickstart")
    assert made(moved) == made(pipeline)
    assert str(tmp_path) not in made(moved)


def test_a_failing_write_leaves_the_old_page(pipeline, monkeypatch):
    path = report(pipeline)
    before = path.read_bytes(), sorted(pipeline.iterdir())

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        report(pipeline)
    assert (path.read_bytes(), sorted(pipeline.iterdir())) == before


def test_a_malformed_file_leaves_the_old_page(pipeline):
    before = report(pipeline).read_bytes()
    (pipeline / "samples.jsonl").write_text("[]\n")
    with pytest.raises(RecordError, match=r"samples\.jsonl:1"):
        report(pipeline)
    assert (pipeline / "report.html").read_bytes() == before


def test_the_page_is_readable_by_others_as_other_files_are(pipeline):
    report(pipeline)
    assert (pipeline / "report.html").stat().st_mode == (pipeline / "run.json").stat().st_mode


def test_a_report_does_not_change_what_is_read(pipeline):
    before = read_run(pipeline)
    report(pipeline)
    assert read_run(pipeline) == before


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, pluralign.reports, pluralign.judging.statistics\n"
        "print([m for m in ('torch', 'matplotlib', 'scipy', 'jinja2', 'rich', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
