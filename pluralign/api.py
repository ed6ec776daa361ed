"""The library in two calls: `align` and `evaluate`. The command line is these two with words around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SettingsError
from .recipes import Recipe, recipe, recipes
from .records import Preference, Record
from .terms import Plan

if TYPE_CHECKING:
    from .judging.preferences import PreferenceEvaluation
    from .objectives import Objective, Outcome
    from .policy import Policy
    from .training.callbacks import Say
    from .training.run import Data, Finished
    from .training.settings import Settings

__all__ = ["HELD_OUT", "align", "evaluate", "held_out", "named_policies", "settings_for"]

HELD_OUT = Path(__file__).parent / "assets" / "pairs" / "heldout.jsonl.gz"
FILE_ENDINGS = (".yaml", ".yml")


def align(
    policy: Policy | str | Path,
    data: str | Path | Iterable[Any],
    *,
    recipe: str | Path = "dpo",
    output: str | Path | None = None,
    plan: Plan | None = None,
    objective: str | Mapping[str, Any] | Objective | Callable[..., Outcome] | None = None,
    say: Say | None = None,
    command: str = "",
    **settings: Any,
) -> Finished:
    """Train a policy on preferences; the run folder holds the trained model, its metrics and how it came about.

    `policy` is a loaded Policy (trained in place: full fine-tuning changes its weights) or the name of one; `data` a
    source, loaded records, or rows in memory. `recipe` names a preset or a YAML file; every setting of it can be
    overridden by its last or full name (`learning_rate=1e-6`, `**{"rendering.max_length": 512}`) or by section
    (`training={"epochs": 2}`). `objective` is a registered name (with its hyper-parameters: {"name": "dpo",
    "beta": 0.1}) or a function of your own, `readings, *, hyper -> Outcome`, which needs a `plan` that makes its terms.

    Returns the finished run: `.policy`, `.metrics`, `.summary()`, `.output`. Raises PluralignError for whatever a
    person can mend.
    """
    from .objectives import as_objective
    from .training.run import align as train

    named = objective is None or isinstance(objective, str | Mapping | Sequence)
    goal = None if named else as_objective(objective)  # type: ignore[arg-type]
    if goal is not None:
        if plan is None and not goal.needs:
            raise SettingsError("an objective of your own needs a plan.", remedy="Pass plan=, a function of a record.")
        settings["objective"] = goal.name
    elif objective is not None:
        settings["objective"] = objective
    if output is not None:
        settings["output"] = str(output)
    given, own = settings_for(recipe, settings, goal=goal)
    plan = plan or (own.plan if own else None)
    loaded: Policy | None = None
    if isinstance(policy, str | Path):
        given.model = str(policy)
    else:
        asked, _ = settings_for({"objective": given.objective.name}, settings, goal=goal)
        loaded = _with_settings(policy, given, asked)
        given.model = policy.name
    found: Data | None = None
    if isinstance(data, str | Path):
        given.data.source = str(data)
    else:
        found = _in_memory(data, given, goal, plan)
    return train(given, data=found, policy=loaded, plan=plan, objective=goal, say=say, command=command or "python")


def settings_for(
    source: str | Path | Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    *,
    goal: Objective | None = None,
) -> tuple[Settings, Recipe | None]:
    """The settings of a recipe, a YAML file or a settings tree, and the recipe they come from.

    `given` (a mapping, its sections may be nested) goes over it, `overrides` (`key=value` texts) over both.
    Raises SettingsError for a recipe, file or key that does not exist.
    """
    from .training.settings import build, hyper_parameters

    hyper = hyper_parameters()
    if goal is not None:
        hyper[goal.name] = list(goal.defaults)
    made = build([*_layers(source), given or {}], overrides, hyper=hyper)
    return made, recipes().get(made.recipe)


def _layers(source: str | Path | Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if isinstance(source, Mapping):
        return [source]
    path = Path(source)
    if not (path.suffix in FILE_ENDINGS or path.is_file()):
        return [recipe(str(source)).preset]
    tree = _read_yaml(path)
    name = tree.pop("recipe", None)
    if name is None:
        return [{"recipe": path.stem}, tree]
    try:
        return [recipe(str(name)).preset, tree]
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}", remedy=error.remedy) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise SettingsError(f"{path}: no such file.", remedy="`pluralign recipes` lists what can be run without one.")
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: the text is not UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SettingsError(f"{where}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'}).") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise SettingsError(f"{path}: expected settings (key: value), found {type(tree).__name__}.")
    return tree


def _with_settings(policy: Policy, given: Settings, asked: Settings) -> Policy:
    """The policy rendered as the caller (else it, else the recipe) says. `asked`: what the caller set and no more.

    Raises SettingsError for settings that would have had to be known when the policy was loaded.
    """
    late = [f"lora.{name}" for name in asked.lora.model_fields_set]
    late += ["training.precision"] if "precision" in asked.training.model_fields_set else []
    late += [name for name in ("model", "trust_remote_code") if name in asked.model_fields_set]
    if late:
        raise SettingsError(
            f'"{late[0]}" has no effect on a policy that is loaded already.', remedy="Give it to Policy.load."
        )
    explicit = {name: getattr(asked.rendering, name) for name in asked.rendering.model_fields_set}
    rendering = {**given.rendering.model_dump(), **policy.rendering, **explicit}
    for name in type(given.rendering).model_fields:
        setattr(given.rendering, name, rendering[name])
    given.training.precision = policy.precision  # type: ignore[assignment]
    return replace(policy, rendering=rendering)


# Records in memory


@dataclass
class _Records:
    """Records as one kind, on one side of the split; read again at every pass."""

    records: Iterable[Any]
    kind: type[Record] | None
    limit: int | None
    keep: Callable[[Record], bool] = lambda record: True

    def __iter__(self) -> Iterator[Record]:
        return (record for record in islice(self._as_kind(), self.limit) if self.keep(record))

    def _as_kind(self) -> Iterator[Record]:
        from .data import as_kind

        for record in self.records:
            if self.kind is None:
                yield record
            else:
                yield from (r for r in as_kind(record, self.kind) if isinstance(r, Record))


def _in_memory(data: Iterable[Any], given: Settings, goal: Objective | None, plan: Plan | None) -> Data:
    """Loaded records or rows, split by prompt as a file would be."""
    from .data import Loaded, load, prompt_hash
    from .objectives import find
    from .training.run import KINDS, Data

    d = given.data
    useless = d.model_fields_set - {"validation_fraction", "validation_rows", "limit", "bad_rows"}
    if useless:
        name = sorted(useless)[0]
        raise SettingsError(f'"data.{name}" has no effect on records in memory.', remedy="Give it to load().")
    if not isinstance(data, Loaded):
        rows = list(data)
        data = rows if rows and all(isinstance(row, Record) for row in rows) else load(rows)
    kind: type[Record] | None = None
    if plan is None:
        kind = KINDS[(goal or find(given.objective.name)).data]
    about: dict[str, Any] = {"source": "python"}
    if isinstance(data, Loaded):
        about = {"source": data.name, "format": data.format, "loaded": data}
    d.source = about["source"]
    whole = _Records(data, kind, d.limit)
    if not d.validation_fraction or not d.validation_rows:
        return Data(whole, None, about)
    return Data(
        replace(whole, keep=lambda r: prompt_hash(r, given.seed) >= d.validation_fraction),
        replace(whole, keep=lambda r: prompt_hash(r, given.seed) < d.validation_fraction),
        about,
    )


# Evaluation


def evaluate(
    policies: Policy | str | Path | Sequence[Policy | str | Path] | Mapping[str, Policy | str | Path],
    data: str | Path | Iterable[Any] = "embedded",
    *,
    reference: Policy | str | Path | None = None,
    limit: int | None = None,
    output: str | Path | None = None,
    split: str | None = None,
    token_budget: int = 8192,
    progress: Callable[[str, int, int], None] | None = None,
) -> PreferenceEvaluation:
    """Which policies rank what people preferred first, on held-out pairs; see `judging.preferences`.

    `policies` are loaded ones or names; with a mapping they go under your own names. `reference` may be one of these
    names. With `output`, evaluation.json and scores.jsonl are written there. `data="embedded"`: the shipped held-out
    pairs. Raises PluralignError for whatever a person can mend.
    """
    from .judging.preferences import evaluate_preferences
    from .policy import Policy

    named = named_policies(policies)
    loaded = {name: p if isinstance(p, Policy) else Policy.load(p) for name, p in named.items()}
    if isinstance(reference, str) and reference in loaded:
        reference = loaded[reference]
    elif isinstance(reference, str | Path):
        reference = Policy.load(reference)
    records, on = held_out(data, split=split)
    found = evaluate_preferences(
        loaded, records, reference=reference, limit=limit, on=on, token_budget=token_budget, progress=progress
    )
    if output is not None:
        found.write(output)
    return found


def held_out(data: str | Path | Iterable[Any], *, split: str | None = None) -> tuple[Iterable[Preference], str]:
    """(pairs, what they are called) of a source or of rows in memory."""
    from .data import Loaded, load

    if isinstance(data, Loaded):
        return _Records(data, Preference, None), data.name  # type: ignore[return-value]
    if isinstance(data, str | Path):
        source, on = (HELD_OUT, "the shipped held-out pairs") if str(data) == "embedded" else (data, str(data))
        return load(source, kind=Preference, split=split), on  # type: ignore[return-value]
    rows = list(data)
    if rows and all(isinstance(row, Record) for row in rows):
        return _Records(rows, Preference, None), "rows"  # type: ignore[return-value]
    return load(rows, kind=Preference), "rows"  # type: ignore[return-value]


def named_policies(policies: Any) -> dict[str, Any]:
    """Policies by name: the last part of a path or hub name where that tells them apart, else the whole."""
    if isinstance(policies, Mapping):
        return dict(policies)
    several = list(policies) if isinstance(policies, Sequence) and not isinstance(policies, str) else [policies]
    full = [str(p) if isinstance(p, str | Path) else p.name for p in several]
    short = [Path(name).name or name for name in full]
    names = short if len(set(short)) == len(short) else full
    if len(set(names)) < len(names):
        raise SettingsError(f'"{names[0]}" is given twice.', remedy="Name them: {name: policy, ...}.")
    return dict(zip(names, several, strict=True))
