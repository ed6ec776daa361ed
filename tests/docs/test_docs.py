"""The documentation names only what exists: links, commands, settings, functions, tests, numbers."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.S | re.M)
ROW = re.compile(r"^\| `(\w+)` \|", flags=re.M)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def fences(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text("utf-8")) if kind == language]


def words(page: Path) -> set[str]:
    """What stands in backticks outside of blocks."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# Links and paths


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            assert path.startswith("https://"), target
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    path = re.compile(r"(?:[\w.]+/)+(?:[\w.]+\.(?:py|md|yaml|json))?")
    named = {word for word in words(page) if path.fullmatch(word) and not word.startswith(("runs/", "model/"))}
    found = {
        word for word in named if "NAME" in word or any((base / word).exists() for base in (ROOT, ROOT / "pluralign"))
    }
    assert named - found == set()


@pytest.mark.parametrize(
    "file",
    [*PAGES, *sorted((ROOT / "configs").iterdir()), *sorted((ROOT / "docs").glob("*.py"))],
    ids=name_of,
)
def test_no_path_of_somebody_s_machine(file: Path) -> None:
    assert re.findall(r"(?:/(?:work|home|root|tmp|venv|Users)/|[A-Z]:\\)\S*", file.read_text("utf-8")) == []


# Code


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of the README and of the how-to, in order, on a tiny model and made-up pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLURALIGN_CACHE", str(tmp_path / "cache"))
    tiny_model(tmp_path / "tiny")
    for name in ("pairs.jsonl", "heldout.jsonl"):
        rows = [{"prompt": f"{name} {i}?", "chosen": f"yes, {i}.", "rejected": f"no, not {i}."} for i in range(24)]
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    rated = [{**row, "attributes": {"helpfulness": [i % 5, 0]}} for i, row in enumerate(rows)]
    Path("rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    for page in ("README.md", "docs/howto.md"):
        blocks = fences(ROOT / page, "python")
        assert blocks, page
        namespace: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks:
            exec(compile(block.replace("Qwen/Qwen3-0.6B", "tiny"), page, "exec"), namespace)
    runs = {p.parent.name: json.loads(p.read_text())["status"] for p in Path("runs").glob("*/run.json")}
    assert runs == dict.fromkeys(("lora", "mine", "hinge", "asked", "sga"), "finished")
    assert Path("runs/hinge/report.html").is_file()


def tiny_model(folder: Path) -> None:
    """A one-layer Llama with the embedded tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from pluralign.policy import EMBEDDED

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@each_page
def test_python_blocks_compile(page: Path) -> None:
    for block in fences(page, "python"):
        compile(block, name_of(page), "exec")


@each_page
def test_yaml_blocks_are_settings(page: Path) -> None:
    from pluralign.api import settings_for

    for i, block in enumerate(fences(page, "yaml")):
        tree = yaml.safe_load(block)
        made, _ = settings_for({k: v for k, v in tree.items() if k != "recipe"})
        assert made.model == tree.get("model", made.model), (name_of(page), i)


# Commands


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in fences(page, "console"):
            yield from ((name_of(page), line[2:]) for line in block.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_exist(page: str, line: str) -> None:
    arguments = shlex.split(line, comments=True)
    match arguments:
        case ["make", target]:
            assert re.search(rf"^{target}\s*:", (ROOT / "Makefile").read_text(), flags=re.M), f"no target {target}"
        case ["pip", "install", extra]:
            named = re.fullmatch(r"(?:pluralign|\.)\[(\w+)\]", extra)
            assert named
            assert f"\n{named[1]} = [" in (ROOT / "pyproject.toml").read_text()
        case ["accelerate", "launch", *rest]:
            at = rest.index("-m")
            if "--config_file" in rest[:at]:
                assert (ROOT / rest[rest.index("--config_file") + 1]).is_file()
            assert rest[at + 1] == "pluralign"
            parse(rest[at + 2 :])
        case ["python", "bench/run.py", *rest]:
            known = set(re.findall(r'"(--[a-z-]+)"', (ROOT / "bench" / "run.py").read_text()))
            assert {word for word in rest if word.startswith("--")} <= known
        case ["pluralign", *rest]:
            parse(rest)
        case _:
            pytest.fail(f"{page}: not a command of ours: {line}")


def parse(arguments: list[str]) -> None:
    """The command with its options, as the command line would parse it; `align` down to its settings."""
    import typer

    from pluralign.api import settings_for
    from pluralign.cli import app
    from pluralign.cli.align import parse_words

    command: Any = typer.main.get_command(app)
    names = []
    while hasattr(command, "commands"):
        names.append(arguments[0])
        assert arguments[0] in command.commands, f"no command {' '.join(names)}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    context = command.make_context(" ".join(names), list(arguments))
    if names == ["align"] and not context.params["resume"]:
        given = [context.params["recipe"], *(context.params["settings"] or []), *context.args]
        source, overrides = parse_words([word for word in given if word])
        known = source if source and not source.endswith(".yaml") else "dpo"
        settings_for(known, {}, overrides)


@each_page
def test_settings_and_functions_that_are_named_exist(page: Path) -> None:
    from pluralign.training.settings import SECTIONS

    hyper = {"objective.beta", "objective.tau", "objective.gamma"}
    settings = {f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields} | hyper
    rooms = {p.stem for p in (ROOT / "pluralign").iterdir()}
    dotted = re.compile(r"([a-z_]+)((?:\.[A-Za-z_]+)+)(?:[=(].*)?")
    wrong = []
    for word in words(page):
        match = dotted.fullmatch(word)
        if match is None or match[1] not in rooms | set(SECTIONS):
            continue
        name = match[1] + match[2]
        if name not in settings and not (ROOT / "pluralign" / name).is_file() and not resolves(name):
            wrong.append(word)
    assert not wrong


def resolves(name: str) -> bool:
    """Whether `pluralign.name` is a module or stands in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        module = ".".join(["pluralign", *parts[:n]])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_the_public_names_exist() -> None:
    import pluralign as pa

    named = set(re.findall(r"\bpa\.(\w+)", "".join(p.read_text("utf-8") for p in PAGES)))
    assert {"load", "Policy", "align", "Term", "Outcome"} <= named
    assert [name for name in sorted(named) if not hasattr(pa, name)] == []


# What the pages promise


def test_the_tests_that_are_named_exist() -> None:
    """`tests/x/test_y.py::test_z`, `::test_z` after it in the same row, and bare `test_z`."""
    every = {f"{p.relative_to(ROOT).as_posix()}": p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py")}
    named, wrong = 0, []
    for page in PAGES:
        for line in prose(page).splitlines():
            file = ""
            for own, test in re.findall(r"`(tests/[\w/]+/test_\w+\.py)?(?:::)?(test_\w+)?`", line):
                file = own or file
                if not own and not test:
                    continue
                named += 1
                texts = [every.get(file, "")] if file else list(every.values())
                if (own and own not in every) or (test and not any(f"def {test}(" in text for text in texts)):
                    wrong.append((name_of(page), own or file, test))
    assert not wrong
    assert named > 30


def test_every_objective_and_recipe_has_its_row() -> None:
    from pluralign.objectives import OBJECTIVES
    from pluralign.recipes import recipes

    page = (ROOT / "docs" / "papers.md").read_text("utf-8")
    for objective in OBJECTIVES.values():
        place = f"`{objective.function.__module__.removeprefix('pluralign.')}.{objective.function.__name__}`"
        assert place in page, f"{place} is missing in docs/papers.md"
    for name, recipe in recipes().items():
        assert f"| `{name}` |" in page, f"the recipe {name} is missing in docs/papers.md"
        for paper in re.findall(r"arXiv (\d{4}\.\d{5})", recipe.paper):
            assert f"https://arxiv.org/abs/{paper}" in page


def test_every_reading_and_trie_architecture_is_counted() -> None:
    from pluralign.scoring.forward import READS
    from pluralign.scoring.support import TRIE_MODELS

    assert len(TRIE_MODELS) == 12  # README, papers.md, architecture.md and CHANGELOG.md say twelve
    notation = (ROOT / "docs" / "notation.md").read_text("utf-8")
    assert [name for name in READS if f"`{name}`" not in notation] == []


def test_rooms_import_only_what_stands_above() -> None:
    """The order of the table in docs/architecture.md; imports inside functions count."""
    order = ROW.findall((ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## What is promised")[0])
    package = ROOT / "pluralign"
    rooms = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__"} == set(order)
    allowed = {("policy", "steering")}  # `Policy.generate`, fetched when it is called
    wrong = []
    for file in sorted(package.rglob("*.py")):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for target in imported(file, package):
            if target in order and order.index(target) > order.index(room) and (room, target) not in allowed:
                wrong.append(f"{file.relative_to(ROOT)} imports {target}")
    assert not wrong


def imported(file: Path, package: Path) -> set[str]:
    """The rooms a file imports, outside of `if TYPE_CHECKING`."""
    tree = ast.parse(file.read_text("utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    own = ["pluralign", *file.relative_to(package).parts[:-1]]
    out = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            out |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("pluralign.")}
        elif isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            if module[:1] == ["pluralign"]:
                out |= {module[1]} if len(module) > 1 else {alias.name for alias in node.names}
    return out - {file.relative_to(package).parts[0].removesuffix(".py")}


def test_objectives_import_torch_and_nothing_of_ours() -> None:
    for file in (ROOT / "pluralign" / "objectives").glob("*.py"):
        assert imported(file, ROOT / "pluralign") == set(), file.name


def test_contributing_fits_on_a_page() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_accelerate_knows_every_key_of_the_configurations(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(file))  # raises for unknown keys at the top
    known = vars(launch_command_parser().parse_args(["script.py"]))
    inner = {**config.fsdp_config, **config.deepspeed_config}
    assert inner
    assert [key for key in inner if key not in known] == []
    assert config.num_processes == 8
    assert config.fsdp_config.get("fsdp_state_dict_type", "FULL_STATE_DICT") == "FULL_STATE_DICT"  # what can be loaded


# The tour


@pytest.fixture(scope="module")
def tour() -> Any:
    spec = importlib.util.spec_from_file_location("tour", ROOT / "docs" / "tour.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tour"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def blocks(tour: Any) -> dict[str, str]:
    return tour.blocks()


RENEW = "docs/tour.md is out of date: python docs/tour.py --write"
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def test_the_tour_shows_every_block_once(tour: Any) -> None:
    text = tour.PAGE.read_text("utf-8")
    assert re.findall(r"<!-- tour:(\w+) -->", text) == list(tour.on_page(text))
    assert set(tour.on_page(text)) == {*tour.IDS, *tour.WEIGHTS}


def test_what_follows_from_text_and_tokenizer_is_exact(tour: Any, blocks: dict[str, str]) -> None:
    page = tour.on_page(tour.PAGE.read_text("utf-8"))
    for name in tour.IDS:
        assert page[name] == blocks[name], RENEW


def test_what_depends_on_the_weights_is_near(tour: Any, blocks: dict[str, str]) -> None:
    """The words exactly, the numbers as far as processors agree."""
    page = tour.on_page(tour.PAGE.read_text("utf-8"))
    assert f"embedded model {tour.weights_digest()}" in page["readings"], RENEW
    for name in ("readings", "gradient", "step"):
        assert NUMBER.sub("#", page[name]) == NUMBER.sub("#", blocks[name]), RENEW
        shown, made = ([float(x) for x in NUMBER.findall(text)] for text in (page[name], blocks[name]))
        assert shown == pytest.approx(made, rel=0.01, abs=0.02), RENEW
    assert "below" in blocks["layouts"]
    assert float(re.findall(r"below (\S+)", blocks["layouts"])[0]) <= 1e-5
