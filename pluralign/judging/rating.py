"""Scores of responses by a policy with a rating head (recipe `attribute_model`): a judge trained by our own command.

Shapes: N responses, K attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingsError
from ..records import Messages, messages
from ..scoring.layout import Scored
from ..terms import Term

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["rate"]


def rate(
    judge: Policy,
    prompts: Sequence[Any],
    responses: Sequence[str | Messages],
    *,
    token_budget: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """(N, K) scores in the data's own units, in the order of `judge.scores.names`.

    Prompts and responses are text or messages; an empty response is the end of the turn alone. Raises SettingsError for
    a judge without a rating head, RenderError for what its template cannot show.
    """
    form = judge.scores
    if form is None or judge.rating is None:
        raise SettingsError(
            f'"{judge.name}" has no rating head.', remedy="Train one: `pluralign align attribute_model --data ...`."
        )
    sequences = []
    for prompt, response in zip(prompts, responses, strict=True):
        said = messages(response or " .", role="assistant") if isinstance(response, str) else response
        (r,) = judge.renderer.render([Term("y", (messages(prompt),), said)])
        sequences.append(Scored(r.context, r.target, r.scored))
    found = judge.score(sequences, reads=("sum", "length", "rated"), token_budget=token_budget, progress=progress)
    units = np.array([r.rated[0].tolist() for r in found if r.rated is not None]).reshape(len(found), len(form.names))
    low, high = (np.array([getattr(scale, end) for scale in form.scales]) for end in ("low", "high"))
    return low + units * (high - low)
