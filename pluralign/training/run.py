"""`align`: one run from settings to a folder that holds the trained policy, its metrics and how it came about."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, set_seed

from ..conditioning import Conditioning, conditioned, scored
from ..data import fingerprint, load, prompt_hash
from ..errors import RecordError, SettingsError, TrainingError
from ..heads.soft import give_start
from ..objectives import Objective, Outcome, as_objective, find
from ..policy import EMBEDDED, LoRA, Policy
from ..records import Demonstration, Labelled, Preference, Ranked, Record
from ..scoring.reference import ReadingStore, cache_folder, digest, model_digest
from ..scoring.support import check_layouts, choose_layout
from ..terms import Plan, plan_for
from .arguments import training_arguments
from .callbacks import Recorder, Say
from .examples import Examples, render_examples
from .goal import Goal
from .intents import give_intents
from .references import load_reference, reference_context
from .scores import give_heads, score_form
from .settings import Settings
from .trainer import AlignTrainer

__all__ = ["KINDS", "Finished", "align", "load_data"]

KINDS: dict[str, type[Record]] = {
    "demonstrations": Demonstration, "pairs": Preference, "labels": Labelled, "lists": Ranked,
}  # fmt: skip


@dataclass
class Finished:
    """What a run leaves: its folder, the policy and the last validation."""

    output: Path
    policy: Policy
    metrics: dict[str, float] = field(default_factory=dict)
    status: str = "finished"

    def summary(self) -> str:
        """The validation figures with their intervals, one line each."""
        lines = []
        for name, value in self.metrics.items():
            if name.endswith(("_low", "_high")) or f"{name}_low" not in self.metrics:
                continue
            low, high = self.metrics[f"{name}_low"], self.metrics[f"{name}_high"]
            lines.append(f"{name}: {value:.4f} (95 % interval {low:.4f} to {high:.4f})")
        return "\n".join(lines)


@dataclass
class Data:
    """Records to train and validate on, with what is known of where they come from."""

    train: Iterable[Record]
    validation: Iterable[Record] | None
    about: dict[str, Any]


def load_data(settings: Settings, kind: type[Record], quarantine: Path | None = None) -> Data:
    """The training and validation records of the settings; no first prompt stands in both."""
    d = settings.data
    options: dict[str, Any] = {
        "format": d.format, "bad_rows": d.bad_rows, "quarantine": quarantine, "kind": kind,
        "columns": d.columns or None, "group": d.group, "by": d.by, "responses": d.responses,
    }  # fmt: skip
    source, validation = d.source, d.validation
    if source == "embedded":  # its held-out pairs are for the evaluation alone: nothing is chosen by them
        source = str(EMBEDDED.parent / "pairs" / "train.jsonl.gz")
    loaded = load(source, split=d.split, limit=d.limit, **options)
    about = {"source": d.source, "format": loaded.format}
    if validation is not None:
        on_hub = not Path(validation).exists() and not Path(source).exists()
        held = load(source if on_hub else validation, split=validation if on_hub else None, **options)
        return Data(loaded, held, {**about, "validation_source": validation, "loaded": loaded})
    f = d.validation_fraction
    if not f or not d.validation_rows:
        return Data(loaded, None, {**about, "loaded": loaded})
    return Data(
        _Part(loaded, lambda r: prompt_hash(r, settings.seed) >= f),
        _Part(loaded, lambda r: prompt_hash(r, settings.seed) < f),
        {**about, "loaded": loaded},
    )


@dataclass
class _Part:
    """The records of a source that fall on one side of a split; read again at every pass."""

    records: Iterable[Record]
    keep: Callable[[Record], bool]

    def __iter__(self) -> Iterator[Record]:
        return (record for record in self.records if self.keep(record))


def align(
    settings: Settings,
    *,
    data: Data | Iterable[Record] | None = None,
    policy: Policy | None = None,
    plan: Plan | None = None,
    objective: Callable[..., Outcome] | None = None,
    resume: bool = False,
    say: Say | None = None,
    command: str = "",
) -> Finished:
    """Train a policy as the settings say; everything ends up in the run folder.

    `plan` and `objective` may be functions of your own. `resume` goes on from the folder's last checkpoint.
    Raises PluralignError for anything a person can mend.
    """
    say = say or Say()
    started = time.time()
    goal = _goal(settings, objective)
    output = _output(settings, resume)
    if data is not None and not isinstance(data, Data):
        data = Data(list(data), None, {"source": "python"})
    kind = KINDS[goal.objective.data]
    data = data or load_data(settings, kind, output / "quarantine.jsonl")  # before the model: a wrong source is found
    set_seed(settings.seed)  # what a fresh LoRA starts from
    policy = policy or _policy(settings)
    form = score_form(settings.scores, goal, data, policy.scores)
    plan = plan or _plan(goal.objective)
    plan = plan if form is None else scored(plan, form, settings.scores.show)
    if settings.scores.show != "none" or {"sensed", "rated"} & set(goal.reads):
        policy.scores = form  # else they are columns alone, and the policy is not shown any
    plan = give_intents(settings, goal, policy, data, plan, say)
    plan = conditioned(plan, goal.conditioning)
    say.note(f"{policy.name}: {sum(p.numel() for p in policy.model.parameters()) / 1e6:.1f} M parameters, "
             f"{policy.precision}, {policy.device}")  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    train, validation = _render(settings, data, plan, policy, output, say)
    give_heads(settings, goal, policy, form, train, say)
    layout = _layout(settings, policy, say)
    _check_first(policy, train, layout)
    trainer = _trainer(settings, goal, policy, train, validation, layout, output)
    about = _about(settings, policy, data, train, validation, layout, command)
    recorder = Recorder(output, about, say, trainer, settings, started)
    trainer.add_callback(recorder)
    trainer.remove_callback(PrinterCallback)
    status = "failed"
    try:
        checkpoint = _last_checkpoint(output) if resume else None
        with _repeatable(settings.training.deterministic):
            trainer.train(resume_from_checkpoint=checkpoint)
        metrics = {} if recorder.interrupted else _finish(trainer, policy, output, recorder)
        status = "stopped" if recorder.interrupted else "finished"
    finally:
        recorder.close(status)
        train.path.unlink(missing_ok=True)
        if validation is not None:
            validation.path.unlink(missing_ok=True)
    return Finished(output, policy, metrics, status)


@contextlib.contextmanager
def _repeatable(wanted: bool) -> Iterator[None]:
    """GPU kernels whose sums do not depend on the order of threads, where there are such; the CPU's are so already."""
    if not (wanted and torch.cuda.is_available()):
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _goal(settings: Settings, objective: Any) -> Goal:
    """What the settings ask for; a bare function has no hyper-parameters in them."""
    own = as_objective(objective or find(settings.objective.name))
    hyper = settings.objective.hyper if objective is None or isinstance(objective, Objective) else {}
    return Goal(own, hyper, Conditioning(**settings.conditioning.model_dump()), settings.scores.sense)


def _plan(objective: Objective) -> Plan:
    return plan_for(objective.data, objective.needs, objective.optional)


def _output(settings: Settings, resume: bool) -> Path:
    output = Path(settings.output or f"runs/{settings.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    settings.output = str(output)
    if not resume and (output / "run.json").is_file() and os.environ.get("RANK", "0") == "0":
        raise SettingsError(
            f"{output} holds a run already.",
            remedy=f"Choose another --output, or go on with it: pluralign align --resume {output}",
        )
    return output


def _policy(settings: Settings) -> Policy:
    lo, steered = settings.lora, settings.objective.name == "parm"  # its low-rank layers are its own
    lora = LoRA(lo.rank, lo.alpha, lo.dropout, lo.targets, lo.quantize) if lo.rank and not steered else None
    device = None
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return Policy.load(
        settings.model,
        lora=lora,
        precision=settings.training.precision,
        device=device,
        trust_remote_code=settings.trust_remote_code,
        rendering=settings.rendering.model_dump(),
    )


def _render(
    settings: Settings, data: Data, plan: Plan, policy: Policy, output: Path, say: Say
) -> tuple[Examples, Examples | None]:
    folder = output / "work"
    set_aside: dict[str, int] = {}

    def aside(error: RecordError, record: Record) -> None:
        set_aside[error.reason] = set_aside.get(error.reason, 0) + 1

    on_bad = aside if settings.data.bad_rows == "quarantine" else None
    with say.working("render") as progress:
        train = render_examples(data.train, plan, policy.renderer, folder=folder, on_bad=on_bad, progress=progress)
        held = None
        if data.validation is not None and next(iter(data.validation), None) is None:
            say.note("no row fell into the validation part; nothing is validated.")
        elif data.validation is not None:
            limit = settings.data.validation_rows
            held = render_examples(data.validation, plan, policy.renderer, folder=folder, limit=limit, on_bad=on_bad)
    loaded = data.about.pop("loaded", None)
    counts = getattr(loaded, "counts", None)
    bad = {**dict(counts.bad), **dict(counts.skipped)} if counts else {}
    data.about["set_aside"] = {**bad, **set_aside}
    data.about["truncated"] = {k: train.truncated[k] + (held.truncated[k] if held else 0) for k in train.truncated}
    say.data(data.about, len(train), len(held) if held else 0)
    return train, held


def _layout(settings: Settings, policy: Policy, say: Say) -> str:
    wanted = settings.training.layout
    best, reason = choose_layout(policy.model, max_length=settings.rendering.max_length)
    if wanted == "trie" and best == "rows":
        raise SettingsError(f"training.layout=trie cannot be exact here: {reason}.", remedy="Use layout=auto.")
    if wanted == "auto" and best == "rows":
        say.note(f"{reason}; shared prefixes are off for it (slower, results identical).")
    return best if wanted == "auto" else wanted


def _check_first(policy: Policy, train: Examples, layout: str) -> None:
    """The first records of a run in both layouts, before anything is spent on them."""
    if layout == "trie":
        sequences = [s for row in range(min(2, len(train))) for s in train[row].sequences.values()]
        check_layouts(policy.model, sequences, precision=policy.precision, device=policy.device)


def _trainer(
    settings: Settings, goal: Goal, policy: Policy, train: Examples, held: Examples | None, layout: str, output: Path
) -> AlignTrainer:
    stores: dict[str, ReadingStore] = {}
    names = train.named("reference")
    if names and not goal.token_level:
        reference = policy if settings.reference is None else load_reference(settings, policy)
        weights = model_digest(reference.model)
        for split, examples in (("train", train), ("validation", held)):
            if examples is not None:
                key = digest(weights, policy.renderer.key(), policy.precision, layout, names, examples.digest(names))
                stores[split] = ReadingStore(cache_folder() / "reference", key, len(examples))
    trainer = AlignTrainer(
        model=policy.model,
        # a last batch of one example would have no other response to pair its prompt with
        args=training_arguments(settings, output, policy, len(train), held is not None, whole_batches=goal.mismatched),
        processing_class=policy.tokenizer,
        goal=goal,
        train=train,
        validation=held,
        layout=layout,
        token_budget=settings.training.token_budget,
        stores=stores,
        reference_model=lambda: contextlib.nullcontext(policy.model),
        live_reference=lambda: contextlib.nullcontext(policy.model),
        max_length=settings.rendering.max_length,
        kl_rows=settings.training.kl_rows,
        intention_rate=settings.intents.module_rate,
    )
    trainer.reference_model = lambda: reference_context(settings, policy, trainer)
    trainer.live_reference = trainer.reference_model
    if goal.live and not hasattr(policy.model, "disable_adapter"):  # full fine-tuning: a second model stays in memory
        resident = copy.deepcopy(policy.model) if settings.reference is None else load_reference(settings, policy).model
        resident.eval().requires_grad_(False)
        give_start(resident, policy.model)
        trainer.live_reference = lambda: contextlib.nullcontext(resident)
    return trainer


def _about(
    settings: Settings, policy: Policy, data: Data, train: Examples, held: Examples | None, layout: str, command: str
) -> dict[str, Any]:
    import transformers

    from .. import __version__

    versions = {"pluralign": __version__, "torch": torch.__version__, "transformers": transformers.__version__,
                "python": platform.python_version()}  # fmt: skip
    return {
        "command": command or " ".join(sys.argv),
        "recipe": settings.recipe,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "versions": versions,
        "seed": settings.seed,
        "model": {
            "name": settings.model,
            "architecture": type(policy.model).__name__,
            "parameters": sum(p.numel() for p in policy.model.parameters()),
            "trained": sum(p.numel() for p in policy.model.parameters() if p.requires_grad),
            "precision": policy.precision,
            "layout": layout,
        },
        "data": {
            **data.about,
            "fingerprint": fingerprint(data.train),
            "train": len(train),
            "validation": len(held) if held else 0,
        },
        "settings": settings.model_dump(),
        "stage": "sft" if settings.objective.name == "sft" else "preference",
    }


def _last_checkpoint(output: Path) -> str | None:
    """The newest whole checkpoint; None for a run that was stopped before its first, which then starts anew."""
    found = sorted((output / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    whole = [p for p in found if (p / "trainer_state.json").is_file()]
    return str(whole[-1]) if whole else None


def _finish(trainer: AlignTrainer, policy: Policy, output: Path, recorder: Recorder) -> dict[str, float]:
    """Validate what is kept, save it where it can be loaded, and clear the working files."""
    metrics = trainer.evaluate(record=False) if trainer.validation is not None else {}
    metrics = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    recorder.about["final"] = metrics
    if trainer.sharded:
        trainer.save_model(str(output / "model"))
        if trainer.accelerator.is_main_process:
            policy.save_settings(output / "model")
    elif trainer.accelerator.is_main_process:
        policy.save(output / "model")
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        shutil.rmtree(output / "work", ignore_errors=True)
    return metrics


def read_settings(folder: Path) -> Mapping[str, Any]:
    """The settings of an earlier run. Raises SettingsError where the folder holds none."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise SettingsError(f"{folder} is no run folder: it has no run.json.")
    try:
        settings: dict[str, Any] = json.loads(path.read_text())["settings"]
    except (json.JSONDecodeError, KeyError) as error:
        raise TrainingError(f"{path} cannot be read: {error}.") from None
    return settings
