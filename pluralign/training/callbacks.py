"""What a run writes and says while it trains: run.json, metrics.jsonl, a progress bar, warnings, a clean stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from .settings import Settings

__all__ = ["Recorder", "Say"]

SKIPPED = ("total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")


class Say:
    """How a run speaks to a person. The base class is silent but for warnings; the command line brings its own."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something worth acting on."""
        print(f"warning: {text}", file=sys.stderr)

    def data(self, about: dict[str, Any], train: int, validation: int) -> None:
        """What the run trains on."""

    @contextlib.contextmanager
    def working(self, name: str) -> Iterator[Callable[[int], None]]:
        """A stage whose length is not known; call the yielded function with how much was done."""
        yield lambda n: None

    def step(self, name: str, step: int, total: int, logs: dict[str, float]) -> None:
        """Training or reference progress."""

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """A validation's figures."""

    def done(self) -> None:
        """The stage is over."""


class Recorder(TrainerCallback):
    """Writes the run folder as it goes and watches over the run."""

    def __init__(
        self, output: Path, about: dict[str, Any], say: Say, trainer: Any, settings: Settings, started: float
    ) -> None:
        self.output, self.about, self.say, self.trainer = output, about, say, trainer
        self.settings, self.started = settings, started
        self.interrupted = self.warned = False
        self.main = trainer.accelerator.is_main_process
        self.window = time.time(), 0
        self.handlers: dict[int, Any] = {}
        if settings.training.patience and trainer.args.load_best_model_at_end:
            trainer.add_callback(EarlyStoppingCallback(settings.training.patience))
        trainer.on_reference = lambda split, done, total: say.step("reference", done, total, {})

    # Life of a run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._listen()
        self._write_run("running")
        self._drop_later_entries(state.global_step)
        self.trainer.prepare_reference()
        self.window = time.time(), 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        logs: dict[str, float] = known["logs"]
        if not self.main:
            return
        validation = any(k.startswith("eval_") for k in logs)
        entry: dict[str, Any] = {k.removeprefix("eval_"): v for k, v in logs.items() if k not in SKIPPED and _number(v)}
        if not entry or ("train_runtime" in logs and not validation):
            return
        phase = "validation" if validation else "train"
        entry = {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4), "phase": phase, **entry}
        if phase == "train":
            entry["pairs_per_second"] = self._rate(state.global_step)
        with (self.output / "metrics.jsonl").open("a") as f:
            f.write(json.dumps(entry) + "\n")
        if validation:
            self.say.validated(state.global_step, entry)
            self._watch_collapse(entry)
        else:
            self.say.step(self.settings.recipe, state.global_step, state.max_steps, entry)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write_run("running")

    def close(self, status: str) -> None:
        """The end, whatever it was."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.say.done()
        self._write_run(status)

    # Parts

    def _rate(self, step: int) -> float:
        then, last = self.window
        self.window = time.time(), step
        seconds = max(1e-9, self.window[0] - then)
        return round((step - last) * self.settings.training.batch_size / seconds, 3)

    def _watch_collapse(self, entry: dict[str, float]) -> None:
        drift = entry.get("chosen_drift")
        if drift is not None and drift < -self.settings.training.collapse_nats and not self.warned:
            self.warned = True
            self.say.warn(
                f"chosen responses lost {-drift:.1f} nats against the reference by step {entry['step']}: the policy "
                "leaves both responses. Lower training.learning_rate, raise objective.beta, or add an SFT term."
            )

    def _listen(self) -> None:
        """The first Ctrl-C (or SIGTERM) ends the step and saves; the second one ends at once."""

        def stop(number: int, _: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            if self.main:
                self.say.warn("stopping after this step (again to stop at once, without a checkpoint)")

        with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, stop)

    def _write_run(self, status: str) -> None:
        if not self.main:
            return
        state = {
            "status": status,
            "seconds": round(time.time() - self.started, 2),
            "tokens": self.trainer.scored_tokens,
        }
        text = json.dumps({**self.about, **state, "step": self.trainer.state.global_step}, indent=1, default=str)
        part = self.output / "run.json.part"
        part.write_text(text)
        os.replace(part, self.output / "run.json")

    def _drop_later_entries(self, step: int) -> None:
        """A resumed run goes on where its checkpoint was, and so does its record."""
        path = self.output / "metrics.jsonl"
        if self.main and path.is_file():
            kept = [line for line in path.read_text().splitlines() if line and json.loads(line)["step"] <= step]
            path.write_text("".join(f"{line}\n" for line in kept))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
