"""The page of an evaluation: self-contained and safe whatever stands in an answer, true to the verdicts, bounded."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import RecordError, SettingsError
from pluralign.judging.statistics import Estimate, proportion_interval
from pluralign.judging.verdicts import Comparison, Judgement, Rating, Subject, Verdict
from pluralign.records import Message
from pluralign.reports import verdict_browser
from pluralign.reports.charts import Chart
from pluralign.reports.evaluation_page import Measure, System, evaluation_page, write_evaluation
from pluralign.reports.verdict_browser import Case, browser, compared, cut, kinds, rated, sample, visible

from .test_page import EVIL, Page, check_nothing_is_fetched

OUTCOMES = ("win", "loss", "tie", "split", None)


def question(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def said(i: str, outcome: Any, judge: str = "judge", raw: str = "words", reason: str = "why") -> Judgement:
    """Two games: "split" prefers what is shown first, None is not read in the second."""
    one, two = {"split": ("win", "loss"), None: ("win", None)}.get(outcome, (outcome, outcome))
    return Judgement(i, judge, (Verdict(one, "a", raw=raw, reason=reason), Verdict(two, "b", raw=raw, reason=reason)))


def system(name: str = "dpo", n: int = 20, judges: tuple[str, ...] = ("judge",), unread: bool = False) -> System:
    comparisons = [
        Comparison(f"q{i}", question(f"question {i}"), f"answer {i} " * (i + 1), f"other {i} " * 3, f"c{i % 3}")
        for i in range(n)
    ]
    judgements = [
        said(c.id, None if unread else OUTCOMES[(i + k) % 5], judge)
        for k, judge in enumerate(judges)
        for i, c in enumerate(comparisons)
    ]
    scores = {"win rate": proportion_interval(0 if unread else 12, 0 if unread else 16, missing=n if unread else 4)}
    return System(name, scores, {}, comparisons, judgements)


def text_of(page: str) -> str:
    return Page(page).text.replace("\u00a0", " ")


def check_page(page: str) -> Page:
    """Nothing is fetched, the one script is ours and the policy knows it by its digest, ids are unique."""
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    parsed = Page(page)
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy
    without = page.replace(f"<script>{scripts[0]}</script>", "")
    check_nothing_is_fetched(without)
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for t, a in parsed.tags if t == "a"} <= set(ids)
    return parsed


def shown(parsed: Page) -> list[dict[str, str | None]]:
    return [a for t, a in parsed.tags if t == "details" and a.get("class") == "verdict"]


# --- structure ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> str:
    return evaluation_page(
        "AlpacaEval 2", [system("dpo", judges=("gpt", "local")), system("sft", judges=("gpt", "local"))],
        on="20 of 805 prompts", baseline="gpt-4", facts=("seed 17",), notes=("A part of it.",),
        charts=[Chart("Extra", "<svg viewBox='0 0 1 1'></svg>", "a note")],
        manifest={"model": {"name": "runs/dpo"}, "judge": "gpt", "seed": 17},
    )  # fmt: skip


def test_a_page_with_everything(whole):
    parsed, text = check_page(whole), text_of(whole)
    for words in ("AlpacaEval 2", "20 of 805 prompts", "against gpt-4", "seed 17", "A part of it.", "Extra", "a note"):
        assert words in text
    for title in ("Win rate by system", "Verdicts by system", "Length and win rate", "Length and verdicts, sft",
                  "By category", "Does the order decide?"):  # fmt: skip
        assert title in text
    assert "dpo .75 [.51, .90] n = 16, 4 missing" in text
    assert "gpt, of dpo 4 4 4 4 4 0 .75" in text  # 20 verdicts, 4 of each outcome; 16 were read, 12 agree
    assert "gpt and local" in text
    assert "model.name runs/dpo" in text
    assert "Cohen's kappa" in text
    assert len(shown(parsed)) == 40
    for label in ("search", "outcome", "category", "system"):
        assert re.search(rf"<label[^>]*>{label}\n<(input|select)", whole)
    assert all(a.get("type") == "button" for t, a in parsed.tags if t == "button")


def test_without_a_script_the_filter_is_hidden_and_everything_else_is_there(whole):
    parsed = Page(re.sub(r"<script>.*?</script>", "", whole, flags=re.DOTALL))
    assert all("hidden" not in a for a in shown(parsed))
    assert next(a for _, a in parsed.tags if a.get("id") == "verdict-filter")["hidden"] is None
    assert "answer 19" in parsed.text


def test_the_script_finds_what_it_asks_for(whole):
    """Every id that the script names is in the page, and every filter's data stand at the verdicts."""
    parsed = Page(whole)
    script = re.search(r"<script>(.*?)</script>", whole, flags=re.DOTALL)[1]
    ids = {a["id"] for _, a in parsed.tags if "id" in a}
    assert set(re.findall(r'getElementById\("([\w-]+)"\)', script)) <= ids
    filters = [a["data-of"] for t, a in parsed.tags if t == "select"]
    assert filters == ["kinds", "category", "system"]
    for of in filters:
        chosen = {value for a in shown(parsed) for value in a[f"data-{of}"].split()}
        options = {a["value"] for t, a in parsed.tags if t == "option"}
        assert chosen <= options


def test_verdicts_stand_with_both_orders_reasons_and_raw_words():
    games = (
        Verdict("win", "a", weight=3.0, raw="I prefer A. [[A>>B]]", reason="A is right."),
        Verdict("loss", "b", share=0.2, raw="same", reason="same"),
    )
    one = System(
        "dpo", {}, {}, [Comparison("q", question("Why?"), "mine", "", "c", "truth")], [Judgement("q", "j", games)]
    )
    page = evaluation_page("t", [one], baseline="gpt-4")
    text = text_of(page)
    assert "Why?" in text
    assert "dpo 4 characters mine" in text
    assert "gpt-4 0 characters (empty)" in text
    assert "reference truth" in text
    assert "dpo shown first prefers dpo, strongly A is right. the judge's words I prefer A. [[A>>B]]" in text
    assert "gpt-4 shown first prefers gpt-4 (share .20) same" in text
    assert "same the judge's words" not in text  # a reason that is all of the words stands once


def test_a_verdict_that_was_not_read_shows_the_words_at_once():
    games = (Verdict("win", "a", raw="[[A]]"), Verdict(None, "b", raw="Both are lovely.", reason="no verdict in it"))
    page = evaluation_page(
        "t", [System("s", {}, {}, [Comparison("q", question("?"), "x", "y")], [Judgement("q", "j", games)])]
    )
    assert re.search(r"<details open><summary>the judge's words</summary>[^\n]*Both are lovely\.", page)
    assert re.search(r"<details><summary>the judge's words</summary>[^\n]*\[\[A\]\]", page)
    assert "not read no verdict in it" in text_of(page)


def test_rated_answers_are_shown_with_their_ratings():
    subjects = [Subject("1", question("Q1"), "an answer", "writing"), Subject("2", question("Q2"), "another", "stem")]
    ratings = [Rating("1", "gpt", 8.5, "Rating: [[8.5]]", "clear"), Rating("2", "gpt", None, "no number")]
    one = System(
        "m", {"score": Estimate(8.5, float("nan"), float("nan"), 1, missing=1)}, {}, subjects=subjects, ratings=ratings
    )
    page = evaluation_page("MT-Bench", [one], measure=Measure((1, 10)))
    text = text_of(page)
    assert [a["data-kinds"] for a in shown(check_page(page))] == ["rated", "unread"]
    assert "rating 8.5 clear" in text
    assert "gpt, of m – – – – 1 0" in text


# --- what may be missing --------------------------------------------------------------------------------------


def test_nothing_was_judged():
    parsed = check_page(evaluation_page("t", []))
    assert "Nothing was judged." in parsed.text
    assert shown(parsed) == []
    assert not any(a.get("id") == "verdict-filter" for _, a in parsed.tags)


def test_everything_unread():
    page = evaluation_page("t", [system("a", unread=True), system("b", unread=True)])
    parsed, text = check_page(page), text_of(page)
    assert "not scored" in text
    assert "20 missing" in text
    assert "a, judge" not in text
    assert {a["data-kinds"] for a in shown(parsed)} == {"unread"}
    assert "judge, of a 0 0 0 0 20 0 – 20 missing" in text
    assert "Length and" not in text


def test_scores_alone_make_a_page():
    page = evaluation_page("TruthfulQA", [System("m", {"MC1": proportion_interval(300, 817)})], measure=Measure((0, 1)))
    text = text_of(page)
    assert "m: MC1 .37 ± .03 n = 817" in text
    assert "Judges" not in text
    assert "Verdicts" not in text


def test_comparisons_without_a_verdict_are_counted_and_shown():
    whole = system(n=5)
    page = evaluation_page("t", [System("dpo", {}, {}, whole.comparisons, whole.judgements[:3])])
    assert [a["data-kinds"] for a in shown(Page(page))] == ["win", "loss", "tie", "unjudged", "unjudged"]
    assert "judge, of dpo 1 1 0 1 0 2" in text_of(page)
    assert "No judge said anything of it." in text_of(page)


def test_empty_prompts_answers_and_no_category():
    one = System("s", {}, {}, [Comparison("q", (), "", "")], [Judgement("q", "j", ())])
    assert "(empty prompt)" in check_page(evaluation_page("t", [one])).text


@pytest.mark.parametrize(
    ("comparisons", "judgements", "words"),
    [
        ([Comparison("q", (), "a", "b")] * 2, [], '"q" stands for more than one item of s'),
        ([Comparison("q", (), "a", "b")], [said("p", "win")], '"p", which is no item of s'),
        ([Comparison("q", (), "a", "b")], [said("q", "win"), said("q", "loss")], 'judge judged "q" of s twice'),
    ],
)
def test_verdicts_that_do_not_belong_are_refused(comparisons, judgements, words):
    with pytest.raises(RecordError, match=words):
        evaluation_page("t", [System("s", {}, {}, comparisons, judgements)])


def test_two_systems_of_one_name_are_refused():
    with pytest.raises(SettingsError, match='two systems are called "a"'):
        evaluation_page("t", [system("a"), system("a")])


# --- safe -----------------------------------------------------------------------------------------------------

HOSTILE = EVIL + "\x1b[31mred\x1b[0m \x00 \u202edesrever\u202d \ud800 \r\n\r --> <!-- ]]> </details></div></svg>"


def hostile(n: int = 4) -> System:
    comparisons = [
        Comparison(f"{i}{HOSTILE}", (Message(HOSTILE, HOSTILE), Message("user", HOSTILE)), HOSTILE, HOSTILE * 3,
                   f"{i % 2}{HOSTILE}", HOSTILE)
        for i in range(n)
    ]  # fmt: skip
    judgements = [
        said(c.id, outcome, judge + HOSTILE, HOSTILE, "because" + HOSTILE)
        for judge in "jkl"
        for c, outcome in zip(comparisons, OUTCOMES, strict=False)
    ]
    score = Estimate(0.5, 0.4, 0.6, 4, method=HOSTILE)
    return System("s" + HOSTILE, {HOSTILE: score}, {}, comparisons, judgements)


def test_every_text_from_outside_is_escaped_and_visible(tmp_path):
    one = hostile()
    other = System("t" + HOSTILE, one.scores, {HOSTILE: proportion_interval(1, 2)})
    path = write_evaluation(
        tmp_path / "page.html", HOSTILE, [one, other], on=HOSTILE, baseline=HOSTILE, facts=[HOSTILE],
        notes=[HOSTILE], manifest={HOSTILE: {HOSTILE: [HOSTILE]}},
    )  # fmt: skip
    page = path.read_text(encoding="utf-8")
    check_page(page)
    assert Page(page).text.count("<script>alert(1)</script>") > 40
    assert "{{ 7*7 }}" in Page(page).text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]", page)
    assert "␛[31mred␛[0m ␀ ⟨U+202E⟩desrever⟨U+202D⟩ �" in page


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=60), st.text(alphabet=st.characters(), max_size=60))
def test_any_text_makes_a_page_whose_tags_nest(a, b):
    items = [Comparison("q", question(a), b, a, b, a)]
    view = browser(compared("s", items, [said("q", "win", "j", a, b)]))
    from pluralign.reports.page import _environment

    macros = _environment().get_template("verdicts.html.j2").module
    html = visible(str(macros.browse(view, verdict_browser.KINDS)))  # type: ignore[attr-defined]
    Page(html).text.encode("utf-8")
    plain = Page("<p>" + str(macros.browse(browser([]), verdict_browser.KINDS)) + "</p>")  # type: ignore[attr-defined]
    assert len([t for t, _ in plain.tags if t == "details"]) == 0


def test_the_direction_of_a_text_stays_its_own():
    one = System("s", {}, {}, [Comparison("q", question("ما هي عاصمة لبنان؟"), "بيروت.", "x")], [said("q", "win")])
    page = evaluation_page("t", [one])
    assert re.search(r'<bdi class="question">ما هي عاصمة لبنان؟</bdi>', page)
    assert len(re.findall(r'<div class="text[^"]*" dir="auto"', page)) == page.count('class="text')


def test_the_same_data_give_the_same_bytes():
    one = system("a", n=8, judges=("j", "k", "l"))
    page = evaluation_page("t", [one])
    assert "Agreement of the judges" in page
    assert evaluation_page("t", [one]) == page


# --- bounded --------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_in_the_middle_with_a_count():
    text = "start" + "x" * 100_000 + "[[A]]"
    short = cut(text, 1000)
    assert len(short) < 1100
    assert short.startswith("startx")
    assert short.endswith("x[[A]]")
    assert "99,010 characters are left out here" in short
    assert cut("short", 1000) == "short"
    one = System(
        "s", {}, {}, [Comparison("q", question(text), text, text, reference=text)], [said("q", "win", raw=text)]
    )
    page = evaluation_page("t", [one])
    assert len(page) < 120_000
    assert "100,010 characters" in text_of(page)


def test_of_many_cases_a_part_is_shown_and_the_rest_counted():
    page = evaluation_page("t", [system(n=50)], most=20)
    parsed = Page(page)
    assert len(shown(parsed)) == 20
    assert "20 of 50 cases" in parsed.text
    assert "30 are left out" in parsed.text


def test_all_texts_together_are_bounded(monkeypatch):
    monkeypatch.setattr(verdict_browser, "LETTERS", 5000)
    found = browser(compared("s", system(n=50).comparisons, []), 50)
    assert 0 < len(found.shown) < 50
    assert len(found.shown) + found.left_out == 50


def test_turns_beyond_what_can_be_read_are_counted():
    prompt = tuple(Message("user", f"turn {i}") for i in range(40))
    (view,) = browser(compared("s", [Comparison("q", prompt, "a", "b")], [])).shown
    assert len(view.turns) == 13
    assert view.turns[2] == ("…", "28 turns are left out here")
    assert view.turns[-1] == ("user", "turn 39")


def test_a_manifest_is_bounded():
    page = evaluation_page("t", [], manifest={f"k{i}": "v" * 5000 for i in range(500)})
    assert "300 more entries are left out." in Page(page).text
    assert len(page) < 600_000


def cases_of(counts: dict[str | None, int]) -> list[Case]:
    outcomes = [o for o, n in counts.items() for _ in range(n)]
    items = [Comparison(f"{i}", question(f"{i}"), "a", "b") for i in range(len(outcomes))]
    return compared("s", items, [said(f"{i}", o) for i, o in enumerate(outcomes)])


def test_rare_outcomes_are_shown_whole():
    """300 wins, 100 losses, 5 not read; 105 places: all 5, then 50 and 50, every sixth win."""
    chosen = sample(cases_of({"win": 300, "loss": 100, None: 5}), 105)
    found = [kinds(c)[0] for c in chosen]
    assert [found.count(k) for k in ("win", "loss", "unread")] == [50, 50, 5]
    assert [int(c.id) for c in chosen if kinds(c)[0] == "win"] == list(range(0, 300, 6))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(OUTCOMES), st.integers(0, 30)), st.integers(0, 60))
def test_as_many_as_there_is_room_for_in_their_order(counts, most):
    cases = cases_of(counts)
    chosen = sample(cases, most)
    assert len(chosen) == min(most, len(cases))
    assert [int(c.id) for c in chosen] == sorted({int(c.id) for c in chosen})


def test_kinds_name_each_outcome_once_and_disagreement():
    case = compared(
        "s", [Comparison("q", (), "a", "b")], [said("q", "win", "j"), said("q", "loss", "k"), said("q", None, "l")]
    )
    assert kinds(case[0]) == ("win", "loss", "unread", "apart")
    assert kinds(compared("s", [Comparison("q", (), "a", "b")], [said("q", "split")])[0]) == ("split",)
    assert kinds(rated("s", [Subject("q", (), "a")], [Rating("q", "j", 3.0)])[0]) == ("rated",)
