"""User-level reward heads on frozen features: whose preference it is decides part of the reward.

The three models of A-IPO's appendix H.5.1, and the head without users that they are held against. All of them score a
feature h(x, y) of a frozen encoder for a user u and learn from sigma(s(x, y_w, u) - s(x, y_l, u)), Bradley-Terry:

    shared   s(h)                              one head for everybody, the control
    p_rlhf   MLP([h, e_u])                     P-RLHF-Lite: a scalar from the concatenation with an embedding e_u
    pal      sim(h, sum_k w_uk p_k)            PAL-Lite: K prototypes, weights w_u on the simplex, one ideal point each
    a_ipo    s(h) + lambda (1 + cos(h, z_u))/2 A-IPO-User: the user is the intent, z_u its embedding

Sources: Wang et al., A-IPO, H.5 (the "Lite" forms and the loss); Li et al. 2024, arXiv 2402.05133 (P-RLHF); Chen et al.
2025, arXiv 2406.08469 (PAL, whose code has the distance and the angle below). Sizes that H.5 does not name are ours:
width of the MLP and of e_u, one hidden layer in s.

A linear map of [h, e_u] could not personalise: v . e_u stands in both rewards of a pair and cancels. So the head of
p_rlhf always has a hidden layer.

Shapes: D features, U users, P numbers that are a user's own, K prototypes; leading dimensions as they come.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..errors import SettingsError, nearest

__all__ = [
    "KINDS",
    "SIMILARITIES",
    "Kind",
    "Shape",
    "Similarity",
    "UserReward",
    "ideal_point",
    "load_users",
    "save_users",
    "similarity",
    "unit_similarity",
]

Kind = Literal["shared", "p_rlhf", "pal", "a_ipo"]
Similarity = Literal["angle", "distance"]
KINDS: tuple[str, ...] = get_args(Kind)
SIMILARITIES: tuple[str, ...] = get_args(Similarity)
START = math.log(1 / 0.07)  # of PAL's logit scale, as in CLIP
LARGEST = 100.0
WEIGHTS, SHAPE = "users.safetensors", "users.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a user-level head is made of. `hidden` 0: a linear s(h) (shared and a_ipo only)."""

    kind: Kind
    width: int
    hidden: int = 64
    user_width: int = 16
    prototypes: int = 2
    similarity: Similarity = "angle"
    lam: float = 1.0

    def check(self) -> Shape:
        """Itself. Raises SettingsError for what cannot be."""
        for name, known in (("kind", KINDS), ("similarity", SIMILARITIES)):
            word = getattr(self, name)
            if word not in known:
                raise SettingsError(f'unknown {name} "{word}" (known: {", ".join(known)}).{nearest(word, known)}')
        for name in ("width", "user_width", "prototypes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.hidden < 0 or not 0 <= self.lam < math.inf:
            raise SettingsError(f"hidden and lam must be 0 or more, not {self.hidden} and {self.lam:g}.")
        if self.kind == "p_rlhf" and not self.hidden:
            raise SettingsError(
                "a linear head on features and user embedding cannot personalise: the user's part cancels in a pair.",
                remedy="Give it a hidden layer.",
            )
        return self

    @property
    def own(self) -> int:
        """P: how many numbers are a user's own."""
        return {"shared": 0, "p_rlhf": self.user_width, "pal": self.prototypes, "a_ipo": self.width}[self.kind]


# The arithmetic


def ideal_point(prototypes: Tensor, logits: Tensor) -> Tensor:
    """a_u = sum_k softmax(W_u)_k p_k: prototypes (K, D), logits (..., K) -> (..., D)."""
    return logits.softmax(-1) @ prototypes


def similarity(features: Tensor, ideal: Tensor, how: Similarity = "angle", scale: Tensor | float = 1.0) -> Tensor:
    """PAL's reward of features (..., D) for an ideal point (..., D): (...).

    "angle": scale cos(h, a). "distance": -|h - a|, so that a pair's logit is |h_l - a| - |h_w - a|.
    a = (1, 0): (1, 1) has angle 0.7071 and distance -1, (-1, 0) has -1 and -2.
    """
    if how == "angle":
        return scale * cosine_similarity(features, ideal, dim=-1)
    return -(features - ideal).norm(dim=-1)


def unit_similarity(features: Tensor, z: Tensor) -> Tensor:
    """A-IPO's sim = (1 + cos(h, z)) / 2, in [0, 1]: (..., D), (..., D) -> (...)."""
    return (1 + cosine_similarity(features, z, dim=-1)) / 2


class UserReward(nn.Module):
    """s(h, u). `users` (U, P) holds what is each user's own; everything else is shared.

    `reward(features, own)` takes the user's numbers themselves, so that people who were not trained on have a reward
    too: those of `typical()`, or those fitted by `users_fit.adapt`.
    """

    def __init__(self, shape: Shape, users: int, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape.check()
        if users < 1:
            raise SettingsError("a user-level head needs at least one user.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.base = self._base()
            self.users = nn.Parameter(self._start(users))
            if shape.kind == "pal":
                self.prototypes = nn.Parameter(torch.randn(shape.prototypes, shape.width) / shape.width**0.5)
                self.log_scale = nn.Parameter(torch.tensor(START))

    def _base(self) -> nn.Module:
        """The MLP on h, or on [h, e_u]; PAL has none."""
        width = self.shape.width + (self.shape.user_width if self.shape.kind == "p_rlhf" else 0)
        if self.shape.kind == "pal":
            return nn.Identity()
        if not self.shape.hidden:
            return nn.Linear(width, 1, bias=False)  # a bias cancels in every pair
        return nn.Sequential(
            nn.Linear(width, self.shape.hidden), nn.GELU(), nn.Linear(self.shape.hidden, 1, bias=False)
        )

    def _start(self, users: int) -> Tensor:
        """(U, P) normal; small for p_rlhf, whose users begin as nearly the same."""
        size = {"p_rlhf": 0.1, "a_ipo": 1 / self.shape.width**0.5}.get(self.shape.kind, 1.0)
        return size * torch.randn(users, self.shape.own)

    def reward(self, features: Tensor, own: Tensor) -> Tensor:
        """features (..., D), own (..., P) (or anything that broadcasts over `...`) -> (...)."""
        kind = self.shape.kind
        if kind == "pal":
            scale = self.log_scale.exp().clamp(max=LARGEST)
            return similarity(features, ideal_point(self.prototypes, own), self.shape.similarity, scale)
        if kind == "p_rlhf":
            both = torch.cat([features, own.expand(*features.shape[:-1], own.shape[-1])], dim=-1)
            return self.base(both).squeeze(-1)
        found: Tensor = self.base(features).squeeze(-1)
        if kind == "a_ipo" and self.shape.lam:
            found = found + self.shape.lam * unit_similarity(features, own)
        return found

    def forward(self, features: Tensor, who: Tensor) -> Tensor:
        """features (..., D), who (...) numbers of users -> (...)."""
        return self.reward(features, self.users[who])

    @torch.no_grad()
    def typical(self) -> Tensor:
        """(P,) the population's prior, for somebody of whom nothing is known (k = 0).

        p_rlhf: the mean embedding. pal: the log of the mean weights, so that the ideal point is the mean of the users'.
        a_ipo: the mean of the unit embeddings, whose direction is the one most similar to users on average.
        """
        if self.shape.kind == "pal":
            return self.users.softmax(-1).mean(0).clamp_min(1e-6).log()
        if self.shape.kind == "a_ipo":
            return nn.functional.normalize(self.users, dim=-1).mean(0)
        return self.users.mean(0)

    def shared_parameters(self) -> list[nn.Parameter]:
        """Those of the head itself."""
        return list(self.base.parameters())

    def placed_parameters(self) -> list[nn.Parameter]:
        """Those that have a larger learning rate, as in PAL: users, prototypes, scale."""
        return [self.users, *([self.prototypes, self.log_scale] if self.shape.kind == "pal" else [])]


# Files


def save_users(model: UserReward, folder: str | Path, names: Sequence[str] = ()) -> Path:
    """Weights and shape in a folder; `names` are the users' ids, in the order of their rows."""
    from safetensors.torch import save_file

    if names and len(names) != len(model.users):
        raise SettingsError(f"{len(names)} names for {len(model.users)} users.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.detach().float().cpu().contiguous() for n, v in model.state_dict().items()}, folder / WEIGHTS)
    kept = {"shape": asdict(model.shape), "users": len(model.users), "names": list(names)}
    (folder / SHAPE).write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    return folder


def load_users(folder: str | Path) -> tuple[UserReward, tuple[str, ...]]:
    """(head, names of its users). Raises SettingsError where the folder holds none, or one that does not fit."""
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / SHAPE).is_file() or not (folder / WEIGHTS).is_file():
        raise SettingsError(f"{folder} holds no user-level head: {SHAPE} and {WEIGHTS} are not both there.")
    kept = json.loads((folder / SHAPE).read_text("utf-8"))
    model = UserReward(Shape(**kept["shape"]), int(kept["users"]))
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise SettingsError(f"{folder / WEIGHTS} does not fit: {str(error).splitlines()[-1].strip()}") from None
    return model.eval(), tuple(kept["names"])
