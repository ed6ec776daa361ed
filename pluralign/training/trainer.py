"""The one loop: transformers.Trainer with our scoring under it. It knows no objective by name.

Everything distributed, saved or resumed is transformers' and accelerate's. Ours are: micro-batches under a token
budget, losses divided by global counts (the same gradients at any split into processes and micro-batches), reference
readings from the cache, and validation over whole rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conditioning import slot_of
from ..errors import TrainingError
from ..heads.intent import intention_of
from ..objectives import Outcome
from ..scoring.forward import autocast, forward, text_config, unwrap
from ..scoring.layout import split_by_tokens
from ..scoring.logprobs import token_kl
from ..scoring.reference import ReadingStore
from ..scoring.support import lay_out
from .batch import Batch, Collator, Micro
from .checkpoints import Checkpoints, keep_readings_whole
from .examples import Example, Examples
from .goal import Goal, mismatched, observe, refuse
from .meters import KLProbe, Tally
from .optimizers import Joint

__all__ = ["AlignTrainer"]


class AlignTrainer(Checkpoints):
    """Trains `model` on `train` towards `goal`; reference readings are filled in by `prepare_reference`.

    `reference_model` is a context in which the reference can be run; `live_reference` the same, cheap enough for every
    step.
    """

    loss_is_scaled_for_ga = True  # we divide by global counts ourselves
    on_reference: Callable[[str, int, int], None] | None = None  # progress: split, blocks done, blocks

    def __init__(
        self,
        *,
        goal: Goal,
        train: Examples,
        validation: Examples | None,
        layout: str,
        token_budget: int,
        stores: Mapping[str, ReadingStore],
        reference_model: Callable[[], contextlib.AbstractContextManager[Any]],
        live_reference: Callable[[], contextlib.AbstractContextManager[Any]],
        max_length: int = 0,
        kl_rows: int = 0,
        intention_rate: float = 2e-5,
        **kwargs: Any,
    ) -> None:
        self.intention_rate = intention_rate
        self.goal, self.live_reference, self.max_length = goal, live_reference, max_length
        self.examples, self.validation = train, validation
        self.layout, self.token_budget = layout, token_budget
        self.stores, self.reference_model, self.kl_rows = stores, reference_model, kl_rows
        self.given: dict[str, dict[str, np.ndarray]] = {"train": {}, "validation": {}}
        self.probe: KLProbe | None = None
        self.tally = Tally()
        self.scored_tokens = 0
        self.per_token = goal.objective.per_token
        how = goal.conditioning
        collator: Any = self._collator(
            "train", dropout=how.dropout, seed=kwargs["args"].seed, context_gradient=how.context_gradient,
            noise="noise" in goal.objective.optional,
        )  # fmt: skip
        super().__init__(train_dataset=train, eval_dataset=validation, data_collator=collator, **kwargs)
        keep_readings_whole(self.accelerator)
        refuse(goal, sharded=self.sharded, layout=layout)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The run's optimiser; an intention module that learns has an AdamW of its own (A-IPO, G.1.4)."""
        module = intention_of(self.model)
        own = [p for p in module.parameters() if p.requires_grad] if module is not None and self.goal.intents else []
        for p in own:
            p.requires_grad_(False)
        optimizer = super().create_optimizer(*args, **kwargs)
        for p in own:
            p.requires_grad_(True)
        if own:
            self.optimizer = Joint([optimizer, torch.optim.AdamW(own, lr=self.intention_rate, weight_decay=0.0)])
        return self.optimizer

    def compute_loss_context_manager(self) -> Any:
        """The run's arithmetic around every pass, also of models that were not prepared by accelerate (references)."""
        if self.is_deepspeed_enabled:
            return contextlib.nullcontext()
        return autocast("bf16" if self.args.bf16 else "fp32", self.accelerator.device)

    def _collator(self, split: str, **options: Any) -> Collator:
        examples = self.examples if split == "train" else self.validation
        assert examples is not None
        live = examples.named("reference") if self.goal.token_level else ()
        draw = split == "train" and self.goal.intents is not None and self.goal.intents.drawn
        return Collator(
            self.goal.names(examples.named("policy"), watched=split == "validation"),
            self.layout,
            self.token_budget,
            self.given[split],
            live=tuple(n for n in live if not (draw and slot_of(n))),
            mismatched=self.goal.mismatched,
            max_length=self.max_length,
            intents=bool({"intent", "sim"} & set(self.goal.reads)),
            draw=draw,
            **options,
        )

    # One optimiser step

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:  # type: ignore[override]
        """All micro-batches of this process; gradients are synchronised with the last one."""
        model.train()
        batch = inputs.to(self.accelerator.device)
        here = batch.tokens if self.per_token else batch.examples
        everywhere, most = self._over_processes(here, len(batch.micro))
        world = self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        views = self.goal.views()
        micros, batches = self._statistics(batch.micro, views)
        if self.goal.objective.update is not None:
            self.goal.remember(batches, views)
        for i in range(most):
            last = i == most - 1
            # a process with fewer micro-batches repeats its last one at weight 0: collectives must match
            micro, live = micros[min(i, len(micros) - 1)], float(i < len(micros))
            with self._synchronise(model, last):
                with self.compute_loss_context_manager():
                    outcome = self._outcome(model, micro, views, batches)
                    loss = live * (outcome.loss * micro.weight).sum() / everywhere * world
                self._check_finite(outcome.loss, micro)
                self.accelerator.backward(loss)
            if live:
                total += loss.detach()
                self._record(outcome, micro)
        self.scored_tokens += batch.tokens
        return total

    def _outcome(self, model: Any, micro: Micro, views: Any, batches: Any) -> Outcome:
        return self.goal.outcome(observe(model, micro, self.goal, self.live_reference), views, batches)

    @torch.no_grad()
    def _statistics(self, micros: Sequence[Micro], views: Any) -> tuple[list[Micro], list[Any]]:
        """What the objective has to know of the whole step before any loss: over micro-batches and processes.

        It costs a pass without gradients wherever the statistics need the policy's readings of the responses.
        """
        if self.goal.objective.statistics is None:
            return list(micros), []
        out, parts = [], []
        for micro in micros:
            with self.compute_loss_context_manager():
                if micro.mismatched is not None:
                    given = mismatched(self.whole_model, micro, self.live_reference)
                    micro = replace(micro, given={**micro.given, **given})
                parts.append(self._statistics_of(micro, views))
            out.append(micro)
        gathered = self._gather([parts])
        found = []
        for v in range(len(views)):
            each = [part[v] for mine in gathered for part in mine]
            device = self.accelerator.device
            found.append({name: torch.cat([e[name] for e in each]).to(device) for name in each[0]})
        return out, found

    def _statistics_of(self, micro: Micro, views: Any) -> list[dict[str, Tensor]]:
        try:
            return [self.goal.statistics_of(micro.given, v) for v in views]
        except KeyError:  # it wants the policy's own readings
            named = observe(self.whole_model, micro, self.goal, self.live_reference)
            return [self.goal.statistics_of(named, v) for v in views]

    def _over_processes(self, count: int, micro: int) -> tuple[float, int]:
        """(global number of examples or tokens, largest number of micro-batches of any process)."""
        if self.accelerator.num_processes == 1:
            return float(count), micro
        mine = torch.tensor([[float(count), float(micro)]], device=self.accelerator.device)
        both = self.accelerator.gather(mine)
        return float(both[:, 0].sum()), int(both[:, 1].max())

    @contextlib.contextmanager
    def _synchronise(self, model: Any, now: bool) -> Any:
        state = self.accelerator.gradient_state
        before = state.sync_gradients
        state._set_sync_gradients(now)  # what DeepSpeed's backward reads
        with contextlib.nullcontext() if now else self.accelerator.no_sync(model):
            yield
        state._set_sync_gradients(before)

    def _check_finite(self, loss: Tensor, micro: Micro) -> None:
        bad = (~torch.isfinite(loss)).nonzero()[:, 0].tolist()
        if bad:
            where = ", ".join(micro.wheres[i] for i in bad[:3])
            raise TrainingError(
                f"the loss is {loss[bad[0]].item()} at step {self.state.global_step + 1} ({where}).",
                remedy="Lower training.learning_rate, or try training.precision=fp32; "
                "the last checkpoint is kept and --resume goes on from it.",
            )

    def _record(self, outcome: Outcome, micro: Micro) -> None:
        count = float(micro.length.sum()) if self.per_token else None
        self.tally.add("loss", outcome.loss * micro.weight, count)
        for name, values in outcome.metrics.items():
            self.tally.add(name, values)

    # Reference

    @property
    def sharded(self) -> bool:
        """FSDP or DeepSpeed: every process must run every forward pass."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def whole_model(self) -> Any:
        """What to run outside of a training step: not DDP, whose forward is a collective that others may not join."""
        return self.model_wrapped if self.sharded else self.model

    @torch.no_grad()
    def prepare_reference(self) -> None:
        """Load the reference readings, computing the blocks that are missing (each process its share)."""
        for split, examples in (("train", self.examples), ("validation", self.validation)):
            if examples is None or not examples.named("reference") or split not in self.stores:
                continue
            store = self.stores[split]
            missing = self._agreed(store.missing())  # a block written meanwhile must not shift anybody's share
            if missing:
                with self.reference_model() as model:
                    self._fill(store, examples, missing, model, split)
            self.accelerator.wait_for_everyone()
            self.given[split].update(store.load())
        self._probe_kl()

    def _agreed(self, value: Any) -> Any:
        """The main process's value, everywhere."""
        if self.accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def _fill(self, store: ReadingStore, examples: Examples, missing: list[Any], model: Any, split: str) -> None:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        names = examples.named("reference")
        for i, (start, stop) in enumerate(missing):
            if not self.sharded and i % world != rank:
                continue
            rows = [examples[row] for row in range(start, stop)]
            sums = self._sums(model, rows, names)
            if not self.sharded or rank == 0:
                store.write((start, stop), {n: sums[:, j] for j, n in enumerate(names)})
            if self.on_reference:
                self.on_reference(split, i + 1, len(missing))

    def _sums(self, model: Any, rows: Sequence[Example], names: Sequence[str]) -> np.ndarray:
        """(rows, names) summed log-probs, in the layout and precision of training; 0 where a row lacks the term."""
        collator = Collator(tuple(names), self.layout, self.token_budget, {})
        out = np.zeros((len(rows), len(names)), dtype=np.float32)
        groups = split_by_tokens([collator.cost(ex) for ex in rows], self.token_budget)
        for group in groups:
            at = [(i, j) for i in group for j, name in enumerate(names) if name in rows[i].sequences]
            laid = lay_out(self.layout, [rows[i].sequences[names[j]] for i, j in at]).to(self.accelerator.device)
            with self.compute_loss_context_manager():
                sums = forward(model, laid).sum.float().cpu().numpy()
            for (i, j), value in zip(at, sums, strict=True):
                out[i, j] = value
        return out

    def _probe_kl(self) -> None:
        if not self.kl_rows or self.validation is None or self.sharded:
            return
        rows = tuple(range(min(self.kl_rows, len(self.validation))))
        with self.reference_model() as model:
            weight = unwrap(model).get_output_embeddings().weight.detach().clone()
            self.probe = KLProbe(rows, self._states(model, rows), weight)

    def _states(self, model: Any, rows: Sequence[int]) -> list[Tensor]:
        """(tokens, D) states that predict the first policy term's target, one tensor a row."""
        assert self.validation is not None
        name = self.validation.named("policy")[0]
        sequences = [self.validation[row].sequences[name] for row in rows]
        out: list[Tensor] = [torch.empty(0)] * len(rows)
        costs = [len(s.context) + len(s.target) for s in sequences]
        for group in split_by_tokens(costs, self.token_budget):
            laid = lay_out(self.layout, [sequences[i] for i in group]).to(self.accelerator.device)
            with self.compute_loss_context_manager():
                readings = forward(model, laid, ("kl",))
            assert readings.predict_hidden is not None
            for i, states in zip(group, readings.predict_hidden.split(readings.length.tolist()), strict=True):
                out[i] = states
        return out

    # Validation

    @torch.no_grad()
    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", record: bool = True, **__: Any) -> dict[str, float]:
        """Loss and metrics over the validation rows, with 95 % intervals; KL to the reference on a part of them."""
        if self.validation is None or not len(self.validation):
            raise TrainingError("there are no validation rows.", remedy="Set data.validation_fraction above 0.")
        model = self.whole_model
        model.eval()
        columns = self._validate(model)
        count = columns.pop("_count")
        metrics = {f"{metric_key_prefix}_loss": float(columns["loss"].sum() / count.sum())}
        for name, values in columns.items():
            if name != "loss" and len(values):  # a group that no row belongs to has no mean
                metrics[f"{metric_key_prefix}_{name}"] = float(values.mean())
                half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
                metrics[f"{metric_key_prefix}_{name}_low"] = float(values.mean()) - half
                metrics[f"{metric_key_prefix}_{name}_high"] = float(values.mean()) + half
        metrics[f"{metric_key_prefix}_rows"] = float(len(count))
        if self.probe is not None:
            metrics[f"{metric_key_prefix}_kl"] = self._kl(model)
        if not record:
            return metrics
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validate(self, model: Any) -> dict[str, np.ndarray]:
        assert self.validation is not None
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        collator = self._collator("validation")
        batch = collator([self.validation[row] for row in range(rank, len(self.validation), world)])
        most = int(self._over_processes(0, len(batch.micro))[1])
        parts: list[dict[str, np.ndarray]] = []
        views = self.goal.views(watched=True)
        device = self.accelerator.device
        micros: list[Micro] = [m.to(device) for m in batch.micro]
        batches: list[Any] = []
        if self.goal.objective.update is None or self.goal.mismatched:  # else it carries what training left
            micros, batches = self._statistics(micros, views)
        for i in range(most):
            micro = micros[min(i, len(micros) - 1)]
            with self.compute_loss_context_manager():
                outcome = self._outcome(model, micro, views, batches)
            if i < len(batch.micro):
                parts.append(self._columns(outcome, micro))
        parts = self._gather(parts)
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _columns(self, outcome: Outcome, micro: Micro) -> dict[str, np.ndarray]:
        count = micro.length if self.per_token else torch.ones_like(micro.weight)
        values = {"loss": outcome.loss, "_count": count, **outcome.metrics}
        return {name: v.detach().float().cpu().numpy() for name, v in values.items()}

    def _gather(self, items: list[Any]) -> list[Any]:
        if self.accelerator.num_processes == 1:
            return items
        from accelerate.utils import gather_object

        return list(gather_object(items))

    def _kl(self, model: Any) -> float:
        """Mean nats a token of KL(reference || policy) over the probe's rows."""
        assert self.probe is not None
        head = unwrap(model).get_output_embeddings().weight
        softcap = getattr(text_config(model), "final_logit_softcapping", None)
        states = self._states(model, self.probe.rows)
        each = [
            token_kl((a, self.probe.head), (b, head), softcap=softcap)
            for a, b in zip(self.probe.states, states, strict=True)
        ]
        return float(torch.cat(each).mean())

    # Logging

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Train logs take our exact means over every process instead of the rounded running loss."""
        if "loss" in logs:
            logs = {**logs, **self.tally.means(self._gather)}
        super().log(logs, *args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        """Counted in `training_step`, over the whole step."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated from padded shapes: there are none."""
        return 0
