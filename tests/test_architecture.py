"""The shape of the house: who may import whom, how long a file may be, which settings and names are promised."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pluralign
from pluralign.conditioning import Conditioning
from pluralign.objectives import OBJECTIVES
from pluralign.recipes import recipes
from pluralign.render import Renderer
from pluralign.training import settings

PACKAGE = Path(pluralign.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)

# From the ground up: a room may import rooms before it. `assets` holds files and the script that made them.
ORDER = [
    "assets",
    "errors",
    "kept",
    "records",
    "attributes",
    "intention",
    "terms",
    "conditioning",
    "endpoints",
    "encoders",
    "data",
    "curate",
    "render",
    "scoring",
    "objectives",
    "theory",
    "heads",
    "policy",
    "intents",
    "soups",
    "training",
    "steering",
    "judging",
    "benchmarks",
    "reports",
    "recipes",
    "api",
    "rounds",
    "mixtures",
    "serve",
    "cli",
]
# The few steps up the stairs, each inside a function: a convenience that the lower room offers on behalf of the upper.
UPWARD = {("policy.py", "steering")}
# Only torch below `scoring`, and nothing of ours but torch in `objectives`.
OBJECTIVES_MAY_IMPORT = {"torch", "collections", "dataclasses", "inspect", "typing", "__future__", "math"}
# No torch while they are imported.
LIGHT = ("errors", "records", "attributes", "terms", "conditioning", "data", "curate", "render", "recipes", "cli")
HEAVY = {"torch", "transformers", "datasets", "peft", "accelerate", "matplotlib", "scipy", "pandas"}

LONGEST = 400
LONGER = {"assets/corpus.py"}  # of the script that made the assets, kept in one piece
LONGEST_RECIPE = 150


def room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(path: Path, *, inside_functions: bool = True) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import in a file; `if TYPE_CHECKING` blocks are for readers only."""
    package = ["pluralign", *path.relative_to(PACKAGE).parts[:-1]]

    def walk(node: ast.AST, in_function: bool) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import) and (inside_functions or not in_function):
                yield from ((child.lineno, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and (inside_functions or not in_function):
                base = package[: len(package) - child.level + 1] if child.level else []
                name = ".".join([*base, *([child.module] if child.module else [])])
                yield from ((child.lineno, f"{name}.{alias.name}") for alias in child.names)
            else:
                yield from walk(child, in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from walk(ast.parse(path.read_text("utf-8")), False)


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(ORDER), f"new rooms: {rooms - set(ORDER)}"


def test_rooms_import_only_rooms_below_them() -> None:
    wrong = []
    for path in FILES:
        own = room(path)
        if own in ("__init__", "__main__"):
            continue
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "pluralign" or len(parts) < 2 or parts[1] in (own, "__version__"):
                continue
            above = parts[1] not in ORDER or ORDER.index(parts[1]) > ORDER.index(own)
            if above and (path.name, parts[1]) not in UPWARD:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_upward_steps_are_inside_functions_and_still_needed() -> None:
    for name, target in UPWARD:
        path = PACKAGE / name
        anywhere = [n for _, n in imports(path) if n.startswith(f"pluralign.{target}")]
        at_top = [n for _, n in imports(path, inside_functions=False) if n.startswith(f"pluralign.{target}")]
        assert anywhere, f"{name} no longer imports {target}: strike it from UPWARD"
        assert not at_top


def test_objectives_import_nothing_but_torch() -> None:
    for path in (PACKAGE / "objectives").glob("*.py"):
        for line, name in imports(path):
            allowed = name.split(".")[0] in OBJECTIVES_MAY_IMPORT or name.startswith("pluralign.objectives")
            assert allowed, f"{path.name}:{line} imports {name}"


def test_light_rooms_load_nothing_heavy_when_imported() -> None:
    wrong = []
    for path in FILES:
        if room(path) in LIGHT and path.name != "progress.py":  # the command line's only heavy module, loaded by a run
            for line, name in imports(path, inside_functions=False):
                if name.split(".")[0] in HEAVY:
                    wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_files_stay_short() -> None:
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text("utf-8").splitlines()) for p in FILES}
    assert {name: n for name, n in lengths.items() if n > LONGEST and name not in LONGER} == {}
    recipes_too_long = {n: k for n, k in lengths.items() if n.startswith("recipes/") and k > LONGEST_RECIPE}
    assert recipes_too_long == {}


def test_no_star_imports_no_prints_in_the_library_and_no_unsafe_loading() -> None:
    """Contract 9: no pickle, no eval of data; what is said goes through `Say`, the audit or the command line."""
    loud = re.compile(r"^\s*print\(", re.M)
    unsafe = re.compile(r"\b(pickle|eval\(|exec\(|torch\.load\(|yaml\.load\()")
    for path in FILES:
        name, text = str(path.relative_to(PACKAGE)), path.read_text("utf-8")
        code = "\n".join(line.partition("#")[0] for line in text.splitlines())
        if room(path) == "assets":
            continue
        assert "import *" not in code, name
        code = code.replace(".eval()", "").replace("model.eval(", "")
        assert not unsafe.search(code), f"{name}: {unsafe.search(code)}"
        if room(path) not in ("cli",) and "file=sys.stderr" not in text:
            assert not loud.search(code), name


# Settings


FROZEN_KEYS = re.findall(
    r"\S+",
    """
    conditioning.ask conditioning.context_gradient conditioning.draft_cap conditioning.dropout conditioning.separator
    conditioning.strategy
    conditioning.style
    data.bad_rows data.by data.columns data.format data.group data.limit data.responses data.source data.split
    data.validation
    data.validation_fraction data.validation_rows
    lora.alpha lora.dropout lora.quantize lora.rank lora.targets
    model objective.name output recipe reference
    rendering.max_length rendering.overlong rendering.score_eos rendering.template
    intents.candidates intents.classify intents.expectation intents.gradient intents.kl intents.loss
    intents.module intents.module_rate intents.names intents.prior intents.show intents.similarity intents.soft
    intents.table intents.threshold intents.words
    scores.attributes scores.layers scores.normal scores.ranges scores.sense scores.show scores.wording
    seed
    training.adam_betas training.batch_size training.best_metric training.clip training.collapse_nats
    training.deterministic training.epochs training.eval_every training.gradient_checkpointing
    training.keep_checkpoints training.kl_rows training.layout training.learning_rate training.log_every
    training.max_steps training.min_lr_ratio training.optimizer training.patience training.precision training.save_every
    training.schedule training.token_budget training.track training.warmup training.weight_decay
    trust_remote_code
    """,
)


def every_key() -> list[str]:
    return sorted(full for fulls in settings.keys().values() for full in fulls)


def test_settings_are_the_promised_ones() -> None:
    """A key that goes or changes its name breaks people's files: change this list knowingly, with the changelog."""
    assert every_key() == sorted(FROZEN_KEYS)


@pytest.mark.parametrize("key", FROZEN_KEYS)
def test_every_setting_is_read_by_somebody(key: str) -> None:
    """Contract 11: outside the file that declares it, and by name."""
    section, _, name = key.rpartition(".")
    holders = {"training": "(t|training)", "data": "(d|data)", "lora": "(lo|lora)", "objective": "objective",
               "scores": "(how|scores)", "intents": "(how|intents)"}  # fmt: skip
    reading = re.compile(rf"\b{holders.get(section, '(settings|given|made)')}\.{name}\b")
    if section == "conditioning":  # handed on as it is, to a dataclass of the same fields
        assert name in inspect.signature(Conditioning).parameters
        reading = re.compile(r"settings\.conditioning\.model_dump\(\)")
    if section == "rendering":  # handed on as it is, to a class that takes no other key
        assert name in inspect.signature(Renderer).parameters
        reading = re.compile(r"settings\.rendering\.model_dump\(\)")
    declared = PACKAGE / "training" / "settings.py"
    assert any(reading.search(p.read_text("utf-8")) for p in FILES if p != declared), f"nobody reads {key}"


def test_hyper_parameters_never_share_a_name_with_a_setting() -> None:
    """`beta=0.1` on the command line must mean one thing."""
    names = {key.rpartition(".")[2] for key in FROZEN_KEYS}
    for objective in OBJECTIVES.values():
        assert not names & set(objective.defaults), objective.name


# Public names


FROZEN_NAMES = [
    "Demonstration",
    "Labelled",
    "LoRA",
    "Message",
    "OBJECTIVES",
    "Outcome",
    "PluralignError",
    "Policy",
    "Preference",
    "Ranked",
    "Term",
    "align",
    "compare",
    "evaluate",
    "load",
    "report",
]
FROZEN_SIGNATURES = {
    "align": ["policy", "data", "recipe", "output", "plan", "objective", "say", "command", "settings"],
    "evaluate": ["policies", "data", "reference", "limit", "output", "split", "token_budget", "progress"],
}


def test_public_names_are_the_promised_ones() -> None:
    assert sorted(set(pluralign.__all__) - {"__version__"}) == sorted(FROZEN_NAMES)
    for name in FROZEN_NAMES:
        assert getattr(pluralign, name) is not None
    for name, parameters in FROZEN_SIGNATURES.items():
        assert list(inspect.signature(getattr(pluralign, name)).parameters) == parameters


def test_every_public_object_says_what_it_is() -> None:
    for name in FROZEN_NAMES:
        if name != "OBJECTIVES":
            assert (getattr(pluralign, name).__doc__ or "").strip(), name


def test_every_recipe_uses_a_registered_objective() -> None:
    assert {r.preset["objective"]["name"] for r in recipes().values()} <= set(OBJECTIVES)
