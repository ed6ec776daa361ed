"""`pluralign intents propose, review, train, label`: intent labels half by machine, and the module that learns them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from ..errors import SettingsError
from .console import Stopped, note, print_json, quiet_libraries
from .curate_steps import listing
from .data import AsJson, Columns, Format, Limit, Source, Split, open_source
from .intents import Cache, Draws, EndpointAt, Money, Rules, Workers, app, asking_of, cache_of, table

__all__ = ["register"]

EPILOG_PROPOSE = """\b
Examples:
  pluralign intents propose pairs.jsonl --prompts 200 --endpoint openai:gpt-4.1 --output intents.csv
  pluralign intents propose pairs.jsonl --prompts 200 --rules --output intents.csv
  pluralign intents propose pairs.jsonl --endpoint URL --names "find a fact,get advice" --output intents.csv

\b
The file has a row for each prompt: id, prompt, proposed, corrected, keep (yes or no; empty: undecided). Rows that are
there already stay as they are. Correct it in a spreadsheet, or with `pluralign intents review intents.csv`.
"""
EPILOG_REVIEW = """\b
Keys: a or Enter accept, e another intent, d drop the row, s later, q stop. Every decision is written at once.
"""
EPILOG_TRAIN = """\b
Examples:
  pluralign intents train pairs.jsonl --labels intents.csv --output runs/intents
  pluralign intents train labelled.jsonl.gz --encoder minilm --frozen --output runs/intents
  pluralign align a_ipo --data labelled.jsonl.gz intents.module=runs/intents

\b
The defaults are the paper's: AdamW 2e-5, batches of 16, 512 tokens, patience 5; --frozen is not. A tenth of the
prompts is set apart for the figures that are printed; another tenth of the rest decides when to stop.
"""
EPILOG_LABEL = """\b
Examples:
  pluralign intents label pairs.jsonl --module runs/intents --threshold 0.5 --output labelled.jsonl.gz
  pluralign intents label pairs.jsonl --from user --output labelled.jsonl.gz
  pluralign intents label pairs.jsonl --from scenario --output labelled.jsonl.gz
"""
Labels = typer.Option(None, "--labels", help="File of `intents propose`; the rows that are kept count.")
FROZEN_RATE = 1e-2
Seed = typer.Option(0, "--seed", min=0, help="Which prompts are taken.")


def register() -> None:
    """Put the commands into `pluralign intents`."""
    app.command("propose", epilog=EPILOG_PROPOSE)(propose)
    app.command("review", epilog=EPILOG_REVIEW)(review)
    app.command("train", epilog=EPILOG_TRAIN)(train)
    app.command("label", epilog=EPILOG_LABEL)(label)


def propose(
    source: str = Source,
    output: Path = typer.Option(..., help="CSV file for people to correct."),
    prompts: int = typer.Option(200, min=1, help="So many different prompts."),
    names: str | None = typer.Option(None, help="The intents there are, comma-separated (default: free words)."),
    merge: float | None = typer.Option(None, min=0.0, max=1.0, help="Join intents of at least this cosine."),
    endpoint: str | None = EndpointAt,
    rules: bool = Rules,
    budget: str | None = Money,
    workers: int = Workers,
    again: int = Draws,
    cache: Path | None = Cache,
    seed: int = Seed,
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    limit: int | None = Limit,
    as_json: bool = AsJson,
) -> None:
    """Candidates of intents for some prompts, in a file for people to correct."""
    from ..intents import labels

    folder = cache_of(cache)
    who = asking_of(endpoint, rules, budget=budget, workers=workers, again=again, cache=folder)
    known = labels.read_labels(output) if output.exists() else []
    loaded = open_source(source, split=split, format=format, columns=columns, group=None, limit=limit)
    there = {p.id for p in known}
    chosen = [r for r in labels.subset(loaded, prompts, seed) if labels.prompt_id(r) not in there]
    made, why = labels.propose(chosen, who, listing(names) if names else ())
    if merge is not None:
        quiet_libraries()
        from ..encoders import encoder

        made = labels.merged(made, encoder("auto", cache=folder), merge)
    labels.write_labels([*known, *made], output)
    said = {
        "file": str(output), "prompts": len(known) + len(made), "new": len(made), "without": dict(why),
        "intents": len({p.proposed for p in made if p.proposed}), "by": who.endpoint.key if who else "rules",
    }  # fmt: skip
    if as_json:
        print_json(said)
        return
    print(f"{len(made):,} prompts added to {output} ({len(known):,} were there), {said['intents']:,} different intents")
    if why:
        note("without a proposal: " + ", ".join(f"{n:,} {reason}" for reason, n in why.items()))
    note(f"correct them: pluralign intents review {output}")


def review(file: Path = typer.Argument(..., metavar="FILE", help="File of `intents propose`.")) -> None:
    """Accept, correct or drop proposed intents in the terminal, one key each."""
    from ..intents.labels import read_labels, write_labels

    rows = read_labels(file)
    open_ = [i for i, row in enumerate(rows) if row.is_open]
    done = 0
    for place, i in enumerate(open_, start=1):
        row = rows[i]
        known = sorted({r.intent for r in rows if r.intent})
        shown = "".join(sign if sign.isprintable() else " " for sign in row.prompt[:600])  # no control codes
        print(f"\n{place} of {len(open_)}\n\n  {shown}\n\n  intent: {row.proposed or '(none)'}")
        decided = _decided(row, known)
        if decided is None:
            break
        if decided != row:
            rows[i] = decided
            write_labels(rows, file)
            done += 1
    left = sum(row.is_open for row in rows)
    print(f"\n{done:,} decided, {left:,} undecided: {file}")


def _decided(row: Any, known: list[str]) -> Any:
    """The row after a person's decision; the same for later, None to stop."""
    while True:
        pressed = _key("  [a]ccept  [e]dit  [d]rop  [s]kip  [q]uit: ")
        if pressed in ("q", ""):
            return None
        if pressed == "s":
            return row
        if pressed == "d":
            return replace(row, keep="no")
        if pressed in ("a", "\n", "\r") and (row.proposed or row.corrected):
            return replace(row, keep="yes")
        if pressed == "e":
            if known:
                print("  so far: " + "; ".join(known[:20]) + ("; ..." if len(known) > 20 else ""))
            print("  intent: ", end="", flush=True)
            said = " ".join(sys.stdin.readline().split())
            if said:
                return replace(row, corrected="" if said == row.proposed else said, keep="yes")


def _key(asked: str) -> str:
    """One key on a terminal; else a line, its first sign: a blank one is Enter, the end of input is ""."""
    print(asked, end="", flush=True)
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line[:1].lower() if line.strip() or not line else "\n"
    import click

    pressed = click.getchar(echo=True).lower()
    print()
    return pressed


def train(
    source: str = Source,
    output: Path = typer.Option(..., help="Folder for the module."),
    labels: Path | None = Labels,
    encoder: str | None = typer.Option(None, help="Encoder to start from: a folder or hub name (BERT, else MiniLM)."),
    learning_rate: float | None = typer.Option(None, help="Of AdamW (2e-5; with --frozen 1e-2)."),
    epochs: int = typer.Option(20, min=1, help="At most so many."),
    patience: int = typer.Option(5, min=1, help="Epochs without improvement before it stops."),
    batch_size: int = typer.Option(16, min=1, help="Prompts in a step."),
    frozen: bool = typer.Option(False, "--frozen", help="Train the classifier alone: minutes on a CPU."),
    loss: str = typer.Option("softmax", help="softmax, or bce (Eq. 5: every intent by itself)."),
    test: str | None = typer.Option(None, help="Data for the figures (default: a tenth of the prompts)."),
    seed: int = Seed,
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    as_json: bool = AsJson,
) -> None:
    """Train the intention module, an encoder with a classifier, on prompts with intents."""
    from ..data import split as parted
    from ..intents import labels as files

    if (output / "intention.json").exists():
        raise SettingsError(f"{output} holds an intention module already.", remedy="Choose another folder.")
    if loss not in ("softmax", "bce"):
        raise SettingsError(f'the loss is softmax or bce, not "{loss}".')
    options: dict[str, Any] = {"split": split, "format": format, "columns": columns, "group": None}
    rows = files.read_labels(labels) if labels else []
    known = [r for r in files.labelled(open_source(source, **options), rows) if r.intent and r.intent.strip()]
    if test is not None:
        held = [r for r in files.labelled(open_source(test, **{**options, "split": None}), rows) if r.intent]
    else:
        known, held = parted(known, 0.1, seed=seed + 1) if len(known) > 1 else (known, [])
    quiet_libraries()
    from ..intents.module import Training, train_intention

    how = Training(learning_rate=learning_rate or (FROZEN_RATE if frozen else Training.learning_rate), frozen=frozen,
                   epochs=epochs, patience=patience, batch_size=batch_size, loss=loss,
                   seed=seed)  # fmt: skip
    say = lambda epoch, nats, right: note(f"epoch {epoch}: loss {nats:.3f}, accuracy {right:.3f} (stopping rows)")
    made = train_intention(known, encoder=_encoder(encoder), how=how, progress=None if as_json else say)
    figures = _figures(made, held)
    made.about["figures"] = figures
    made.save(output)
    if as_json:
        print_json({"module": str(output), "intents": list(made.names), **made.about})
    else:
        _show(made, figures, output)


def _encoder(name: str | None) -> str | None:
    from importlib.util import find_spec

    from ..encoders import PACKAGE

    if name != "minilm":
        return name
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("the encoder minilm is not installed.", remedy='pip install "pluralign[encoder]"')
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _figures(module: Any, held: list[Any]) -> dict[str, Any]:
    """Accuracy of held-out prompts with its interval, and how far its confidence can be trusted."""
    if not held:
        return {}
    from ..judging.calibration import calibration
    from ..judging.statistics import share_interval

    posterior = module.posterior(held)
    sure = posterior.max(1).clip(0.0, 1.0)
    right = [float(module.names[i] == r.intent) for i, r in zip(posterior.argmax(1), held, strict=True)]
    common = max({r.intent for r in held}, key=lambda name: sum(r.intent == name for r in held))
    return {
        "accuracy": share_interval(right).as_dict(),
        "majority": share_interval([float(r.intent == common) for r in held]).as_dict(),
        "unknown_intents": sum(r.intent not in module.names for r in held),
        "calibration": calibration(sure, right).as_dict(),
    }


def _show(module: Any, figures: dict[str, Any], output: Path) -> None:
    from ..judging.statistics import Estimate

    about = module.about
    print(f"{len(module.names)} intents from {about['rows']:,} prompts, {about['held_out']:,} to stop by: {output}")
    if not figures:
        note("no prompts were set apart for figures")
        return
    accuracy, ece = (Estimate.from_dict(d) for d in (figures["accuracy"], figures["calibration"]["ece"]))
    print(f"held-out accuracy {accuracy} · always the commonest {Estimate.from_dict(figures['majority']).short()}")
    print(f"expected calibration error {ece} ({figures['calibration']['if_calibrated']:.3f} were it calibrated)")
    rows = [
        [f"{b['low']:.1f}-{b['high']:.1f}", f"{b['confidence']:.2f}", Estimate.from_dict(b["outcome"]).short(),
         f"{b['outcome']['n']}"] for b in figures["calibration"]["bins"]
    ]  # fmt: skip
    table(["confidence", "mean", "right", "n"], rows, right=("n",))
    if figures["unknown_intents"]:
        note(f"{figures['unknown_intents']} held-out prompts have an intent that was not trained on")


def label(
    source: str = Source,
    output: Path = typer.Option(..., help="File for the records (.jsonl or .jsonl.gz)."),
    module: Path | None = typer.Option(None, help="Folder of `intents train`: it labels what has no intent."),
    labels: Path | None = Labels,
    given: str | None = typer.Option(None, "--from", help="user, group, or a field of meta: that is the intent."),
    threshold: float = typer.Option(0.0, min=0.0, max=1.0, help="Less sure than this is no clear intent."),
    relabel: bool = typer.Option(False, "--relabel", help="Label rows that have an intent, too."),
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    limit: int | None = Limit,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUTPUT."),
    as_json: bool = AsJson,
) -> None:
    """Give records their intents: a person's, the data's own, or the module's with its confidence."""
    from ..curate import curate as through
    from ..data import convert
    from ..intents import given_intents
    from ..intents.labels import read_labels
    from ..intents.pseudo import by_file, by_module

    steps = [by_file(read_labels(labels))] if labels else []
    steps += [given_intents(given)] if given else []
    if module is not None:
        quiet_libraries()
        from ..intents.module import load_intention

        steps.append(by_module(load_intention(module), threshold, relabel=relabel, protect=bool(labels)))
    if not steps:
        raise SettingsError("no intents to give.", remedy="Name --module DIR, --labels FILE or --from user.")
    loaded = open_source(source, split=split, format=format, columns=columns, group=None, limit=limit)
    curated = through(loaded, steps)
    try:
        convert(curated, output, overwrite=overwrite)
    except KeyboardInterrupt:
        raise Stopped(f"stopped. {output} is as it was.") from None
    report = curated.report()
    if as_json:
        print_json({"output": str(output), **report})
        return
    rows = [
        [s["step"], f"{s['read']:,}", ", ".join(f"{n:,} {w}" for w, n in s["noted"].items())] for s in report["steps"]
    ]
    table(["labels", "records", "noted"], rows, right=("records",))
    print(f"\n{report['train']['records']:,} records: {output}")
