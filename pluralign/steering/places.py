"""How likely each written token was, and what else could have stood there: the `logprobs` of OpenAI's answers.

Log-probs are the model's own, before temperature and top-p.

Shapes: B rows, W of them that want it, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import LogitsProcessor

from .requests import Place, Request

__all__ = ["Places"]


class Places(LogitsProcessor):
    """Looks at the scores of a step, and leaves them as they are. `decode`: a token's text."""

    def __init__(self, requests: Sequence[Request], decode: Callable[[int], str]) -> None:
        self.requests, self.decode = requests, decode
        wanted = [i for i, r in enumerate(requests) if r.logprobs is not None]
        self.at = {row: n for n, row in enumerate(wanted)}
        self.most = max((requests[i].logprobs or 0 for i in wanted), default=0)
        self.latest: Tensor | None = None  # (W, V)
        self.best: tuple[list[list[float]], list[list[int]]] = [], []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.latest = scores[list(self.at)].float().log_softmax(-1)
        found = self.latest.topk(self.most, dim=-1)
        self.best = found.values.tolist(), found.indices.tolist()
        return scores

    def of(self, row: int, token: int) -> Place:
        """What the last step says of the token that row took."""
        assert self.latest is not None, "looked at before a token is taken"
        n, count = self.at[row], self.requests[row].logprobs or 0
        best = zip(self.best[1][n][:count], self.best[0][n][:count], strict=True)
        return Place(self.decode(token), float(self.latest[n, token]), tuple((self.decode(i), lp) for i, lp in best))
