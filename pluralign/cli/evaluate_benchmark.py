"""`pluralign evaluate BENCHMARK MODEL...`: public benchmarks, their list, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from ..errors import SettingsError, nearest
from .benchmark_page import PAGE, write_page
from .console import Stopped, console, print_json, quiet_libraries, warn
from .judges import Counting

if TYPE_CHECKING:
    from ..benchmarks import Benchmark
    from ..benchmarks.kinds.evaluation import Evaluation

__all__ = ["Evaluations", "harness", "list_them", "measure", "register"]

EPILOG = """\b
Examples:
  pluralign evaluate {name} runs/dpo{judge} --output judged/dpo
  pluralign evaluate {name} runs/dpo{judge} --baseline judged/sft --output judged/dpo
  pluralign evaluate {name} base=Qwen/Qwen3-0.6B dpo=runs/dpo{judge} --limit 50 --json

\b
{measures}
{note}
Differences are paired over the same questions, against --baseline or the first system. With --output the folder holds
answers, verdicts, a row for every item, the figures and a manifest; the same command goes on where it was stopped.
Without a MODEL the figures of --output are made anew from its rows.
"""
EPILOG_HARNESS = """\b
Examples:
  pluralign evaluate harness arc_easy runs/dpo --limit 100
  pluralign evaluate harness my_task runs/dpo --include tasks/

\b
Needs the extra `harness` (lm-eval). The model is handed over as it is loaded here; `harness:TASK` is the same.
"""
EPILOG_LIST = """\b
Example:
  pluralign evaluate list
"""
HARNESS = "harness"
GROUPS_SHOWN = 12  # categories on a screen; all of them are in evaluation.json


class Evaluations(TyperGroup):
    """`evaluate`'s commands; a benchmark's name may be joined as one likes, and `harness:TASK` is `harness TASK`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from ..benchmarks import benchmarks, plain_name

        word = args[0]
        if word.startswith(f"{HARNESS}:"):
            args = [HARNESS, word.removeprefix(f"{HARNESS}:"), *args[1:]]
        elif word not in self.commands and not word.startswith("-"):
            known = {plain_name(name): name for name in benchmarks()}
            found = known.get(plain_name(word))
            if found is None:
                raise SettingsError(
                    f'unknown benchmark or evaluation "{word}".{nearest(word.lower(), self.commands)}',
                    remedy="`pluralign evaluate list` shows them all.",
                )
            args = [found, *args[1:]]
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    """A command for every benchmark, for tasks of the harness, and the list."""
    from ..benchmarks import benchmarks

    app.command("list", epilog=EPILOG_LIST)(list_them)
    for name, one in benchmarks().items():
        judge = " --judge local" if one.judge in ("pairwise", "rating") else ""
        note = f"\n\b\n{_wrapped(one.note)}\n\b" if one.note else "\b"
        epilog = EPILOG.format(name=name, judge=judge, measures=_wrapped(f"Measures {one.measures}."), note=note)
        app.command(name, help=f"{one.title}: {one.measures}.", epilog=epilog)(measure)
    app.command(HARNESS, epilog=EPILOG_HARNESS)(harness)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 118))


def measure(
    ctx: typer.Context,
    models: list[str] = typer.Argument(
        None, metavar="MODEL...", help="Policies (run folder, hub model) or files of answers; NAME=MODEL names one."
    ),
    judge: str | None = typer.Option(
        None, help="local, openai:MODEL, URL[#MODEL], reward:MODEL, rating:RUN, rule:longer, embedding, panel:A,B."
    ),
    judge_style: str | None = typer.Option(
        None, help="How a language model compares: pair, arena-hard, alpaca-eval (the benchmark's own by default)."
    ),
    baseline: str | None = typer.Option(
        None, help="Hold the systems against this one: the folder of an evaluation, a model or a file of answers."
    ),
    against: str | None = typer.Option(
        None, help="Answers that the judge compares with, instead of the benchmark's own: a file or a model."
    ),
    reference: str | None = typer.Option(None, help="The model that log-ratios are taken against."),
    questions: str | None = typer.Option(None, help="Questions from a file, a folder or a hub data set."),
    split: str | None = typer.Option(None, help="Split of a hub data set."),
    limit: int | None = typer.Option(None, min=1, help="At most so many items, taken evenly over the set."),
    skip: int = typer.Option(0, min=0, help="Leave out the first so many items."),
    only: str | None = typer.Option(None, help="A file with the questions or ids to take, one a line."),
    settings: str = typer.Option("default", help="Named settings, such as inspo or sga (`evaluate list --json`)."),
    given: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="One setting; repeatable."),
    max_new_tokens: int | None = typer.Option(None, "--max-new-tokens", min=1, help="Longest answer."),
    temperature: str | None = typer.Option(None, help="0 takes the likeliest token."),
    top_p: float | None = typer.Option(None, help="Draw from the likeliest tokens that hold this much probability."),
    shots: int | None = typer.Option(None, min=0, help="Answered examples before the question, where it takes them."),
    intents: str | None = typer.Option(
        None, help="Intents shown (A-IPO's benchmarks): auto, gold, infer, none, or a URL that infers them."
    ),
    attributes: list[str] = typer.Option([], "--attributes", metavar="NAME=SCORE", help="Scores to steer by."),
    seed: int = typer.Option(0, min=0, help="Of answers."),
    batch_size: int = typer.Option(16, min=1, help="Answers written together."),
    budget: str | None = typer.Option(None, help="Ask the judge no further than 500requests, 200000tokens, 5usd@2/8."),
    output: Path | None = typer.Option(None, help="Folder for answers, verdicts, rows, figures and the manifest."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with a model."),
    as_json: bool = typer.Option(False, "--json", help="The evaluation as JSON on stdout."),
) -> None:
    """Measure systems by a benchmark."""
    from ..benchmarks import benchmark
    from ..benchmarks.kinds.work import Asked, rescored, run_benchmark
    from .talk import scores_given

    chosen = benchmark(ctx.info_name or "")
    if not models and judge is None and output is not None:
        _say(rescored(output, chosen), as_json, None)
        return
    own = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "shots": shots,
           "intents": intents}  # fmt: skip
    asked = Asked(
        chosen, {}, settings_name=settings, given={**_pairs(given), **{k: v for k, v in own.items() if v is not None}},
        questions=questions, split=split, skip=skip, limit=limit, only=only, baseline=baseline, against=against,
        attributes=scores_given(attributes), seed=seed, batch_size=batch_size, output=output,
        command=" ".join(["pluralign", *sys.argv[1:]]), trust_remote_code=trust_remote_code, warn=warn,
    )  # fmt: skip
    _check(chosen, asked, models or [], judge, reference)
    quiet_libraries()
    try:
        with Counting() as progress:
            asked.progress = progress
            asked.judge = _judge(chosen, judge, judge_style, budget, asked)
            asked.systems = _systems(chosen, models or [], asked.judge, trust_remote_code)
            asked.reference = _reference(reference, trust_remote_code)
            found = run_benchmark(asked)
    except KeyboardInterrupt:
        on = f" The same command goes on in {output}." if output else ""
        raise Stopped(f"stopped.{on}") from None
    if output:
        write_page(output, chosen, found)
    _say(found, as_json, output)


# What is read


def _pairs(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise SettingsError(f'--set "{text}" is no KEY=VALUE, such as shots=5.')
        found[key.strip()] = value.strip()
    return found


def _check(chosen: Benchmark, asked: Any, models: Sequence[str], judge: str | None, reference: str | None) -> None:
    """What can be told before a model is loaded. Raises SettingsError."""
    from ..benchmarks.kinds.core import settings_of

    settings_of(chosen, asked.settings_name, asked.given)
    if not models and chosen.judge != "optional":
        raise SettingsError("there is nothing to measure.", remedy=f"pluralign evaluate {chosen.name} MODEL")
    if not models and judge is None:
        raise SettingsError("there is nothing to measure.", remedy="Name a MODEL, or the judge that is to be judged.")
    if reference is not None and chosen.kind != "ranked":
        raise SettingsError(f"{chosen.name} takes no log-ratios.", remedy="Leave out --reference.")
    if asked.attributes and chosen.kind not in ("compared", "rated"):
        raise SettingsError(f"{chosen.name} writes no answers to steer.", remedy="Leave out --attributes.")


def _judge(chosen: Benchmark, text: str | None, style: str | None, budget: str | None, asked: Any) -> Any:
    """The judge, asked in the benchmark's way. Raises SettingsError where it cannot be."""
    if text is None:
        return None
    from ..benchmarks.kinds.by_category import by_category
    from ..endpoints import Budget
    from ..judging.judges import make_judge

    limit = Budget.parse(budget) if budget is not None else None
    cache = asked.output / "replies" if asked.output else None
    styles = {"": style} if style else chosen.styles
    made: dict[str, Any] = {}
    for how in dict.fromkeys(styles.values()):
        made[how] = make_judge(text, style=how, budget=limit, cache=cache, progress=asked.progress)
    return by_category({category: made[how] for category, how in styles.items()})


def _systems(chosen: Benchmark, models: Sequence[str], judge: Any, trust_remote_code: bool) -> dict[str, Any]:
    from ..benchmarks.kinds.ranking import JUDGE
    from ..benchmarks.kinds.systems import System, open_system
    from .evaluate import by_name

    named = by_name(list(models)) if models else {}
    systems = {name: open_system(name, model, trust_remote_code=trust_remote_code) for name, model in named.items()}
    if chosen.judge == "optional" and judge is not None:
        systems[judge.name] = System(judge.name, JUDGE)
    return systems


def _reference(name: str | None, trust_remote_code: bool) -> Any:
    if name is None:
        return None
    from ..policy import Policy

    return Policy.load(name, trust_remote_code=trust_remote_code)


# What is said


def _say(found: Evaluation, as_json: bool, output: Path | None) -> None:
    if as_json:
        print_json(found.as_dict())
        return
    from rich.text import Text

    from .evaluate_attributes import show_table

    out = console()
    heads = list(dict.fromkeys(name for row in found.figures.values() for name in row))
    rows = [(name, [row.get(head) for head in heads]) for name, row in found.figures.items()]
    show_table(out, found.benchmark, heads, rows, f"{found.on}, 95 % intervals; {_sizes(found)}")
    if found.differences:
        heads = list(dict.fromkeys(name for row in found.differences.values() for name in row))
        rows = [(name, [row.get(head) for head in heads]) for name, row in found.differences.items()]
        out.print()
        show_table(out, f"against {found.against}", heads, rows, "paired differences")
    groups = list(dict.fromkeys(name for row in found.groups.values() for name in row))
    if 1 < len(groups) <= GROUPS_SHOWN:
        rows = [(name, [row.get(group) for group in groups]) for name, row in found.groups.items()]
        out.print()
        show_table(out, "by category", groups, rows, "the first figure above")
    for said in found.notes:
        out.print(Text(f"note: {said}", style="dim"))
    for name, reasons in found.failed.items():
        for reason, count in reasons.items():
            warn(f"{name}: {count:,} without a figure: {reason}")
    if output:
        print(f"written to {output}/{PAGE if (output / PAGE).is_file() else 'evaluation.json'}")


def _sizes(found: Evaluation) -> str:
    sizes = {e.n for row in found.figures.values() for e in list(row.values())[:1]}
    return "n = " + (f"{sizes.pop():,}" if len(sizes) == 1 else f"{min(sizes):,} to {max(sizes):,}")


def list_them(as_json: bool = typer.Option(False, "--json", help="As JSON on stdout, with every setting.")) -> None:
    """What there is: what it measures, items, judge, licence, where questions come from."""
    from rich.table import Table
    from rich.text import Text

    from ..benchmarks import benchmarks
    from ..benchmarks.kinds.core import KINDS

    every = list(benchmarks().values())
    if as_json:
        print_json([_about(one) for one in every])
        return
    for one in every:
        words = {"pairwise": "a judge that compares", "rating": "a judge that rates", "may": "a judge, if named"}
        needs = words.get(one.judge, "no judge")
        needs = "a policy or a judge" if one.judge == "optional" else needs
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="dim", min_width=9)
        table.add_column(overflow="fold")
        source = one.sources["questions"]
        for name, text in (
            ("measures", one.measures), ("by", f"{KINDS[one.kind]}; {needs}"), ("paper", one.paper),
            ("questions", ", ".join(part for part in (source.local, source.hub) if part)),
            ("licence", one.licence), ("settings", ", ".join(one.settings)),
        ):  # fmt: skip
            table.add_row(name, Text(text))
        console().print(Text.assemble((one.name, "bold"), f"  {one.title}, {one.n:,} items"))
        console().print(table)
    print("harness:TASK  any task of lm-evaluation-harness (extra `harness`)")


def _about(one: Benchmark) -> dict[str, Any]:
    return {
        "name": one.name, "title": one.title, "paper": one.paper, "measures": one.measures, "kind": one.kind,
        "n": one.n, "judge": one.judge, "licence": one.licence, "note": one.note,
        "sources": {r: {"local": s.local, "hub": s.hub, "split": s.split} for r, s in one.sources.items()},
        "settings": {name: dict(values) for name, values in one.settings.items()},
    }  # fmt: skip


def harness(
    task: str = typer.Argument(..., help="A task of lm-evaluation-harness, or several with commas."),
    models: list[str] = typer.Argument(..., metavar="MODEL...", help="Run folder, hub model; NAME=MODEL names one."),
    limit: int | None = typer.Option(None, min=1, help="At most so many documents a task."),
    shots: int | None = typer.Option(None, min=0, help="Examples in the prompt (the task's own by default)."),
    include: Path | None = typer.Option(None, help="A folder of task files of one's own."),
    chat: bool = typer.Option(False, "--chat", help="Ask through the model's chat template."),
    seed: int = typer.Option(0, min=0, help="Of the harness's own draws."),
    batch_size: int = typer.Option(8, min=1, help="Requests read together."),
    output: Path | None = typer.Option(None, help="Folder for rows, figures and the manifest."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with a model."),
    as_json: bool = typer.Option(False, "--json", help="The evaluation as JSON on stdout."),
) -> None:
    """Measure systems by a task of lm-evaluation-harness."""
    from ..benchmarks.kinds.harness import run_harness
    from .evaluate import by_name

    named = by_name(models)
    quiet_libraries()
    found = run_harness(
        task, named, limit=limit, shots=shots, include=include, chat=chat, seed=seed, batch_size=batch_size,
        output=output, command=" ".join(["pluralign", *sys.argv[1:]]), trust_remote_code=trust_remote_code,
    )  # fmt: skip
    _say(found, as_json, output)
