"""What A-IPO adds to an objective: an expectation over intents, similarity in the logit, and the module's own losses.

    loss = sum_k q(I_k | x) base_k + gamma KL(q(I | x) || p(I)) + c L_i                       (Eq. 5 and 10)

base_k is any objective under intent I_k, its logit shifted by lambda (sim(y_w, I_k) - sim(y_l, I_k)) (Eq. 7). The shift
is a tilt of the reference, log pi_ref(y) - (lambda / beta) sim(y, I), the construction of Theorem 5.1: it reaches every
objective that compares log-ratios. Objectives without a reference add the column "tilt" to their margin where they have
a place for it.

Shapes: B examples, K candidate intents, N intents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..conditioning import NO_INTENT
from ..errors import SettingsError
from ..heads.intent import classification, log_posterior
from ..objectives import Objective

__all__ = ["IntentGoal", "Tilted", "refuse_tilt"]


@dataclass(frozen=True)
class IntentGoal:
    """How intents enter the loss. `slots`: candidate intents of each example (1 where one is drawn).

    `weights` "fixed": the stored shares of the candidates (a point mass on a label); "posterior": the module's own over
    the candidates, in every step; "drawn": one candidate an example, drawn by its stored share, and counted by the
    ratio of the module's share and the stored one, so that the expectation is that of "posterior".
    `gradient`: whether q learns from the preference loss. `loss` and `prior` (N,) are the module's.
    """

    slots: int
    weights: str = "fixed"
    similarity: float = 0.0  # lambda
    kl: float = 0.0  # gamma
    classify: float = 0.0  # c
    gradient: bool = True
    loss: str = "softmax"
    prior: tuple[float, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The readings that the policy's pass has to return for it."""
        module = self.weights != "fixed" or self.kl or self.classify
        return (*(["intent"] if module else []), *(["sim"] if self.similarity else []))

    def shares(self, readings: Mapping[str, Any]) -> Tensor:
        """(B, K) weights of the candidates in the loss."""
        stored = readings["candidate_q"]
        if self.weights == "fixed":
            return stored
        found = self.candidates(readings)
        found = found if self.gradient else found.detach()
        if "slot" not in readings:
            return found
        slot = readings["slot"].long()[:, None]
        return found.gather(1, slot) / stored.gather(1, slot)

    def candidates(self, readings: Mapping[str, Any]) -> Tensor:
        """(B, K) the module's posterior over the candidates; one without any intent is certain."""
        at = readings["candidates"].long()
        log_q = log_posterior(_logits(readings), self.loss).gather(1, at.clamp(min=0))
        log_q = log_q.masked_fill(at == NO_INTENT, -torch.inf)
        none = (at == NO_INTENT).all(1, keepdim=True)
        first = torch.zeros_like(log_q).index_fill(1, torch.arange(1, at.shape[1], device=at.device), -torch.inf)
        return torch.where(none, first, log_q).softmax(1)

    @property
    def drawn(self) -> bool:
        return self.weights == "drawn"

    def tilted(self, shown: dict[str, Any], beta: float | None) -> dict[str, Any]:
        """The readings of one view with the similarity in them: references tilted, the column "tilt" (B,) beside."""
        if not self.similarity:
            return shown
        out = dict(shown)
        for name, r in shown.items():
            ref = shown.get(f"ref_{name}")
            if ref is not None and getattr(r, "sim", None) is not None and beta:
                out[f"ref_{name}"] = Tilted(ref, -self.similarity / beta * r.sim)
        gap = similarity_gap(shown)
        if gap is not None:
            out["tilt"] = self.similarity * gap
        return out

    def extra(self, readings: Mapping[str, Any]) -> tuple[Tensor | float, dict[str, Tensor]]:
        """gamma KL(q || p) + c L_i, (B,), and metrics."""
        if "intent" not in self.reads:
            return 0.0, {}
        logits = _logits(readings)
        log_q = log_posterior(logits, self.loss)
        prior = log_q.new_tensor(self.prior or [1 / log_q.shape[1]] * log_q.shape[1]).log()
        kl = (log_q.exp() * (log_q - prior)).sum(1)
        label = readings["intent_label"].long()
        known = label != NO_INTENT
        classified = classification(logits, label.clamp(min=0), self.loss) * known
        entropy = -(log_q.exp() * log_q).sum(1)
        metrics = {"intent_kl": kl, "intent_entropy": entropy}
        if bool(known.any()):
            metrics |= {"intent_loss": classified[known], "intent_accuracy": (log_q.argmax(1) == label)[known].float()}
        extra = self.kl * kl + self.classify * classified
        return extra, {name: value.detach() for name, value in metrics.items()}


def similarity_gap(shown: Mapping[str, Any]) -> Tensor | None:
    """sim(y_w, I) - sim(y_l, I), (B,) in [-1, 1]; None where there is no pair of similarities."""
    chosen, rejected = (getattr(shown.get(name), "sim", None) for name in ("w", "l"))
    return None if chosen is None or rejected is None else chosen - rejected


def _logits(readings: Mapping[str, Any]) -> Tensor:
    """(B, N): every policy term of an example has the same, the prompt's."""
    return next(logits for r in readings.values() if (logits := getattr(r, "intent", None)) is not None)


class Tilted:
    """A reading whose log-prob, of the whole response and per token alike, is shifted by `shift`."""

    def __init__(self, reading: Any, shift: Tensor) -> None:
        self._reading, self._shift = reading, shift

    @property
    def sum(self) -> Tensor:
        return self._reading.sum + self._shift

    @property
    def mean(self) -> Tensor:
        return self._reading.mean + self._shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reading, name)


def beta_of(objective: Objective, hyper: Mapping[str, Any]) -> float | None:
    """What the objective multiplies log-ratios by; None for one without such a number."""
    values = {**objective.defaults, **hyper}
    found = next((values[n] for n in ("beta", "tau") if n in values), None)
    if found is None:  # a sum of objectives: its first part's
        found = next((v for n, v in values.items() if n.endswith(("_beta", "_tau"))), None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def refuse_tilt(objective: Objective, hyper: Mapping[str, Any]) -> None:
    """Raises SettingsError for an objective whose logit has no place for the similarity term."""
    by_reference = objective.reference and beta_of(objective, hyper) and not {"tokens", "kl"} & set(objective.reads)
    if not (by_reference or "tilt" in objective.optional):
        raise SettingsError(
            f'objective "{objective.name}" has no logit that intents.similarity could shift.',
            remedy="Set intents.similarity=0, or choose an objective with a reference, such as dpo.",
        )
