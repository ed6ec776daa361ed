"""`pluralign orchestrate`: fit the preference orchestrator on a policy's states, or ask it for weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .console import console, note, print_json, quiet_libraries
from .data import Columns, Format, Group, Limit, Split, open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..heads.orchestrator import Fitted, Orchestrator
    from ..judging.attributes import WeightsReport

__all__ = ["EPILOG", "orchestrate"]

EPILOG = """\b
Examples:
  pluralign orchestrate runs/sft --data nvidia/HelpSteer2 --attributes helpfulness,verbosity --output runs/weights
  pluralign orchestrate runs/weights --prompt "Tell me a joke about people who resign"
  pluralign orchestrate runs/weights --data pairs.jsonl --output weighted.jsonl

\b
With --attributes it fits: the weights of a prompt are the softmax of its preferred response's normalised scores, and a
small adapter on the model's frozen state of the prompt learns them. The report compares it with the same weights for
every prompt, on held-out prompts. Without --attributes it uses what was fitted: weights for prompts, or records with
"weights" in their meta. A reconstruction of arXiv 2511.10656, of which only the abstract was known.
Judge what is made with the weights by other scores than those they were fitted on.
"""
SEVERAL = (".jsonl", ".jsonl.gz")


def orchestrate(
    model: str = typer.Argument(
        ..., help="To fit: the policy (hub model, folder, run folder). To use: what --output was."
    ),
    data: str | None = typer.Option(None, help="Records with attribute scores; without --attributes: to be weighted."),
    attributes: str | None = typer.Option(None, help="The objectives, by commas: fit weights for these."),
    output: Path | None = typer.Option(None, help="Folder of the orchestrator (fitting), or file of weighted records."),
    prompt: list[str] | None = typer.Option(None, "--prompt", help="Show the weights of this prompt; repeatable."),
    policy: str | None = typer.Option(None, help="Using: where the policy is now, if it was moved."),
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    group: str | None = Group,
    by: str | None = typer.Option(None, help="What orders rated responses, where the format asks (`mean`: of all)."),
    limit: int | None = Limit,
    normalise: str = typer.Option("zscore", help="zscore, min-max, or advantage over the rejected response."),
    tau: float = typer.Option(1.0, help="Temperature of the targets."),
    eta: float = typer.Option(0.0, help="Pull towards uniform weights."),
    epochs: int = typer.Option(3, min=1, help="Passes over the training prompts."),
    learning_rate: float = typer.Option(1e-4, help="Of AdamW."),
    batch_size: int = typer.Option(64, min=1, help="Prompts a step."),
    held_out: float = typer.Option(0.1, help="Share of prompts for the report alone."),
    validation: float = typer.Option(0.1, help="Share of prompts that decide when to stop."),
    seed: int = typer.Option(0, help="Of the split, the adapter and the order."),
    token_budget: int = typer.Option(8192, min=256, help="Tokens of one forward pass."),
    as_attributes: bool = typer.Option(
        False, "--as-attributes", help="Using: the weights also become attributes OBJECTIVE_weight."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the output if it exists."),
    as_json: bool = typer.Option(False, "--json", help="As JSON on stdout."),
) -> None:
    """Weights of objectives for each prompt: fit them on a policy's states, or ask for them."""
    source = {"split": split, "format": format, "columns": columns, "group": group, "by": by, "limit": limit}
    if attributes is None:
        how = {"token_budget": token_budget, "as_attributes": as_attributes}
        _use(model, prompt or [], data, output, policy, source, how, overwrite, as_json)
        return
    names = tuple(name.strip() for name in attributes.split(",") if name.strip())
    if data is None or output is None:
        raise SettingsError("fitting needs --data and --output.", remedy="See `pluralign orchestrate --help`.")
    if prompt or policy or as_attributes:
        raise SettingsError(
            "--prompt, --policy and --as-attributes belong to a fitted orchestrator.", remedy="Leave out --attributes."
        )
    from ..heads.orchestrator import FILES
    from ..heads.prompt_weights import Options

    if any((output / name).exists() for name in FILES) and not overwrite:
        raise SettingsError(f"{output} holds an orchestrator already.", remedy="Pass --overwrite, or another --output.")
    options = Options(
        tau=tau, eta=eta, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed
    ).check()
    settings = {"mode": normalise, "validation": validation, "held_out": held_out, "token_budget": token_budget}
    _fit(model, data, names, output, source, {**settings, "options": options}, as_json)


# Fitting


def _fit(
    model: str, data: str, names: tuple[str, ...], output: Path, source: dict[str, Any], settings: dict[str, Any],
    as_json: bool,
) -> None:  # fmt: skip
    from ..heads.orchestrator import fit_orchestrator, save_orchestrator
    from ..heads.prompt_weights import MODES
    from ..judging.attributes import judge_weights
    from ..policy import Policy

    if settings["mode"] not in MODES:
        raise SettingsError(f'unknown normalisation "{settings["mode"]}".', remedy=f"Known: {', '.join(MODES)}.")
    records = list(open_source(data, **source))
    quiet_libraries()
    policy = Policy.load(model)
    with _counting("prompts read") as count:
        progress = lambda what, n: count(n) if what == "prompts" else None
        fitted = fit_orchestrator(policy, records, names, progress=progress, **settings)
    made = fitted.orchestrator
    report = judge_weights(
        fitted.targets, fitted.predicted, made.constant, known=fitted.known, clusters=fitted.clusters
    )
    facts = {**made.facts, "data": str(data), "left_out": fitted.left_out, "report": report.as_dict()}
    made = replace(made, policy=_where(model), facts=facts)
    save_orchestrator(made, output)
    if as_json:
        constant = dict(zip(names, made.constant.tolist(), strict=True))
        print_json({"objectives": list(names), "constant": constant, **facts})
        return
    _show_report(fitted, report)
    note(f"written to {output}")


def _where(model: str) -> str:
    """A folder by its full path, so that the orchestrator finds it from anywhere; other names as they are."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _show_report(fitted: Fitted, report: WeightsReport) -> None:
    from rich.table import Table
    from rich.text import Text

    made, out = fitted.orchestrator, console()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = made.facts["rows"]
    weights = zip(made.names, made.constant.tolist(), strict=True)
    lines = [
        ("objectives", ", ".join(made.names)),
        ("rows", f"{rows['train']:,} trained on, {rows['validation']:,} validation, {rows['held_out']:,} held out"),
        ("left out", ", ".join(f"{n:,} with {why}" for why, n in fitted.left_out.items())),
        ("constant weights", ", ".join(f"{name} {w:.3f}" for name, w in weights)),
        ("KL to the targets", f"{report.kl} nats"),
        ("  constant weights", f"{report.constant.short()} nats"),
        ("  lower by", f"{report.gain} nats"),
        ("entropy", f"{report.entropy.short()} nats; of the targets {report.target_entropy.short()}"),
        ("targets of one prompt", f"differ by {report.retest} (total variation)" if report.retest.n else "one each"),
    ]  # fmt: skip
    for name, value in lines:
        if value:
            table.add_row(name, Text(value))
    out.print(table)
    out.print(Text(report.verdict))


# Using


def _use(
    folder: str,
    prompts: list[str],
    data: str | None,
    output: Path | None,
    policy_name: str | None,
    source: dict[str, Any],
    how: dict[str, Any],
    overwrite: bool,
    as_json: bool,
) -> None:
    if (not prompts) == (data is None):
        raise SettingsError(
            "give --attributes to fit, and one of --prompt and --data to use what was fitted.",
            remedy="See `pluralign orchestrate --help`.",
        )
    if data is not None and (output is None or not output.name.endswith(SEVERAL)):
        raise SettingsError("weighted records go to a file: --output weighted.jsonl (or .jsonl.gz).")
    from ..heads.orchestrator import load_orchestrator
    from ..policy import Policy

    orchestrator = load_orchestrator(folder)
    quiet_libraries()
    policy = Policy.load(policy_name or _policy_of(folder, orchestrator))
    if prompts:
        found = orchestrator.named(orchestrator.weights_for(policy, prompts, token_budget=how["token_budget"]))
        _show_weights(orchestrator, prompts, found, as_json)
        return
    assert data is not None
    assert output is not None
    from ..data import convert
    from ..heads.orchestrator import with_weights

    with _counting("prompts read") as count:
        weighted = with_weights(orchestrator, policy, open_source(data, **source), progress=count, **how)
        written = convert(weighted, output, overwrite=overwrite)
    if as_json:
        print_json({"records": written, "output": str(output)})
    else:
        note(f"{written:,} records with weights written to {output}")


def _policy_of(folder: str, orchestrator: Orchestrator) -> str:
    """The policy beside the orchestrator, or the one it was fitted on."""
    here = Path(folder)
    beside = any((here / name).exists() for name in ("config.json", "adapter_config.json", "model"))
    return folder if beside or not orchestrator.policy else orchestrator.policy


def _show_weights(orchestrator: Orchestrator, prompts: list[str], found: list[dict[str, float]], as_json: bool) -> None:
    if as_json:
        rows = [{"prompt": p, "weights": w} for p, w in zip(prompts, found, strict=True)]
        print_json({"objectives": list(orchestrator.names), "rows": rows})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in orchestrator.names:
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_column("prompt", overflow="fold")
    for text, weights in zip(prompts, found, strict=True):
        table.add_row(*(f"{w:.3f}" for w in weights.values()), Text(text))
    console().print(table)
    report = orchestrator.facts.get("report")
    if report:
        console().print(Text(report["verdict"], style="dim"))


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int], None]]:
    """A count on stderr, where it is a terminal."""
    out = console(err=True)
    status = out.status("loading …") if out.is_terminal else None
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        if status:
            status.update(f"{done:,} {what}")

    if status:
        status.start()
    try:
        yield count
    finally:
        if status:
            status.stop()
