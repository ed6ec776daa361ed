"""MinMax-DPO as work on disk: of the kinds' policies that EM left, the mixture that no kind regrets much, and one
policy trained on the kinds as the adversary weighs them (RECONSTRUCTION, see `regret`).

    minmax.json            utilities and regrets with their intervals, mixture, adversary, the best policy alone
    answers/type-1.jsonl   with measure "answers": what each policy answers
    policy/                with `single`: the run folder of the one policy
    policy.json            log-probs of every pair under it

Called again with the same settings, the work goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingsError
from ..judging.statistics import Estimate, mean_interval
from ..recipes.minmax_dpo import REGRET
from ..records import Preference
from .em import PEOPLE
from .em import REPORT as EM
from .regret import MinMax, minmax, pair_weights, regrets
from .stages import (
    Floats,
    People,
    Stopped,
    beta_of,
    data_key,
    log_ratios,
    people_of,
    read_json,
    reference_of,
    train_weighted,
    write_json,
)

if TYPE_CHECKING:
    from ..terms import Plan
    from ..training.callbacks import Say
    from ..training.settings import Settings

__all__ = ["MEASURES", "REPORT", "FairHow", "FairOutcome", "ratio_interval", "run_minmax"]

REPORT = "minmax.json"
MEASURES = ("pairs", "answers")


@dataclass(frozen=True)
class FairHow:
    """How policies are measured. `measure` "pairs": the share of a kind's pairs (weighted by responsibility) that a
    policy ranks as the person did, against the policy that all began with; "answers": the mean implicit reward
    beta log(pi_k / pi_ref) of the policy's own answers, the paper's r_k. `single`: train one policy too."""

    measure: str = "pairs"
    single: bool = False
    rounds: int = 10_000
    prompts: int = 200
    max_new_tokens: int = 128
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0

    def check(self) -> FairHow:
        """Itself. Raises SettingsError for what cannot be."""
        if self.measure not in MEASURES:
            raise SettingsError(f'unknown measure "{self.measure}" (known: {", ".join(MEASURES)}).')
        if min(self.rounds, self.prompts, self.max_new_tokens) < 1:
            raise SettingsError("rounds, prompts and max_new_tokens must be at least 1.")
        return self


@dataclass(frozen=True)
class FairOutcome:
    """`found` over the kinds' policies; `policy` is the single one, where it was trained."""

    output: Path
    status: str
    found: MinMax
    report: Mapping[str, Any]
    policy: Path | None = None


def run_minmax(
    run: str | Path, records: Sequence[Preference], settings: Settings, how: FairHow | None = None, *,
    plan: Plan | None = None, say: Say | None = None, command: str = "",
) -> FairOutcome:  # fmt: skip
    """The least worst regret over the policies of an EM run, into `settings.output`; `records` are EM's own pairs.

    `settings` are those of the single policy (recipe minmax_dpo); beta is read from them. Raises SettingsError where
    `run` is no finished EM run, the pairs are others, or the folder holds other work.
    """
    how = (how or FairHow()).check()
    run, records = Path(run), list(records)
    report, gamma = _read_em(run, records)
    if not settings.output:
        raise SettingsError("min-max regret needs a folder: output.")
    output, people = Path(settings.output), people_of(records)
    about = {"command": command, "asked": _asked(run, report, records, settings, how)}
    _claim(output, about)
    names = [Path(t).name for t in report["types"]]
    table = _on_pairs(run, report, records, people, gamma) if how.measure == "pairs" else _on_answers(
        run, report, records, settings, how, output)  # fmt: skip
    utility = np.array([[e.value for e in row] for row in table])
    found = minmax(regrets(utility), how.rounds)
    result: dict[str, Any] = {
        **about, "policies": names, "eta": report["eta"],
        "utility": [[e.as_dict() for e in row] for row in table], "regret": regrets(utility).tolist(),
        "mixture": found.mixture.tolist(), "adversary": found.adversary.tolist(), "mixture_regret":
        found.regret.tolist(), "worst": found.worst, "gap": found.gap, "best_alone": names[found.single],
        "best_alone_worst": found.single_worst, "status": "finished",
    }  # fmt: skip
    if not how.single:
        write_json(output / REPORT, result)
        return FairOutcome(output, "finished", found, result)
    write_json(output / REPORT, {**result, "status": "running"})
    made = settings.model_copy(deep=True)
    made.output, made.data.validation_fraction = str(output / "policy"), 0.0
    weights = pair_weights(gamma, found.adversary, people.of)
    try:
        policy = train_weighted(
            made, records, weights, REGRET, shares=weights.tolist(), plan=plan, say=say, command=command
        )
    except Stopped:
        return FairOutcome(output, "stopped", found, result)
    result["single"] = _single(policy, run, records, people, gamma, made, utility if how.measure == "pairs" else None)
    write_json(output / REPORT, result)
    return FairOutcome(output, "finished", found, result, policy)


def _single(
    policy: Path, run: Path, records: Sequence[Preference], people: People, gamma: Floats, settings: Settings,
    utility: Floats | None,
) -> dict[str, Any]:  # fmt: skip
    """The single policy on each kind's pairs, and what each kind regrets under it, where utilities are of pairs."""
    from ..policy import Policy

    path = policy.with_name("policy.json")
    loaded: Any = None
    if not path.is_file():
        loaded = Policy.load(policy, precision=settings.training.precision, rendering=settings.rendering.model_dump(),
                             trust_remote_code=settings.trust_remote_code)  # fmt: skip
    ratios = log_ratios(loaded, records, path, settings.training.token_budget)
    base = log_ratios(None, records, run / "reference.json")  # type: ignore[arg-type]
    own = [_share(_wins(ratios, base), people, gamma[:, k]) for k in range(gamma.shape[1])]
    out: dict[str, Any] = {"policy": str(policy), "pairs": [e.as_dict() for e in own]}
    if utility is not None:
        lost = np.maximum(0.0, utility.max(1) - [e.value for e in own])
        out |= {"regret": lost.tolist(), "worst": float(lost.max())}
    return out


# Utilities


def _on_pairs(
    run: Path, report: Mapping[str, Any], records: Sequence[Preference], people: People, gamma: Floats
) -> list[list[Estimate]]:
    """(K, J): the share of kind k's pairs that policy j ranks rightly."""
    base = log_ratios(None, records, run / "reference.json")  # type: ignore[arg-type]
    wins = [_wins(log_ratios(None, records, run / f"{t}.json"), base) for t in report["types"]]  # type: ignore[arg-type]
    return [[_share(w, people, gamma[:, k]) for w in wins] for k in range(gamma.shape[1])]


def _wins(ratios: Floats, base: Floats) -> Floats:
    """(N,) 1 where h(y_w) > h(y_l) strictly, NaN where the pair could not be read."""
    rho = (ratios[:, 0] - base[:, 0]) - (ratios[:, 1] - base[:, 1])
    return np.where(np.isnan(rho), np.nan, (rho > 0).astype(float))


def _share(wins: Floats, people: People, weight: Floats) -> Estimate:
    """The share of pairs won, each weighted by its person's responsibility."""
    read = ~np.isnan(wins)
    count = len(people)
    asked = np.bincount(people.of[read], minlength=count) * weight
    won = np.bincount(people.of[read], weights=wins[read], minlength=count) * weight
    return ratio_interval(won, asked, n=int(read.sum()), missing=int((~read).sum()))


def ratio_interval(top: Floats, bottom: Floats, *, n: int, missing: int = 0, level: float = 0.95) -> Estimate:
    """sum(top) / sum(bottom) over people (U,), with the linearised Student-t interval of a ratio over people.

    `n` items stand behind the sums. With every weight 1 it is `statistics.mean_interval` with people as clusters.
    """
    total = float(bottom.sum())
    if total <= 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, level, "ratio over people", missing)
    value, people = float(top.sum()) / total, int((bottom > 0).sum())
    if people < 2:
        return Estimate(value, float("nan"), float("nan"), n, level, "ratio over people", missing)
    from scipy.stats import t

    residual = top - value * bottom
    error = float(np.sqrt(people / (people - 1) * (residual**2).sum())) / total
    half = float(t.ppf(0.5 + level / 2, people - 1)) * error
    return Estimate(value, value - half, value + half, n, level, f"ratio over {people} people", missing)


def _on_answers(
    run: Path, report: Mapping[str, Any], records: Sequence[Preference], settings: Settings, how: FairHow, output: Path
) -> list[list[Estimate]]:
    """(K, J): mean beta log(pi_k / pi_ref) of what policy j answers to the pairs' prompts, one draw of each."""
    from ..curate.texts import part_key
    from ..judging.answers import spoken, write_answers
    from ..judging.implicit import implicit_rewards
    from ..policy import Policy
    from ..steering import Request

    prompts = list({part_key(r.prompt): r.prompt for r in records}.values())
    if len(prompts) > how.prompts:
        picked = np.random.default_rng(how.seed).permutation(len(prompts))[: how.prompts]
        prompts = [prompts[i] for i in sorted(picked)]
    options: dict[str, Any] = {"max_new_tokens": how.max_new_tokens, "temperature": how.temperature,
                               "top_p": how.top_p, "seed": how.seed}  # fmt: skip
    load: dict[str, Any] = {"precision": settings.training.precision, "trust_remote_code": settings.trust_remote_code}
    policies = [Policy.load(run / t, rendering=settings.rendering.model_dump(), **load) for t in report["types"]]
    written = []
    for name, policy in zip(report["types"], policies, strict=True):
        requests = [Request(p, place=i, **options) for i, p in enumerate(prompts)]
        path = output / "answers" / f"{Path(name).name}.jsonl"
        written.append(write_answers(path, policy, requests, [{"row": i} for i in range(len(prompts))]))
    reference = reference_of(settings)

    def rewards(policy: Policy, answers: Sequence[Mapping[str, Any]]) -> Estimate:
        """An answer that was cut at its longest has no end of turn, and none is scored."""
        values: list[float | None] = []
        for whole in (True, False):
            sides = [
                s if whole else replace(s, rendering={**s.rendering, "score_eos": False}) for s in (policy, reference)
            ]
            own = [(p, spoken(a["response"])) for p, a in zip(prompts, answers, strict=True)
                   if (a["finish"] != "length") == whole]  # fmt: skip
            found = implicit_rewards(sides[0], own, reference=sides[1], beta=beta_of(settings)) if own else []
            values += [s.values[0] for s in found]
        return mean_interval(values)

    return [[rewards(policy, answers) for answers in written] for policy in policies]


# Files


def _read_em(run: Path, records: Sequence[Preference]) -> tuple[dict[str, Any], Floats]:
    if not (run / EM).is_file():
        raise SettingsError(f"{run} is no run of EM: it has no {EM}.", remedy="Make one: `pluralign mixture em`.")
    report = read_json(run / EM)
    if report["status"] != "finished":
        raise SettingsError(f"EM in {run} has not finished.", remedy="The same command as before goes on with it.")
    if report["asked"]["data"] != data_key(records):
        raise SettingsError(f"these are not the pairs that {run} was made from.")
    lines = (run / PEOPLE).read_text("utf-8").splitlines()
    return report, np.array([json.loads(line)["responsibilities"] for line in lines], dtype=np.float64)


def _asked(
    run: Path, report: Mapping[str, Any], records: Sequence[Preference], settings: Settings, how: FairHow
) -> dict[str, Any]:
    from ..judging.scores import short_hash

    tree = {k: v for k, v in settings.model_dump().items() if k != "output"}
    em = short_hash(json.dumps([report["asked"], report["eta"]], sort_keys=True))
    training = short_hash(json.dumps(tree, sort_keys=True, default=str))
    return {"run": str(run), "em": em, "data": data_key(records), "training": training, **asdict(how)}


def _claim(output: Path, about: Mapping[str, Any]) -> None:
    path = output / REPORT
    if not path.is_file():
        write_json(path, {**about, "status": "running"})
        return
    free = ("single",)  # the single policy may follow later
    old = read_json(path)["asked"]
    if other := [n for n, v in about["asked"].items() if old.get(n) != v and n not in free]:
        raise SettingsError(
            f"{output} holds min-max regret with other {', '.join(other)}.",
            remedy="Choose another output folder, or give the settings it was begun with.",
        )
