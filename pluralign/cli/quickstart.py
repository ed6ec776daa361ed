"""`pluralign quickstart`: the whole way once, on real data, in minutes on a laptop's processor.

Supervised fine-tuning, then DPO, of the embedded model on the shipped pairs; the judgement of all three on pairs that
nothing was trained or chosen on; samples side by side; one page. A stage that was stopped is gone on with.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .align import command_line, finish
from .console import Stopped, clock, print_json, quiet_libraries

if TYPE_CHECKING:
    from ..judging.preferences import PreferenceEvaluation
    from ..policy import Policy
    from .progress import Progress

__all__ = ["EPILOG", "quickstart"]

EPILOG = """\b
Examples:
  pluralign quickstart
  pluralign quickstart --model Qwen/Qwen3-0.6B --data my_pairs.jsonl --output runs/mine
  pluralign quickstart --steps-sft 2 --steps-dpo 2 --limit 40 --output runs/try --fresh       a look in seconds

\b
Stopped on the way? The same command goes on. Afterwards: pluralign chat runs/quickstart/dpo
"""

HELD_OUT_PART = 0.2  # of a data set that has no held-out part of its own
NEW_TOKENS = 96
PROMPTS = (
    "How can I keep bread fresh for longer?",
    "What should I pack for a weekend of hiking?",
    "Can you explain what a mortgage is?",
    "I want to learn to play the guitar. Where do I start?",
    "What are some good vegetarian dinners?",
    "How do I get a coffee stain out of a shirt?",
    "Can you suggest a book about the history of Rome?",
    "My houseplant has yellow leaves. What could be wrong?",
)
# Chosen on a part of the training pairs, for the embedded model; other models take the recipes' own rates.
EMBEDDED: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 3e-4, "batch_size": 32},
    "dpo": {"learning_rate": 5e-5, "batch_size": 16},
}
STAGES = ("sft", "dpo")


@dataclass(frozen=True)
class Plan:
    """What a quickstart is made of; a folder holds one."""

    model: str
    data: str
    steps_sft: int
    steps_dpo: int
    limit: int | None
    seed: int


def quickstart(
    output: Path = typer.Option(Path("runs/quickstart"), help="Run folder."),
    model: str = typer.Option("embedded", help="Hub model, folder, or `embedded`."),
    data: str = typer.Option(
        "embedded", help="Pairs: file, folder or hub data set; `embedded`: real pairs that ship with it."
    ),
    steps_sft: int = typer.Option(40, min=1, help="Steps of supervised fine-tuning."),
    steps_dpo: int = typer.Option(80, min=1, help="Steps of DPO."),
    limit: int | None = typer.Option(None, min=10, help="Use at most so many pairs, to train and to judge."),
    seed: int = typer.Option(0, min=0),
    fresh: bool = typer.Option(False, "--fresh", help="Remove what an earlier quickstart left in the folder."),
    as_json: bool = typer.Option(False, "--json", help="The result as JSON on stdout."),
) -> None:
    """SFT, DPO, judgement and report, in minutes."""
    plan = Plan(model, data, steps_sft, steps_dpo, limit, seed)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("quickstart runs in one process.", remedy="Use `pluralign align` under accelerate launch.")
    if _state(output, plan, fresh) == "finished":
        _already(output, as_json)
        return
    quiet_libraries()
    from .progress import Progress

    say = Progress(noun="pairs", err=as_json, brief=True)
    started = time.time()
    output.mkdir(parents=True, exist_ok=True)
    earlier = _read(output).get("seconds", 0.0)
    _write(output, plan, "running", earlier)
    try:
        sources = _sources(output, plan, say)
        for stage in STAGES:
            _stage(stage, output, plan, sources[0], say)
        found = _judge(output, plan, sources[1], say)
        _last_words(found, say)
    except BaseException:
        _write(output, plan, "stopped", earlier + time.time() - started)
        raise
    seconds = earlier + time.time() - started
    _write(output, plan, "finished", seconds)
    page = finish(output)
    say.line("report", f"{page}   ({clock(seconds)})")
    if as_json:
        print_json({"output": output, "report": page, "seconds": round(seconds, 1), "evaluation": found.evaluation})


# What is there already


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{path} cannot be read: {error}.", remedy="Remove the folder, or choose another --output."
        ) from None
    return found


def _state(output: Path, plan: Plan, fresh: bool) -> str:
    """ "new", "unfinished" or "finished". Raises SettingsError where the folder holds something else."""
    if not (output / "run.json").is_file():
        return "new"
    info = _read(output)
    if info.get("recipe") != "quickstart":
        raise SettingsError(f"{output} holds another run.", remedy="Choose another --output.")
    if fresh:
        _clear(output)
        return "new"
    was, now = info.get("settings", {}), asdict(plan)
    changed = [f"{k} {was.get(k)}, now {v}" for k, v in now.items() if was.get(k) != v]
    if changed:
        raise SettingsError(
            f"{output} was made with other options ({'; '.join(changed)}).",
            remedy="Choose another --output, or start anew with --fresh.",
        )
    return "finished" if info.get("status") == "finished" else "unfinished"


def _clear(output: Path) -> None:
    """Remove what a quickstart writes, and nothing else."""
    for stage in STAGES:
        shutil.rmtree(output / stage, ignore_errors=True)
    for name in ("run.json", "evaluation.json", "scores.jsonl", "samples.jsonl", "report.html", "quarantine.jsonl",
                 "train.jsonl", "heldout.jsonl"):  # fmt: skip
        (output / name).unlink(missing_ok=True)


def _already(output: Path, as_json: bool) -> None:
    page = output / "report.html"
    if as_json:
        print_json(
            {"output": output, "report": page, "evaluation": json.loads((output / "evaluation.json").read_text())}
        )
    else:
        print(f"{output} has finished: {page}\nTo start anew: pluralign quickstart --fresh")


def _write(output: Path, plan: Plan, status: str, seconds: float) -> None:
    """run.json of the whole; each stage has its own."""
    from .. import __version__

    last = _read(output / STAGES[-1])
    kept: dict[str, Any] = {key: last[key] for key in ("versions", "model") if key in last}
    tokens = sum(_read(output / stage).get("tokens", 0) for stage in STAGES)
    info: dict[str, Any] = {
        "command": command_line(),
        "recipe": "quickstart",
        "created": _read(output).get("created") or time.strftime("%Y-%m-%dT%H:%M:%S"),
        "versions": {"pluralign": __version__},
        "seed": plan.seed,
        **kept,
        "settings": asdict(plan),
        "stage": "preference",
        "status": status,
        "seconds": round(seconds, 1),
        "tokens": tokens,
    }
    part = output / "run.json.part"
    part.write_text(json.dumps(info, indent=1))
    os.replace(part, output / "run.json")


# The way


def _sources(output: Path, plan: Plan, say: Progress) -> tuple[str, str]:
    """(what to train on, what to judge on); no first prompt stands in both."""
    from ..api import HELD_OUT
    from ..assets import PAIRS_DIR
    from ..data import convert, load, split
    from ..records import Preference

    if plan.data == "embedded":
        train_pairs, held_pairs = (load(path).count().records for path in (PAIRS_DIR / "train.jsonl.gz", HELD_OUT))
        say.line("data", f"{train_pairs:,} pairs to train on · {held_pairs:,} held out (HH-RLHF helpful, MIT)")
        return "embedded", str(HELD_OUT)
    train, held = output / "train.jsonl", output / "heldout.jsonl"
    if not (train.is_file() and held.is_file()):
        loaded = load(plan.data, kind=Preference, bad_rows="quarantine", quarantine=output / "quarantine.jsonl")
        parts = split(loaded.records(), HELD_OUT_PART, seed=plan.seed)
        for path, records in zip((train, held), parts, strict=True):
            convert(records, path, overwrite=True)
        say.line("data", f"{len(parts[0]):,} pairs to train on · {len(parts[1]):,} held out · {loaded.describe()}")
    return str(train), str(held)


def _stage(stage: str, output: Path, plan: Plan, source: str, say: Progress) -> None:
    """Train one stage, or go on with it. Raises Stopped where it was interrupted."""
    from ..api import settings_for
    from ..training.run import align as train

    folder = output / stage
    status = _read(folder).get("status")
    if status == "finished":
        say.line(stage, "done before")
        return
    steps = plan.steps_sft if stage == "sft" else plan.steps_dpo
    every = max(2, -(-steps // 2))  # validated twice
    given = {
        "model": plan.model if stage == "sft" else str(output / "sft"),
        "output": str(folder),
        "seed": plan.seed,
        "data": {"source": source, "limit": plan.limit},
        "training": {
            **(EMBEDDED[stage] if plan.model == "embedded" else {}),
            "max_steps": steps,
            "eval_every": every,
            "save_every": every,
            "keep_checkpoints": 1,
        },
    }
    settings, own = settings_for(stage, given)
    done = train(settings, plan=own.plan if own else None, resume=status is not None, say=say, command=command_line())
    if done.status == "stopped":
        step = _read(folder).get("step", 0)
        raise Stopped(f"stopped in {stage} at step {step}. Go on with: {command_line()}")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _judge(output: Path, plan: Plan, source: str, say: Progress) -> PreferenceEvaluation:
    """All three on the held-out pairs, each trained one against what it was trained from; and their samples."""
    from ..api import held_out
    from ..judging.preferences import evaluate_preferences
    from ..policy import Policy

    names = {"base": plan.model, "sft": str(output / "sft"), "dpo": str(output / "dpo")}
    policies = {name: Policy.load(model) for name, model in names.items()}
    with say.working("judge") as count:
        pairs, _ = held_out(source)
        found = evaluate_preferences(
            policies,
            pairs,
            reference={"sft": policies["base"], "dpo": policies["sft"]},
            limit=plan.limit,
            on="held-out pairs",
            progress=lambda name, done, total: count(0),
        )
        found.write(output)
        _samples(output, policies, plan.seed)
    return found


def _samples(output: Path, policies: dict[str, Policy], seed: int) -> None:
    """The same prompts to every model, with the same draws."""
    texts = {name: p.generate(PROMPTS, max_new_tokens=NEW_TOKENS, seed=seed) for name, p in policies.items()}
    rows = [{"prompt": prompt, "responses": {n: t[i] for n, t in texts.items()}} for i, prompt in enumerate(PROMPTS)]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (output / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def _last_words(found: PreferenceEvaluation, say: Progress) -> None:
    each = {row["model"]: found.estimate(row["model"], "accuracy") for row in found.evaluation["rows"]}
    figures = " · ".join(f"{name} {e.short()}" for name, e in each.items())
    n = next(iter(each.values())).n
    say.line("judge", f"{figures}   (held-out preference accuracy per token, 95 % intervals, n = {n:,})")
    gain, margin, kl = (found.estimate("dpo", name).short() for name in ("implicit_accuracy", "margin", "kl"))
    say.line("", f"dpo against sft: implicit accuracy {gain} · margin {margin} nats · KL {kl} nats a token")
