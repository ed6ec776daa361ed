"""Maximum likelihood on one response."""

from __future__ import annotations

from .core import Outcome, Readings, objective

__all__ = ["sft"]


@objective("sft", needs=("y",), formula="-log pi(y|x), per token", paper="maximum likelihood", per_token=True)
def sft(r: Readings) -> Outcome:
    """Supervised fine-tuning on the response only. The trainer divides the sum by the global number of tokens."""
    loss = -r["y"].sum
    return Outcome(loss, {"nll_per_token": (loss / r["y"].length).detach()})
