"""EM-DPO and MinMax-DPO as work on disk: opposed people are told apart by a real model, and stopped work goes on."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.api import settings_for
from pluralign.errors import RecordError, SettingsError
from pluralign.judging.statistics import mean_interval
from pluralign.mixtures import EMHow, FairHow, clustering_accuracy, run_em, run_minmax
from pluralign.mixtures.fair import ratio_interval
from pluralign.mixtures.stages import people_of
from pluralign.policy import Policy
from pluralign.records import Preference, messages
from pluralign.training.settings import Settings
from tests.cli.conftest import Cli, cli  # noqa: F401 - a fixture
from tests.training.conftest import sentence, tiny_model  # noqa: F401 - a fixture

SHORT = ["training.learning_rate=3e-3", "training.batch_size=8", "rendering.max_length=128", "lora.rank=0",
         "training.precision=fp32"]  # fmt: skip
HOW = EMHow(rounds=2, start="states", held_out=0.2)


def opposed(people: int = 10, each: int = 6) -> list[Preference]:
    """People who want "good" where the others want "bread", on prompts of their own."""
    rng = random.Random(0)
    found = []
    for u in range(people):
        for _ in range(each):
            sides = [f"{sentence(rng, 2, 4)} {end}" for end in ("good", "bread")]
            chosen, rejected = sides if u % 2 else reversed(sides)
            found.append(
                Preference(prompt=messages(sentence(rng, 2, 4)), user=f"u{u}",
                           chosen=messages(chosen, role="assistant"), rejected=messages(rejected, role="assistant"))
            )  # fmt: skip
    return found


def made(recipe: str, model: str, output: Path, *more: str) -> tuple[Settings, Any]:
    tree, own = settings_for(recipe, {"model": model, "output": str(output), "data.source": "opposed"}, [*SHORT, *more])
    assert own is not None
    return tree, own.plan


@pytest.fixture(scope="module")
def em(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Preference], Any]:  # noqa: F811
    """A finished EM run on opposed people."""
    folder = tmp_path_factory.mktemp("em")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLURALIGN_CACHE", str(folder / "cache"))
        tree, plan = made("em_dpo", tiny_model, folder / "em")
        pairs = opposed()
        return folder / "em", pairs, run_em(pairs, tree, HOW, plan=plan)


def test_a_policy_for_each_of_two_opposed_groups(em) -> None:
    folder, _, done = em
    assert done.status == "finished"
    assert clustering_accuracy(done.gamma, [int(name[1:]) % 2 for name in done.people]) == 1.0
    report = json.loads((folder / "em.json").read_text())
    last = report["restarts"][0]["history"][-1]["held_out"]
    assert last > 6 * np.log(0.5)  # six pairs, better than by chance, for people who were not trained on
    rows = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    assert [row["user"] for row in rows] == [f"u{i}" for i in range(10)]
    assert sum(row["held_out"] for row in rows) == report["held_out_people"] == 2
    run = json.loads((done.types[0] / "run.json").read_text())
    assert (run["recipe"], run["data"]["train"]) == ("em_dpo", 48)  # held-out people's twelve pairs are not trained on
    assert not list((folder / "restart-1" / "round-1").glob("type-*/model"))  # the weights of earlier rounds are gone
    assert Policy.load(done.types[1]).generate(["the cat"], max_new_tokens=2)


def test_done_work_is_not_done_again_and_other_settings_are_refused(em, tiny_model: str, monkeypatch) -> None:  # noqa: F811
    folder, pairs, done = em
    from pluralign.training import run as training

    monkeypatch.setattr(training, "align", lambda *_, **__: pytest.fail("trained again"))
    tree, plan = made("em_dpo", tiny_model, folder)
    again = run_em(pairs, tree, HOW, plan=plan)
    assert np.array_equal(again.gamma, done.gamma)
    assert again.types == done.types
    with pytest.raises(SettingsError, match="holds EM with other kinds"):
        run_em(pairs, tree, replace(HOW, kinds=3), plan=plan)
    with pytest.raises(SettingsError, match="holds EM with other data"):
        run_em(pairs[:-1], tree, HOW, plan=plan)


class Killed(BaseException):
    """Like a kill: nothing catches it."""


def test_killed_between_stages_it_goes_on_to_the_same_kinds(em, tiny_model: str, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    """Of the first round, which does not know how many will follow, both kinds come out as in the run of two."""
    folder, pairs, _ = em
    from pluralign.mixtures import em as work

    one_round = replace(HOW, rounds=1)

    tree, plan = made("em_dpo", tiny_model, tmp_path / "em")
    trained: list[str] = []
    whole = work.train_weighted

    def killed(settings: Settings, *arguments: Any, **more: Any) -> Path:
        if len(trained) == 1:
            raise Killed
        trained.append(str(settings.output))
        return whole(settings, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(work, "train_weighted", killed)
        with pytest.raises(Killed):
            run_em(pairs, tree, one_round, plan=plan)
    place = Path("restart-1") / "round-1"
    assert (tmp_path / "em" / place / "type-1.json").is_file()
    assert not (tmp_path / "em" / place / "type-2.json").exists()
    assert run_em(pairs, tree, one_round, plan=plan).status == "finished"
    for name in ("type-1.json", "type-2.json"):
        own, other = (json.loads((root / place / name).read_text())["sums"] for root in (tmp_path / "em", folder))
        assert np.array(own) == pytest.approx(np.array(other), abs=1e-3)


# Min-max regret


def test_opposed_groups_are_mixed_evenly_and_one_policy_is_trained(em, tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    folder, pairs, _ = em
    tree, plan = made("minmax_dpo", tiny_model, tmp_path / "fair")
    done = run_minmax(folder, pairs, tree, FairHow(single=True), plan=plan)
    assert done.status == "finished"
    utility = np.array([[e["value"] for e in row] for row in done.report["utility"]])
    assert utility[0, 0] > utility[0, 1]
    assert utility[1, 1] > utility[1, 0]
    assert done.found.worst < done.found.single_worst
    assert done.found.worst == pytest.approx(done.found.regret.min(), abs=0.01)  # both kinds regret the same
    assert all(e["low"] <= e["value"] <= e["high"] and e["n"] == 60 for row in done.report["utility"] for e in row)
    run = json.loads((tmp_path / "fair" / "policy" / "run.json").read_text())
    assert (run["recipe"], run["data"]["train"]) == ("minmax_dpo", 60)
    single = done.report["single"]
    assert single["worst"] == pytest.approx(max(single["regret"]))
    with pytest.raises(SettingsError, match="holds min-max regret with other measure"):
        run_minmax(folder, pairs, tree, FairHow(measure="answers"), plan=plan)
    with pytest.raises(SettingsError, match="not the pairs"):
        run_minmax(folder, pairs[1:], tree, FairHow(), plan=plan)
    with pytest.raises(SettingsError, match="is no run of EM"):
        run_minmax(tmp_path, pairs, tree, FairHow(), plan=plan)


def test_regret_of_answers_is_in_the_implicit_reward(em, tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    """r_k is beta log(pi_k / pi_ref) of what policy j says: its own answers please its kind most (beta KL)."""
    folder, pairs, _ = em
    tree, plan = made("minmax_dpo", tiny_model, tmp_path / "fair")
    how = FairHow(measure="answers", prompts=12, max_new_tokens=4, temperature=1.0, top_p=1.0)
    done = run_minmax(folder, pairs, tree, how, plan=plan)
    assert len((tmp_path / "fair" / "answers" / "type-1.jsonl").read_text().splitlines()) == 12
    utility = np.array([[e["value"] for e in row] for row in done.report["utility"]])
    assert utility[0, 0] > utility[0, 1]
    assert utility[1, 1] > utility[1, 0]
    assert "single" not in done.report


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=3, max_size=6))
def test_a_ratio_with_equal_weights_is_the_clustered_mean(outcomes: list[list[int]]) -> None:
    found = ratio_interval(
        np.array([float(sum(o)) for o in outcomes]), np.array([float(len(o)) for o in outcomes]),
        n=sum(map(len, outcomes)),
    )  # fmt: skip
    flat = [x for own in outcomes for x in own]
    known = mean_interval(flat, clusters=[i for i, own in enumerate(outcomes) for _ in own])
    assert (found.value, found.low, found.high, found.n) == pytest.approx((known.value, known.low, known.high, known.n))


# Mistakes


def test_mistakes_are_told(tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    tree, plan = made("em_dpo", tiny_model, tmp_path / "em")
    with pytest.raises(RecordError, match="row 1: the pair belongs to nobody"):
        people_of([opposed(1, 1)[0], replace(opposed(1, 1)[0], user=None)])
    with pytest.raises(SettingsError, match="2 people cannot be of 2 kinds"):
        run_em(opposed(2), tree, plan=plan)
    with pytest.raises(SettingsError, match='unknown start "state"'):
        EMHow(start="state").check()
    other, _ = made("em_dpo", tiny_model, tmp_path / "em", "objective=ipo")
    with pytest.raises(SettingsError, match='that of objective "dpo", not of "ipo"'):
        run_em(opposed(), other, plan=plan)
    with pytest.raises(SettingsError, match='unknown measure "pair"'):
        FairHow(measure="pair").check()
    assert not (tmp_path / "em").exists()


def test_the_recipes_refuse_pairs_that_no_e_step_has_seen(cli: Cli, tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    """`pluralign align em_dpo` alone would be plain DPO under another name."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "x", "chosen": "a b", "rejected": "c d", "user": "u"}\n' * 20)
    for recipe, says in (("em_dpo", "pluralign mixture em"), ("minmax_dpo", "pluralign mixture minmax")):
        done = cli("align", recipe, "--model", tiny_model, "--data", "p.jsonl", "--output", recipe)
        assert done.code == 3
        assert says in done.err


# From the command line


def test_from_votes_to_kinds_to_one_policy(cli: Cli, tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "polis"
    folder.mkdir()
    things = ["tree", "cat", "dog", "red"]
    said = [f"{i},{'more' if i % 2 else 'less'} bread {things[i // 2]}\n" for i in range(8)]
    (folder / "comments.csv").write_text("comment-id,comment-body\n" + "".join(said))
    votes = ["participant,group-id," + ",".join(map(str, range(8)))]
    for u in range(8):
        votes.append(f"{u},{u % 2}," + ",".join("1" if i % 2 == u % 2 else "-1" for i in range(8)))
    (folder / "participants-votes.csv").write_text("\n".join(votes) + "\n")
    done = cli("mixture", "pairs", folder, "--from", "votes", "--topic", "bread", "--most", "8", "--output", "p.jsonl")
    assert done.code == 0, done.err
    assert "64 pairs of 8 people written to p.jsonl" in done.err
    words = ["mixture", "em", "--data", "p.jsonl", "--model", tiny_model, "--rounds", "1", "--start", "states",
             "--output", "em", *SHORT]  # fmt: skip
    done = cli(*words)
    assert done.code == 0, done.err
    assert ["kind", "share", "policy"] in [line.split() for line in done.out.splitlines()]
    assert "em/restart-1/round-1/type-2" in done.out
    assert "held-out people" in done.err
    found = json.loads(cli(*words, "--json").out)
    assert (found["status"], found["people"], found["pairs"], found["failed"]) == ("finished", 8, 64, {})
    done = cli("mixture", "minmax", "em", "--output", "fair", *SHORT)
    assert done.code == 0, done.err
    assert "mixture:" in done.out
    assert "worst regret" in done.err
    for words, says in [
        (["mixture", "minmax", "polis", "--output", "f"], "polis is no run of EM"),
        (["mixture", "pairs", "p.jsonl", "--from", "vote", "--output", "q.jsonl"], '--from is votes, ratings'),
        (["mixture", "pairs", "none.jsonl", "--from", "tldr", "--output", "q.jsonl"], "no such file"),
        (["mixture", "em", "--data", "p.jsonl", "--output", "em", "--kinds", "3", "--model", tiny_model, *SHORT],
         "em holds EM with other kinds"),
    ]:  # fmt: skip
        done = cli(*words)
        assert (done.code, says in done.err) == (2, True), done.err
