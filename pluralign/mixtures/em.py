"""EM-DPO as work on disk: who is of which kind, and a policy for each kind (RECONSTRUCTION, see `latent`).

    em.json                            what was asked, every round of every restart, the best one, its policies
    people.jsonl                       each person's responsibilities, pairs, and whether held out
    reference.json                     log-probs of every pair under the policy that all began with
    restart-1/round-1/type-1/          the run folder of a kind's M-step
    restart-1/round-1/type-1.json      log-probs of every pair under its policy

Called again with the same settings, the work goes on where it stopped. The weights of a round are removed once the next
one is scored.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingsError
from ..judging.scores import short_hash
from ..recipes.em_dpo import RESPONSIBILITIES
from ..records import Preference
from .latent import Fit, by_person, expectation_maximisation, pair_loglik, random_start
from .linear import fit_types
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

__all__ = ["REPORT", "STARTS", "EMHow", "EMOutcome", "run_em"]

REPORT = "em.json"
PEOPLE = "people.jsonl"
STARTS = ("random", "states")
COMPONENTS = 16  # of the states that a start is made from


@dataclass(frozen=True)
class EMHow:
    """How EM goes. `start` "random": responsibilities from a Dirichlet; "states": EM of linear rewards on the mean
    hidden states of the policy that all begin with. `held_out`: share of people who only measure the fit."""

    kinds: int = 2
    rounds: int = 5
    restarts: int = 1
    start: str = "random"
    anneal: float = 2.0
    held_out: float = 0.1
    seed: int = 0

    def check(self) -> EMHow:
        """Itself. Raises SettingsError for what cannot be."""
        if self.start not in STARTS:
            raise SettingsError(f'unknown start "{self.start}" (known: {", ".join(STARTS)}).')
        if self.kinds < 2 or self.rounds < 1 or self.restarts < 1:
            raise SettingsError("EM needs two kinds, one round and one restart at least.")
        if not 0 <= self.held_out < 1 or not self.anneal >= 1:
            raise SettingsError(
                f"held_out lies in [0, 1) and anneal at 1 or above, not {self.held_out}, {self.anneal}."
            )
        return self


@dataclass(frozen=True)
class EMOutcome:
    """What EM left: the best restart's `types` (run folders), `eta` and responsibilities, and how it ended."""

    output: Path
    status: str
    types: tuple[Path, ...] = ()
    eta: tuple[float, ...] = ()
    gamma: Floats | None = None
    people: tuple[str, ...] = ()
    report: Mapping[str, Any] | None = None


def run_em(
    records: Sequence[Preference], settings: Settings, how: EMHow | None = None, *,
    plan: Plan | None = None, say: Say | None = None, command: str = "",
) -> EMOutcome:  # fmt: skip
    """EM-DPO over people's pairs into `settings.output`; `settings` are those of the M-steps (recipe em_dpo).

    A person's pairs count as one draw of a kind. Pairs that cannot be rendered say nothing and are counted. Raises
    SettingsError for an objective other than dpo (its sigma is the likelihood), too few people, and a folder of other
    settings; RecordError for pairs without a user.
    """
    how = (how or EMHow()).check()
    records = list(records)
    people = people_of(records)
    _refuse(settings, how, people)
    output = Path(str(settings.output))
    work = _Work(records, people, settings, how, plan, say, command)
    about = {"command": command, "asked": work.asked(), "source": settings.data.source, "model": settings.model,
             "people": len(people), "pairs": len(records)}  # fmt: skip
    _claim(output, about)
    if say and (single := int((people.pairs < 2).sum())):
        say.warn(f"{single:,} of {len(people):,} people have one pair, which says nothing of their kind.")
    held = _held_out(people, how)
    fits: list[Fit] = []
    try:
        for restart in range(1, how.restarts + 1):
            start = work.start(restart, held)
            maximise = work.maximiser(restart)
            fits.append(expectation_maximisation(maximise, start, how.rounds, held=held.tolist(), anneal=how.anneal))
            rows = [{"restart": i, "chosen_by": f.chosen_by, "history": f.history} for i, f in enumerate(fits, 1)]
            write_json(output / REPORT, {**about, "restarts": rows, "status": "running"})
            if say:
                say.note(f"restart {restart}: shares {_shares(fits[-1].eta)}, "
                         f"{fits[-1].chosen_by:.3f} nats a {'held-out ' if held.any() else ''}person")  # fmt: skip
    except Stopped:
        return EMOutcome(output, "stopped")
    return _finish(output, {**about, "restarts": rows, "failed": work.failed()}, fits, people, held, how)


def _refuse(settings: Settings, how: EMHow, people: People) -> None:
    if settings.objective.name != "dpo":
        raise SettingsError(
            f'EM-DPO\'s likelihood is that of objective "dpo", not of "{settings.objective.name}".',
            remedy="Its beta may be changed: objective.beta=0.2.",
        )
    if not settings.output:
        raise SettingsError("EM needs a folder: output.")
    if settings.conditioning.strategy != "none" or settings.scores.show != "none":
        raise SettingsError("EM-DPO reads responses from the prompt alone: no conditioning, no scores in prompts.")
    if len(people) <= how.kinds:
        raise SettingsError(f"{len(people)} people cannot be of {how.kinds} kinds.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("EM runs in one process: each of several would write its own responsibilities.")


def _held_out(people: People, how: EMHow) -> Any:
    """(U,) who only measures: drawn by the seed, at least one where any are wanted, never all."""
    count = min(len(people) - 1, max(1, round(how.held_out * len(people)))) if how.held_out else 0
    out = np.zeros(len(people), dtype=bool)
    out[np.random.default_rng(how.seed).permutation(len(people))[:count]] = True
    return out


def _shares(eta: Any) -> str:
    return ", ".join(f"{share:.2f}" for share in eta)


def _claim(output: Path, about: Mapping[str, Any]) -> None:
    path = output / REPORT
    if not path.is_file():
        write_json(path, {**about, "restarts": [], "status": "running"})
        return
    old = read_json(path)["asked"]
    if other := [name for name, value in about["asked"].items() if old.get(name) != value]:
        raise SettingsError(
            f"{output} holds EM with other {', '.join(other)}.",
            remedy="Choose another output folder, or give the settings it was begun with.",
        )


def _finish(
    output: Path, about: Mapping[str, Any], fits: Sequence[Fit], people: People, held: Any, how: EMHow
) -> EMOutcome:
    best = max(range(len(fits)), key=lambda i: fits[i].chosen_by)
    fit = fits[best]
    folder = Path(f"restart-{best + 1}") / f"round-{how.rounds}"
    types = [folder / f"type-{k + 1}" for k in range(how.kinds)]
    report = {**about, "best": best + 1, "eta": fit.eta.tolist(), "types": [str(t) for t in types],
              "held_out_people": int(held.sum()), "status": "finished"}  # fmt: skip
    lines = (
        json.dumps({"user": name, "responsibilities": gamma.tolist(), "pairs": int(n), "held_out": bool(out)})
        for name, gamma, n, out in zip(people.names, fit.gamma, people.pairs, held, strict=True)
    )
    (output / PEOPLE).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    write_json(output / REPORT, report)
    return EMOutcome(output, "finished", tuple(output / t for t in types), tuple(fit.eta.tolist()), fit.gamma,
                     people.names, report)  # fmt: skip


# One round


@dataclass
class _Work:
    """What every round needs."""

    records: Sequence[Preference]
    people: People
    settings: Settings
    how: EMHow
    plan: Plan | None
    say: Say | None
    command: str

    @property
    def output(self) -> Path:
        return Path(str(self.settings.output))

    def asked(self) -> dict[str, Any]:
        """Everything that decides what comes out."""
        tree = {k: v for k, v in self.settings.model_dump().items() if k != "output"}
        training = short_hash(json.dumps(tree, sort_keys=True, default=str))
        return {"data": data_key(self.records), "training": training, **asdict(self.how)}

    def reference(self) -> Floats:
        """(N, 2) log-probs under the policy that all begin with."""
        path = self.output / "reference.json"
        policy: Any = None if path.is_file() else reference_of(self.settings)
        return log_ratios(policy, self.records, path, self.settings.training.token_budget)

    def failed(self) -> dict[str, int]:
        """Pairs that said nothing, by reason."""
        return dict(read_json(self.output / "reference.json")["failed"])

    def start(self, restart: int, held: Any) -> Floats:
        """Responsibilities (U, K) to begin with."""
        seed = self.how.seed + 1000 * restart
        if self.how.start == "random":
            return random_start(len(self.people), self.how.kinds, seed)
        gaps = self._state_gaps()
        _, fit = fit_types(gaps, self.people.of, self.how.kinds, held=held.tolist(), restarts=3, seed=seed)
        return fit.gamma

    def _state_gaps(self) -> Floats:
        """(N, 16) principal components of f(w) - f(l), f the mean hidden state over a response, scaled to 1."""
        from ..scoring.layout import Scored
        from ..terms import reference_free_pair

        path = self.output / "states.npy"
        if not path.is_file():
            policy = reference_of(self.settings)
            rows = [(list(reference_free_pair(r)), r.tools, r.where) for r in self.records]
            rendered = [r if isinstance(r, list) else None for r in policy.renderer.try_batch(rows)]
            flat = [Scored(t.context, t.target, t.scored) for r in rendered if r for t in r]
            read = policy.score(flat, reads=("mean_hidden",), groups=[[i, i + 1] for i in range(0, len(flat), 2)])
            states = iter(np.stack([r.mean_hidden[0].double().numpy() for r in read]))  # type: ignore[index]
            nothing = np.zeros(read[0].mean_hidden.shape[-1])  # type: ignore[union-attr]
            np.save(path, np.stack([next(states) - next(states) if r else nothing for r in rendered]))
        gaps = np.load(path)
        u, s, _ = np.linalg.svd(gaps / (gaps.std(0) + 1e-9), full_matrices=False)
        kept = (u * s)[:, :COMPONENTS]
        return np.asarray(kept / (kept.std(0) + 1e-9))

    def maximiser(self, restart: int) -> Callable[[int, Floats], Floats]:
        """The M-step of a restart and the log-likelihoods under what it trained."""

        def maximise(number: int, gamma: Floats) -> Floats:
            folder = self.output / f"restart-{restart}" / f"round-{number}"
            base = self.reference()
            ratios = [self._kind(folder, k, number, restart, gamma) - base for k in range(self.how.kinds)]
            logits = beta_of(self.settings) * np.stack([r[:, 0] - r[:, 1] for r in ratios], axis=1)
            before = folder.with_name(f"round-{number - 1}")
            for old in sorted(before.glob("type-*/model")):
                shutil.rmtree(old)
            return by_person(pair_loglik(logits), self.people.of, len(self.people))

        return maximise

    def _kind(self, folder: Path, k: int, number: int, restart: int, gamma: Floats) -> Floats:
        """(N, 2) log-probs under kind k's policy of this round, trained if it is not there."""
        path = folder / f"type-{k + 1}.json"
        if path.is_file():
            return log_ratios(None, self.records, path)  # type: ignore[arg-type]
        from ..policy import Policy

        made = self.settings.model_copy(deep=True)
        made.output, made.seed = str(folder / f"type-{k + 1}"), self.how.seed + 1000 * restart + number
        made.data.validation_fraction = 0.0
        if number > 1:
            made.model = str(folder.with_name(f"round-{number - 1}") / f"type-{k + 1}")
            if not made.lora.rank:  # an adapter's base is its own reference
                made.reference = self.settings.reference or self.settings.model
        own = gamma[self.people.of]
        run = train_weighted(
            made, self.records, own[:, k], RESPONSIBILITIES, shares=own.tolist(), plan=self.plan, say=self.say,
            command=self.command,
        )  # fmt: skip
        policy = Policy.load(
            run, precision=made.training.precision, trust_remote_code=made.trust_remote_code,
            rendering=made.rendering.model_dump(),
        )  # fmt: skip
        return log_ratios(policy, self.records, path, made.training.token_budget)
