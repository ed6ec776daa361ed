"""A small reward model that needs no download: a Bradley-Terry head on frozen states of the embedded model.

P(a > b | x) = sigmoid(u . (f(x, a) - f(x, b))), f: mean and last hidden state over the response, (2 D,). u is fitted
once on the shipped training pairs and kept in the cache folder under a key of weights, pairs and settings; `accuracy`
says how often it is right on the shipped pairs it has not seen. It is a weak judge: it is there so that whatever needs
a judge runs without a network, not to tell which of two good answers is better.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assets import PAIRS_DIR
from ..curate.texts import part_key
from ..errors import PluralignError, RenderError
from ..records import Messages, Preference
from ..scoring.reference import cache_folder
from ..terms import Term
from .scored import Found, ScoreJudge
from .statistics import Estimate, share_interval
from .verdicts import Progress, Subject

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["BradleyTerryHead", "fit_bradley_terry", "local_judge", "states_of", "train_local"]

Floats = NDArray[np.float64]
PENALTIES = (100.0, 300.0, 1000.0, 3000.0, 10000.0)
FOLDS = 5
PAIRS = 600  # of those for training: more took longer and was not right more often
LONGEST = 256  # tokens of prompt and response; longer ones lose the beginning of their prompt
VERSION = 1  # of what is computed here


@dataclass(frozen=True)
class BradleyTerryHead:
    """`weight` (2 D,) on raw states. `accuracy`: the share of held-out pairs whose chosen response scores higher."""

    weight: Floats
    accuracy: Estimate
    about: dict[str, Any]

    def scores(self, states: Floats) -> Floats:
        """(N,) rewards, logits of a Bradley-Terry model, of (N, 2 D) states."""
        return np.asarray(states @ self.weight)


def fit_bradley_terry(gaps: Floats, penalty: float) -> Floats:
    """(F,) the minimum of mean log(1 + exp(-u . gap)) + penalty |u|^2 / 2N over (N, F) chosen minus rejected states."""
    from scipy.optimize import minimize

    n = len(gaps)

    def loss(u: Floats) -> tuple[float, Floats]:
        z = gaps @ u
        slope = -np.exp(-np.logaddexp(0, z))  # -sigmoid(-z)
        return float(np.logaddexp(0, -z).mean() + penalty * (u @ u) / (2 * n)), gaps.T @ slope / n + penalty * u / n

    return np.asarray(minimize(loss, np.zeros(gaps.shape[1]), jac=True, method="L-BFGS-B").x)


def choose_penalty(gaps: Floats, groups: Sequence[str], penalties: Sequence[float] = PENALTIES) -> float:
    """The penalty with the lowest log-loss on folds that share no group (first prompt) with what was fitted."""
    named = sorted(set(groups))
    fold = {name: i % FOLDS for i, name in enumerate(named)}
    own = np.array([fold[g] for g in groups])

    def held_out(penalty: float) -> float:
        losses = [np.logaddexp(0, -gaps[own == k] @ fit_bradley_terry(gaps[own != k], penalty)) for k in range(FOLDS)]
        return float(np.concatenate(losses).mean())

    return min(penalties, key=held_out)


def states_of(
    policy: Policy,
    prompts: Sequence[Messages],
    responses: Sequence[Messages],
    progress: Progress | None = None,
) -> Floats:
    """(N, 2 D) mean and last hidden state of each response; a prompt of several is read once.

    `progress` hears how many prompts of how many are done. Raises RenderError for what the template cannot show.
    """
    import torch

    from ..scoring.layout import Scored

    terms = [Term("y", (x,), y) for x, y in zip(prompts, responses, strict=True)]
    rendered = [policy.renderer.render([term])[0] for term in terms]
    shared: dict[bytes, list[int]] = {}
    for i, prompt in enumerate(prompts):
        shared.setdefault(part_key(prompt), []).append(i)
    done = 0

    def heard(groups: int) -> None:
        nonlocal done
        done += groups
        if progress:
            progress(done, len(shared))

    read = policy.score([Scored(r.context, r.target) for r in rendered], reads=("mean_hidden", "last_hidden"),
                        groups=list(shared.values()), progress=heard)  # fmt: skip
    rows = [torch.cat([r.mean_hidden[0], r.last_hidden[0]]) for r in read if r.mean_hidden is not None
            and r.last_hidden is not None]  # fmt: skip
    width = 2 * int(policy.model.config.hidden_size)
    return torch.stack(rows).double().cpu().numpy() if rows else np.zeros((0, width))


def train_local(
    policy: Policy,
    train: Sequence[Preference],
    held_out: Sequence[Preference],
    progress: Callable[[str, int, int], None] | None = None,
) -> BradleyTerryHead:
    """Fit the head on `train` and say how often it is right on `held_out`; a tie is wrong."""

    def gaps(name: str, pairs: Sequence[Preference]) -> Floats:
        prompts = [p.prompt for p in pairs] * 2
        both = states_of(policy, prompts, [p.chosen for p in pairs] + [p.rejected for p in pairs],
                         progress and (lambda done, of: progress(name, done, of)))  # fmt: skip
        return both[: len(pairs)] - both[len(pairs) :]

    own, unseen = gaps("local judge: training pairs", train), gaps("local judge: held-out pairs", held_out)
    scale = own.std(0) + 1e-9
    penalty = choose_penalty(own / scale, [p.prompt[0].content for p in train])
    weight = fit_bradley_terry(own / scale, penalty) / scale
    accuracy = share_interval([float(gap > 0) for gap in unseen @ weight])
    return BradleyTerryHead(weight, accuracy, {"pairs": len(train), "held_out": len(held_out), "penalty": penalty})


def local_judge(*, progress: Callable[[str, int, int], None] | None = None, folder: Path | None = None) -> ScoreJudge:
    """The head as a judge, named `local`; `folder` keeps it (default: the cache folder). Its shares are its own
    probabilities. Raises PluralignError where what is kept cannot be read."""
    from ..data import load
    from ..policy import Policy
    from .answers import policy_key

    policy = Policy.load("embedded", rendering={"max_length": LONGEST}, precision="fp32")
    files = [PAIRS_DIR / f"{name}.jsonl.gz" for name in ("train", "heldout")]
    seen = [VERSION, policy_key(policy), LONGEST, PAIRS, PENALTIES, FOLDS, *(_digest(f) for f in files)]
    key = hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]
    path = (folder or cache_folder() / "judges") / f"local-{key}.json"
    if path.is_file():
        head = _read(path)
    else:
        pairs = [[p for p in load(str(f), kind=Preference) if isinstance(p, Preference)] for f in files]
        head = train_local(policy, pairs[0][:: max(1, len(pairs[0]) // PAIRS)][:PAIRS], pairs[1], progress)
        _write(path, head)
    return head_judge(policy, head, key=f"bradley-terry {key}", name="local")


def head_judge(policy: Policy, head: BradleyTerryHead, *, key: str, name: str) -> ScoreJudge:
    """A head on a policy's states as a judge; a response that the template cannot show has no score."""
    from .answers import spoken

    def one(item: Subject) -> Found:
        try:
            return float(head.scores(states_of(policy, [item.prompt], [spoken(item.response or " .")]))[0]), ""
        except RenderError as error:
            return None, error.reason

    def score(items: Sequence[Subject]) -> list[Found]:
        try:
            states = states_of(policy, [i.prompt for i in items], [spoken(i.response or " .") for i in items])
        except RenderError:  # of one of them
            return [one(item) for item in items]
        return [(float(value), "") for value in head.scores(states)]

    return ScoreJudge(name, key, score, shares=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, head: BradleyTerryHead) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"weight": head.weight.tolist(), "accuracy": head.accuracy.as_dict(), "about": head.about}
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(row), "utf-8")
    unfinished.replace(path)


def _read(path: Path) -> BradleyTerryHead:
    try:
        row = json.loads(path.read_text("utf-8"))
        return BradleyTerryHead(np.array(row["weight"], np.float64), Estimate.from_dict(row["accuracy"]), row["about"])
    except (OSError, ValueError, KeyError, TypeError):
        raise PluralignError(f"{path} is no kept judge.", remedy="Delete the file.") from None
