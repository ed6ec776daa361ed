"""Online rounds: goals and their ranges by hand, and whole rounds that stop and go on."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pluralign import rounds
from pluralign.api import settings_for
from pluralign.attributes import Scale, ScoreForm
from pluralign.curate.measured import measure
from pluralign.curate.score import Scored, Scorer, score_responses
from pluralign.curate.scorers import measures
from pluralign.data import as_kind, load
from pluralign.errors import PluralignError, SettingsError
from pluralign.judging.answers import read_answers
from pluralign.policy import Policy
from pluralign.records import Demonstration, messages, to_row
from pluralign.rounds import How, check_judges, goal_ranges, judge_key, judged_by, run_rounds, stage_settings
from pluralign.training.run import align
from tests.training.conftest import sentence, tiny_model  # noqa: F401 - a fixture

RIC = ScoreForm((Scale("words", 10.0, 14.0), Scale("questions", 0.0, 1.0)), "ric", "z")


def rated(**attributes: float) -> Demonstration:
    return Demonstration(prompt=messages("x"), response=messages("y", role="assistant"), attributes=attributes)


# The pure parts


def test_ranges_are_those_of_the_original_rows_as_prompts_show_them() -> None:
    """words 6, 10, ..., 46 are z = -1, 0, ..., 9: the percentiles of eleven evenly spaced values are -.9 and 8.9."""
    olds = [rated(words=6.0 + 4 * i, questions=0.5) for i in range(11)]
    found = goal_ranges(RIC, olds, How())
    assert found["words"] == pytest.approx((-0.9, 8.9))
    assert found["questions"] == (0.5, 0.5)
    best = goal_ranges(RIC, olds, How(goals="best"))
    assert best["words"] == pytest.approx((8.9, 8.9))
    assert goal_ranges(RIC, olds, How(), {"words": (-1.0, 1.5)})["words"] == (-1.0, 1.5)


def test_scores_between_0_and_1_need_no_rows_and_others_do() -> None:
    sga = ScoreForm((Scale("helpfulness", 0.0, 4.0),))
    assert goal_ranges(sga, [], How()) == {"helpfulness": (0.0, 1.0)}
    assert goal_ranges(sga, [], How(goals="best")) == {"helpfulness": (1.0, 1.0)}
    with pytest.raises(SettingsError, match=r'how high goals of "words" may be.*words=LOW:HIGH'):
        goal_ranges(RIC, [], How())
    with pytest.raises(SettingsError, match="between 0 and 1"):
        goal_ranges(sga, [], How(), {"helpfulness": (0.0, 4.0)})
    with pytest.raises(SettingsError, match="goes down"):
        goal_ranges(RIC, [rated(questions=0.0)], How(), {"words": (1.0, -1.0)})
    with pytest.raises(SettingsError, match='unknown attribute "wit"'):
        goal_ranges(RIC, [], How(), {"wit": (0.0, 1.0)})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"goals": "edges"}, 'Did you mean "edge"'), ({"rule": "or"}, "known: any, all"), ({"quantile": 1.5}, "1.5"),
     ({"rounds": 0}, "at least 1")],
)  # fmt: skip
def test_what_cannot_be_is_told(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        replace(How(), **wrong).check()


def test_every_attribute_needs_one_judge() -> None:
    check_judges(RIC, [measures(["words", "questions", "sentences"])])
    with pytest.raises(SettingsError, match='no judge scores "questions"'):
        check_judges(RIC, [measures(["words"])])
    with pytest.raises(SettingsError, match='two judges score "words"'):
        check_judges(RIC, [measures(["words", "questions"]), measures(["words"])])


def test_a_stage_keeps_the_recipe_and_the_scales(tmp_path: Path) -> None:
    made, _ = settings_for("ric", {"scores": {"attributes": ["words"], "ranges": {"words": [0, 9]}}, "limit": 7})
    stage, recipe = stage_settings(
        made.model_dump(), RIC, model="runs/before", source=tmp_path / "kept.jsonl", output=tmp_path / "run",
        how=How(), overrides=["batch_size=4"],
    )  # fmt: skip
    assert recipe is not None
    assert recipe.name == "ric"
    t = stage.training
    assert (t.learning_rate, t.schedule, t.warmup, t.epochs, t.batch_size) == (1e-5, "constant", 0, 1, 4)
    assert (stage.lora.rank, stage.objective.name, stage.model) == (64, "sft", "runs/before")
    assert (stage.scores.attributes, stage.scores.ranges, stage.scores.show) == ([], {}, "own")
    assert (stage.data.limit, stage.data.source) == (None, str(tmp_path / "kept.jsonl"))
    with pytest.raises(SettingsError, match="learns from pairs"):
        stage_settings(
            settings_for("sga_dpo")[0].model_dump(), ScoreForm((Scale("words"),)), model="m", source=tmp_path,
            output=tmp_path, how=How(),
        )  # fmt: skip


# The work


@pytest.fixture(scope="module")
def start(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Demonstration]]:  # noqa: F811
    """A tiny policy trained by RiC on measured attributes, and its rows."""
    folder = tmp_path_factory.mktemp("start")
    rng = random.Random(0)
    pairs = [
        {"prompt": f"{i} {sentence(rng, 3, 6)}", "chosen": f"{sentence(rng, 3, 9)}?", "rejected": sentence(rng, 3, 9)}
        for i in range(40)
    ]
    measured = list(score_responses([measures(["words", "questions"])])(load(pairs)))
    source = folder / "scored.jsonl"
    source.write_text("".join(json.dumps(to_row(r)) + "\n" for r in measured))
    short = [
        f"model={tiny_model}", f"data.source={source}", f"output={folder / 'ric'}", "precision=fp32", "batch_size=8",
        "learning_rate=1e-3", "max_steps=3", "validation_fraction=0.2", "kl_rows=0", "max_length=128", "lora.rank=0",
        "scores.attributes=[words, questions]",
    ]  # fmt: skip
    made, own = settings_for("ric", {}, short)
    align(made, plan=own.plan if own else None)
    rows = [d for record in measured for d in as_kind(record, Demonstration, responses="all")]
    return folder / "ric", [d for d in rows if isinstance(d, Demonstration)]


SHORT = How(rounds=2, samples=10, mixed=6, max_new_tokens=6, learning_rate=1e-3)
STEPS = ["max_steps=2"]


def counted() -> tuple[Scorer, list[int]]:
    """Measures that are stored like a model's scores, and how many responses were asked each time."""
    asked: list[int] = []

    def score(many: Any) -> list[Scored]:
        asked.append(len(many))
        found = [measure(["words", "questions"], response[0].content) for _, response in many]
        return [Scored((f["words"], f["questions"])) for f in found]

    return Scorer(("words", "questions"), score, key="counted", title="counted"), asked


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_rounds_leave_every_stage_on_disk(start, tmp_path: Path) -> None:
    run, olds = start
    scorer, asked = counted()
    seen: list[tuple[str, int, int]] = []
    done = run_rounds(run, [d.prompt for d in olds[:6]], [scorer], tmp_path / "on", SHORT, originals=olds,
                      overrides=STEPS, progress=lambda *what: seen.append(what))  # fmt: skip
    assert done.status == "finished"
    assert [one["round"] for one in done.rounds] == [1, 2]
    ends = goal_ranges(form_of(run), olds, SHORT)
    for number, one in enumerate(done.rounds, start=1):
        folder = tmp_path / "on" / f"round-{number}"
        counts = one["counts"]
        answers = rows_of(folder / "generated.jsonl")
        assert [row["row"] for row in answers] == list(range(10))
        for row in answers:  # one attribute anywhere, the others at their highest
            assert sum(not math.isclose(row["asked"][n], high) for n, (_, high) in ends.items()) <= 1
        scored = rows_of(folder / "scored.jsonl")
        assert counts["asked"] == 10 == len(scored) + counts["empty"]
        for row in scored:
            assert row["attributes"] == measure(["words", "questions"], row["response"][0]["content"])
        kept = rows_of(folder / "kept.jsonl")
        assert len(kept) == counts["kept"] + counts["originals mixed"]
        assert counts["originals mixed"] == 6
        online = [row for row in kept if row.get("source") == "online"]
        own = {json.dumps(row["response"]): row["attributes"] for row in scored}
        assert all(row["attributes"] == own[json.dumps(row["response"])] for row in online)
        assert one["means"]["words"]["n"] == len(scored)
    assert Policy.load(done.policy).scores == Policy.load(run).scores  # one number means one thing throughout
    second = json.loads((tmp_path / "on" / "round-2" / "run" / "run.json").read_text())
    assert second["settings"]["model"].endswith("round-1/run")
    assert second["settings"]["training"]["schedule"] == "constant"
    assert ("round-1: answers", 10, 10) in seen
    assert [one["key"] for one in judged_by(done.policy)] == [judge_key(scorer)]
    assert judged_by(run) == []
    # the same again has nothing left to do, and other settings are refused
    before = len(asked)
    again = run_rounds(run, [d.prompt for d in olds[:6]], [scorer], tmp_path / "on", SHORT, originals=olds,
                       overrides=STEPS)  # fmt: skip
    assert again.rounds == done.rounds
    assert len(asked) == before
    with pytest.raises(SettingsError, match="holds rounds with other quantile"):
        run_rounds(run, [d.prompt for d in olds[:6]], [scorer], tmp_path / "on", replace(SHORT, quantile=0.5),
                   originals=olds, overrides=STEPS)  # fmt: skip


def form_of(run: Path) -> ScoreForm:
    form = Policy.load(run).scores
    assert form is not None
    return form


class Killed(BaseException):
    """Like a kill: nothing catches it."""


def test_a_killed_round_goes_on_without_writing_or_scoring_twice(start, tmp_path: Path, monkeypatch) -> None:
    run, olds = start
    how = replace(SHORT, rounds=1, batch_size=2)
    arguments = (run, [d.prompt for d in olds[:6]])

    def go(output: str, scorer: Scorer, stop_at: tuple[str, int] | None = None) -> Any:
        def tell(what: str, done: int, of: int) -> None:
            if stop_at and what.endswith(stop_at[0]) and done >= stop_at[1]:
                raise Killed

        return run_rounds(*arguments, [scorer], tmp_path / output, how, originals=olds, overrides=STEPS, progress=tell)

    scorer, asked = counted()
    whole = go("whole", scorer)
    at_once = sum(asked)
    scorer, asked = counted()
    with pytest.raises(Killed):
        go("killed", scorer, ("answers", 4))
    path = tmp_path / "killed" / "round-1" / "generated.jsonl"
    first = path.read_text().splitlines()
    assert 4 <= len(first) < 10
    with path.open("a") as file:
        file.write('{"key": "cut off in the mid')
    with pytest.raises(Killed):
        go("killed", scorer, ("scores", 1))
    assert set(first) <= set(path.read_text().splitlines())  # not a line was written anew
    from pluralign.training import run as training

    with monkeypatch.context() as patch:
        patch.setattr(training, "_finish", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            go("killed", scorer)
    found = go("killed", scorer)
    assert sum(asked) == at_once
    assert found.rounds[0]["counts"] == whole.rounds[0]["counts"]
    one, two = (tmp_path / name / "round-1" for name in ("whole", "killed"))
    assert (one / "kept.jsonl").read_bytes() == (two / "kept.jsonl").read_bytes()
    own, other = (Policy.load(folder / "run").model.state_dict() for folder in (one, two))
    assert all((own[name] == other[name]).all() for name in own)


def test_answers_of_another_policy_are_not_taken_for_its_own(start, tmp_path: Path) -> None:
    run, olds = start
    path = tmp_path / "round-1" / "generated.jsonl"
    scorer, _ = counted()
    run_rounds(run, [d.prompt for d in olds[:6]], [scorer], tmp_path, replace(SHORT, rounds=1), originals=olds,
               overrides=STEPS)  # fmt: skip
    first = set(read_answers(path))
    run_rounds(tmp_path / "round-1" / "run", [d.prompt for d in olds[:6]], [scorer], tmp_path / "more",
               replace(SHORT, rounds=1), originals=olds, overrides=STEPS)  # fmt: skip
    assert not first & set(read_answers(tmp_path / "more" / "round-1" / "generated.jsonl"))


def test_steerlm_asks_for_the_best_and_keeps_all(start, tmp_path: Path) -> None:
    run, olds = start
    scorer, _ = counted()
    how = replace(SHORT, rounds=1, goals="best", quantile=0.0, mixed=0)
    done = run_rounds(run, [d.prompt for d in olds[:6]], [scorer], tmp_path / "on", how, originals=olds,
                      overrides=STEPS)  # fmt: skip
    answers = rows_of(tmp_path / "on" / "round-1" / "generated.jsonl")
    assert len({json.dumps(row["asked"], sort_keys=True) for row in answers}) == 1
    counts = done.rounds[0]["counts"]
    assert counts["kept"] == counts["asked"] - counts["empty"]
    assert counts["originals mixed"] == 0


def test_what_is_asked_for_is_given_more_of(tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    """Where a score is the number of words, and the goals' upper half is kept, the next answers are longer."""
    rng = random.Random(1)
    pairs = []
    for i in range(80):
        a, b = rng.sample(range(1, 7), 2)
        pairs.append({"prompt": f"{i % 7} {sentence(rng, 2, 4)}", "chosen": " ".join(["cat"] * a),
                      "rejected": " ".join(["cat"] * b), "attributes": {"words": [a, b]}})  # fmt: skip
    source = tmp_path / "lengths.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    made, own = settings_for("ric", {}, [
        f"model={tiny_model}", f"data.source={source}", f"output={tmp_path / 'ric'}", "precision=fp32", "kl_rows=0",
        "batch_size=16", "learning_rate=1e-2", "max_steps=60", "epochs=9", "max_length=128", "lora.rank=0",
    ])  # fmt: skip
    align(made, plan=own.plan if own else None)
    olds = [d for record in load(source) for d in as_kind(record, Demonstration, responses="all")]
    olds = [d for d in olds if isinstance(d, Demonstration)]
    how = replace(SHORT, samples=48, mixed=0, max_new_tokens=12, learning_rate=3e-3)
    done = run_rounds(tmp_path / "ric", [d.prompt for d in olds], [measures(["words"])], tmp_path / "on", how,
                      originals=olds, overrides=["max_steps=5"])  # fmt: skip
    first, second = (one["means"]["words"] for one in done.rounds)
    assert second["low"] > first["high"]


def test_an_adapter_goes_on_as_an_adapter(start, tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    from safetensors.torch import load_file

    _, olds = start
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(to_row(d)) + "\n" for d in olds))
    made, own = settings_for("ric", {}, [
        f"model={tiny_model}", f"data.source={source}", f"output={tmp_path / 'ric'}", "precision=fp32", "kl_rows=0",
        "max_steps=2", "max_length=128", "lora.rank=4",
    ])  # fmt: skip
    align(made, plan=own.plan if own else None)
    scorer, _ = counted()
    done = run_rounds(tmp_path / "ric", [d.prompt for d in olds[:6]], [scorer], tmp_path / "on",
                      replace(SHORT, rounds=1), originals=olds, overrides=STEPS)  # fmt: skip
    before, after = (
        load_file(Path(run) / "model" / "adapter_model.safetensors") for run in (tmp_path / "ric", done.policy)
    )
    assert before.keys() == after.keys()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.05  # two steps of 1e-3 from where it was, not an adapter begun anew


def test_a_round_without_scores_or_without_good_answers_says_so(start, tmp_path: Path) -> None:
    run, olds = start
    how = replace(SHORT, rule="all", quantile=1.0)
    blind = Scorer(("words", "questions"), lambda many: [Scored((1.0, None)) for _ in many])
    torn = Scorer(  # what is best on one attribute is worst on the other
        ("words", "questions"), lambda many: [Scored((float(n := len(r[0].content)), -float(n))) for _, r in many]
    )
    for judge, says in (
        (blind, 'no answer of round-1 has a score on "questions"'),
        (torn, "round-1 kept no answer of 10"),
    ):
        with pytest.raises(PluralignError, match=says):
            run_rounds(run, [d.prompt for d in olds[:6]], [judge], tmp_path / says[:8], how, originals=olds,
                       overrides=STEPS)  # fmt: skip


def test_policies_that_cannot_be_asked_are_refused(start, tiny_model: str, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    run, olds = start
    scorer, _ = counted()
    with pytest.raises(SettingsError, match="takes no attribute scores"):
        run_rounds(tiny_model, [olds[0].prompt], [scorer], tmp_path / "on", SHORT, settings={})
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(SettingsError, match="in one process"):
            run_rounds(run, [olds[0].prompt], [scorer], tmp_path / "on", SHORT)
    with pytest.raises(SettingsError, match="need prompts"):
        run_rounds(run, [], [scorer], tmp_path / "on", SHORT)
    bare = Policy.load(run).save(tmp_path / "bare")
    with pytest.raises(SettingsError, match=r"no run folder.*--recipe"):
        run_rounds(bare, [olds[0].prompt], [scorer], tmp_path / "on", SHORT, originals=olds)
    assert not (tmp_path / "on").exists()
    assert rounds.GOALS == ("edge", "best")
