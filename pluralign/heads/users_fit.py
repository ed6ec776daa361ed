"""Training of user-level reward heads (`users`): on the pairs of known users, and for people seen for the first time.

A-IPO, H.5.1: Bradley-Terry, up to 10 epochs, early stopping on a validation split, accuracy from the best validation
checkpoint. H.5.2: for an unseen user the shared parts are frozen, and only the user's own numbers are fitted, on k
pairs, under the same loss and protocol; k = 0 is the population's prior. Learning rates, batches and the validation
fifth of the k pairs are ours, since H.5 names none.

Shapes: S rows of the feature table, D features, N pairs, U users, k pairs of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..errors import PluralignError, SettingsError
from .users import Shape, UserReward

__all__ = ["Options", "Pairs", "adapt", "fit_users", "gaps", "right"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """`users`, `chosen`, `rejected` (N,): who preferred which row of the feature table to which."""

    users: Tensor
    chosen: Tensor
    rejected: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, at: Tensor) -> Pairs:
        return Pairs(self.users[at], self.chosen[at], self.rejected[at])

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int]]) -> Pairs:
        """From (user, chosen, rejected) triples."""
        table = torch.tensor(rows, dtype=torch.long).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a head is fitted. `patience`: epochs without a better validation after which it stops."""

    epochs: int = 10
    patience: int = 2
    batch_size: int = 256
    learning_rate: float = 1e-3
    user_rate: float = 2e-2
    weight_decay: float = 0.01
    adapt_batch: int = 32
    adapt_rate: float = 2e-2
    seed: int = 0

    def check(self) -> Options:
        """Itself. Raises SettingsError for a value that cannot be."""
        for name in ("learning_rate", "user_rate", "adapt_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be above 0 and finite, not {getattr(self, name)}.")
        for name in ("epochs", "patience", "batch_size", "adapt_batch"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, not {getattr(self, name)}.")
        return self


def gaps(model: UserReward, table: Tensor, pairs: Pairs, own: Tensor | None = None) -> Tensor:
    """(N,) s(y_w, u) - s(y_l, u); `own` (U, P) replaces the users that the head was trained with."""
    who = (model.users if own is None else own)[pairs.users]
    return model.reward(table[pairs.chosen], who) - model.reward(table[pairs.rejected], who)


@torch.no_grad()
def right(model: UserReward, table: Tensor, pairs: Pairs, own: Tensor | None = None) -> Tensor:
    """(N,) 1.0 where the chosen row has strictly the higher reward; a tie is no win."""
    return (gaps(model, table, pairs, own) > 0).float()


def fit_users(
    shape: Shape, users: int, table: Tensor, train: Pairs, validation: Pairs, options: Options | None = None,
    *, progress: Callable[[int, float], None] | None = None,
) -> tuple[UserReward, list[dict[str, float]]]:  # fmt: skip
    """(head, history by epoch): the head of the epoch with the highest validation accuracy (then the lowest loss).

    `table` (S, D) holds the frozen features. The same rows and seed give the same head. `progress(epoch, accuracy)`.
    Raises SettingsError for options that cannot be or empty pairs, PluralignError for a loss that is not finite.
    """
    options = (options or Options()).check()
    if not len(train) or not len(validation):
        raise SettingsError("user-level heads need pairs to train and pairs to validate on.")
    model = UserReward(shape, users, seed=options.seed).to(table.device)
    groups = [{"params": model.placed_parameters(), "lr": options.user_rate, "weight_decay": 0.0}]
    if shared := model.shared_parameters():
        groups.append({"params": shared, "lr": options.learning_rate, "weight_decay": options.weight_decay})
    optimiser = torch.optim.AdamW(groups)
    shuffle = torch.Generator().manual_seed(options.seed)
    history: list[dict[str, float]] = []
    best, kept, since = (-1.0, 0.0), _copy(model), 0
    for epoch in range(1, options.epochs + 1):
        total = 0.0
        for at in torch.randperm(len(train), generator=shuffle).split(options.batch_size):
            loss = softplus(-gaps(model, table, train[at])).mean()
            if not loss.isfinite():
                raise PluralignError("the loss of a user-level head is not finite.", remedy="Lower the learning rate.")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(at)
        with torch.no_grad():
            found = gaps(model, table, validation)
        share, height = float((found > 0).float().mean()), float(softplus(-found).mean())
        history.append({"epoch": epoch, "train": total / len(train), "loss": height, "accuracy": share})
        if progress:
            progress(epoch, share)
        if (share, -height) > best:
            best, kept, since = (share, -height), _copy(model), 0
        elif (since := since + 1) >= options.patience:
            break
    model.load_state_dict(kept)
    return model.eval(), history


def adapt(model: UserReward, table: Tensor, chosen: Tensor, rejected: Tensor, options: Options | None = None) -> Tensor:
    """(U, P) numbers of new users, each fitted on k pairs of their own, `chosen` and `rejected` (U, k) rows of `table`.

    The shared parts stay as they are. Every user begins at `typical()`; every fifth pair validates, and of the states
    after each epoch (the start among them) the one with the lowest validation loss is kept. With k = 0, or fewer than
    five pairs (nothing to validate with), the start or the last epoch. Users are fitted side by side and do not touch
    each other. Raises SettingsError for shapes that differ.
    """
    options = (options or Options()).check()
    if chosen.shape != rejected.shape or chosen.ndim != 2:
        raise SettingsError(f"chosen and rejected are (users, pairs), not {chosen.shape} and {rejected.shape}.")
    users, k = chosen.shape
    own = model.typical().repeat(users, 1)
    if not k or not model.shape.own:
        return own
    held = torch.arange(k) % 5 == 4
    own = own.requires_grad_(True)
    optimiser = torch.optim.Adam([own], lr=options.adapt_rate)
    shuffle = torch.Generator().manual_seed(options.seed)
    train = (~held).nonzero()[:, 0]
    kept, best = own.detach().clone(), _loss(model, table, chosen, rejected, own, held)
    for _ in range(options.epochs):
        for at in train[torch.randperm(len(train), generator=shuffle)].split(options.adapt_batch):
            found = _gap(model, table, chosen[:, at], rejected[:, at], own)
            (gradient,) = torch.autograd.grad(softplus(-found).mean(1).sum(), own)  # the head itself gets none
            own.grad = gradient
            optimiser.step()
        now = _loss(model, table, chosen, rejected, own, held)
        better = now < best if bool(held.any()) else torch.ones(users, dtype=torch.bool)
        kept = torch.where(better[:, None], own.detach(), kept)
        best = torch.where(better, now, best)
    return kept


def _gap(model: UserReward, table: Tensor, chosen: Tensor, rejected: Tensor, own: Tensor) -> Tensor:
    """(U, k) of users (U, P), pairs (U, k)."""
    return model.reward(table[chosen], own[:, None]) - model.reward(table[rejected], own[:, None])


@torch.no_grad()
def _loss(model: UserReward, table: Tensor, chosen: Tensor, rejected: Tensor, own: Tensor, held: Tensor) -> Tensor:
    """(U,) validation loss of each user."""
    if not bool(held.any()):
        return own.new_zeros(len(own))
    return softplus(-_gap(model, table, chosen[:, held], rejected[:, held], own)).mean(1)


def _copy(model: UserReward) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
