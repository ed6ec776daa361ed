"""One pair from its JSON line to a gradient, with every tensor on the way. Prints the blocks of docs/tour.md.

    python docs/tour.py            # print them
    python docs/tour.py --write    # put them into docs/tour.md

Blocks in IDS follow from the text and the tokenizer alone; those in WEIGHTS also depend on the embedded model.
tests/docs/test_docs.py compares the page with what this file computes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pluralign.data import load
from pluralign.objectives import OBJECTIVES
from pluralign.policy import EMBEDDED, Policy
from pluralign.records import Preference
from pluralign.scoring.attention import trie_mask
from pluralign.scoring.forward import Readings, forward
from pluralign.scoring.layout import lay_rows
from pluralign.terms import pair
from pluralign.training.batch import Collator, Micro, by_name
from pluralign.training.examples import Example, render_examples

PAGE = Path(__file__).with_name("tour.md")
ROW = {
    "prompt": "How long do I boil an egg?",
    "chosen": "Boil it for eight minutes, then cool it.",
    "rejected": "Boil it.",
}
BETA, RATE = 0.1, 1e-2
IDS = ("record", "terms", "tokens", "row", "trie", "mask", "scored", "loss")
WEIGHTS = ("readings", "layouts", "gradient", "step")


@dataclass
class Stations:
    """Everything the pair became; what each block prints from."""

    policy: Policy
    record: Preference
    example: Example
    cells: dict[str, Any]
    micro: Micro
    readings: Readings
    rows: Readings
    loss: Tensor
    by_sum: dict[str, float]
    norms: list[tuple[str, float]]
    before: dict[str, float]
    after: dict[str, float]
    loss_after: float


def travel() -> Stations:
    """Take the pair through the same functions as a run: load, render, lay out, read, lose, differentiate, step."""
    policy = Policy.load("embedded", precision="fp32", device="cpu")
    record: Any = next(iter(load([ROW])))
    plan: Any = pair
    with tempfile.TemporaryDirectory() as folder:
        examples = render_examples([record], plan, policy.renderer, folder=Path(folder))
        example, cells = examples[0], {n: examples.table[n][0].as_py() for n in ("contexts", "targets", "terms")}
    names = examples.named("policy")
    first = Collator(names, "trie", 8192, {}).micro([example])
    with torch.no_grad():
        reference = forward(policy.model, first.layout).sum.numpy()
        rows = forward(policy.model, lay_rows([example.sequences[n] for n in names]))
    given = {f"ref_{n}": np.array([reference[i]]) for i, n in enumerate(names)}
    micro = Collator(names, "trie", 8192, given).micro([example])
    readings = forward(policy.model, micro.layout)
    named = {**by_name(readings, micro.index), **micro.given}
    for n in names:
        named[n].sum.retain_grad()
    loss = OBJECTIVES["dpo"](named, beta=BETA).loss
    loss.sum().backward()
    by_sum = {n: float(named[n].sum.grad) for n in names}
    norms = [(n, float(p.grad.norm())) for n, p in policy.model.named_parameters() if p.grad is not None]
    before = {n: float(named[n].sum.detach()) for n in names}
    with torch.no_grad():
        for p in policy.model.parameters():
            p -= RATE * p.grad
        stepped = {**by_name(forward(policy.model, micro.layout), micro.index), **micro.given}
    after = {n: float(stepped[n].sum) for n in names}
    again = float(OBJECTIVES["dpo"](stepped, beta=BETA).loss)
    return Stations(
        policy, record, example, cells, micro, readings, rows, loss.detach(), by_sum, norms, before, after, again
    )


# Blocks


def record(s: Stations) -> list[str]:
    out = [json.dumps(ROW), "", f"{type(s.record).__name__}("]
    out += [f"  {name}={getattr(s.record, name)!r}," for name in ("prompt", "chosen", "rejected")]
    return [*out, "  margin=None, weight=1.0, ...)"]


def terms(s: Stations) -> list[str]:
    which = ["chosen" if t.target == s.record.chosen else "rejected" for t in pair(s.record)]
    return [
        f'Term("{t.name}", context=(ex.prompt,), target=ex.{w}, by="{t.by}")'
        for t, w in zip(pair(s.record), which, strict=True)
    ]


def tokens(s: Stations) -> list[str]:
    out = []
    for shown in s.policy.renderer.spans(list(pair(s.record)))[:2]:
        cut = len(shown.rendered.context)
        roles = [span.role for span in shown.spans for _ in range(span.start, span.end)]
        parts = [(0, cut, "context")] if shown.rendered.name == "w" else []
        for start, stop, what in [*parts, (cut, len(shown.rendered), f"target of {shown.rendered.name}")]:
            cells = [(str(shown.rendered.ids[k]), shown.tokens[k], roles[k]) for k in range(start, stop)]
            out += [f"{what} ({stop - start} tokens)", *_columns(cells), ""]
    return out[:-1]


def _columns(cells: Sequence[tuple[str, str, str]], per_line: int = 7) -> list[str]:
    """ids above characters above roles, in lines of a few tokens."""
    out = []
    for at in range(0, len(cells), per_line):
        part = [(i, repr(t)[1:-1].replace(" ", "␣"), r) for i, t, r in cells[at : at + per_line]]
        for row in zip(*part, strict=True):
            out.append("  " + "  ".join(c.ljust(max(map(len, part[j]))) for j, c in enumerate(row)).rstrip())
    return out


def row(s: Stations) -> list[str]:
    names = [t.name for t in pair(s.record)]
    pairs = [tuple(s.cells["terms"][3 * i + 1 : 3 * i + 3]) for i in range(len(names))]  # after the number of its name
    sizes = ", ".join(str(len(t)) for t in s.cells["targets"])
    return [
        f"contexts  {len(s.cells['contexts'])} list of {len(s.cells['contexts'][0])} ids",
        f"targets   {len(s.cells['targets'])} lists of {sizes} ids",
        f"terms     {s.cells['terms']}",
        "          " + "   ".join(f"{n} = context {c} + target {t}" for n, (c, t) in zip(names, pairs, strict=True)),
    ]


def _texts(s: Stations) -> list[str]:
    ids = s.micro.layout.input_ids[0].tolist()
    return [s.policy.tokenizer.decode([i]).replace(" ", "␣") for i in ids]


def trie(s: Stations) -> list[str]:
    layout, texts = s.micro.layout, _texts(s)
    assert layout.trie is not None
    head = " k    id  token          position  end[k]"
    lines = [
        f"{k:2d}  {i:4d}  {texts[k]:<13}  {p:8d}  {e:6d}"
        for k, (i, p, e) in enumerate(
            zip(layout.input_ids[0].tolist(), layout.position_ids[0].tolist(), layout.trie.end.tolist(), strict=True)
        )
    ]
    padded = s.micro.layout.lengths.numel() * max(len(x.context) + len(x.target) for x in _own(s))
    unshared = sum(len(x.context) + len(x.target) for x in _own(s))
    return [
        head,
        *lines,
        "",
        f"own tokens of each sequence, in the order they lie: {layout.trie.queries}",
        f"the path of each: {layout.trie.paths}",
        f"{layout.tokens} tokens computed; {unshared} without sharing, {padded} in padded rows",
    ]


def _own(s: Stations) -> list[Any]:
    return [s.example.sequences[n] for n in s.micro.index]


def mask(s: Stations) -> list[str]:
    assert s.micro.layout.trie is not None
    seen = trie_mask(s.micro.layout.trie.end)
    return [
        f"{q:2d} {text:<13} " + "".join("#" if x else "." for x in seen[q].tolist()) for q, text in enumerate(_texts(s))
    ]


def scored(s: Stations) -> list[str]:
    layout = s.micro.layout
    out = []
    for i, name in enumerate(s.micro.index):
        at = (layout.segment == i).nonzero()[:, 0]
        out += [f"{name}  predict {layout.predict[at].tolist()}", f"   labels  {layout.labels[at].tolist()}"]
    return [*out, f"lengths {layout.lengths.tolist()}, M = {len(layout.labels)} scored tokens"]


def readings(s: Stations) -> list[str]:
    out = [f"embedded model {weights_digest()}"]
    tokens = s.readings.tokens.detach()
    for i, name in enumerate(s.micro.index):
        own = tokens[s.readings.segment == i].tolist()
        out.append(f"{name}  tokens  " + " ".join(f"{x:.2f}" for x in own))
        out.append(f"   sum {s.before[name]:.3f} nats over {int(s.readings.length[i])} tokens, "
                   f"mean {s.before[name] / int(s.readings.length[i]):.3f}")  # fmt: skip
    return out


def layouts(s: Stations) -> list[str]:
    worst = float((s.readings.tokens.detach() - s.rows.tokens).abs().max())
    bound = next(b for b in (1e-6, 1e-5, 1e-4, 1e-3, 1.0) if worst < b)
    return [f"largest difference between the two layouts: below {bound:g} nats a token"]


def loss(s: Stations) -> list[str]:
    return [
        f"rho = 0, loss = -log sigma(0) = {float(s.loss):.6f} = ln 2",
        f"d loss / d log pi(y_w|x) = {s.by_sum['w']:+.6f} = -beta sigma(-beta rho)",
        f"d loss / d log pi(y_l|x) = {s.by_sum['l']:+.6f}",
    ]


def gradient(s: Stations) -> list[str]:
    total = sum(n**2 for _, n in s.norms) ** 0.5
    top = sorted(s.norms, key=lambda x: -x[1])[:3]
    return [f"norm of the whole gradient {total:.3f}; the largest parts"] + [f"  {n:.3f}  {name}" for name, n in top]


def step(s: Stations) -> list[str]:
    out = [f"{n}  sum {s.before[n]:.3f} -> {s.after[n]:.3f}" for n in s.micro.index]
    rho = (s.after["w"] - s.before["w"]) - (s.after["l"] - s.before["l"])
    return [*out, f"rho {rho:.3f}, loss {s.loss_after:.4f}"]


def weights_digest() -> str:
    """The first figures of the sha256 of the embedded weights."""
    return hashlib.sha256((EMBEDDED / "model.safetensors").read_bytes()).hexdigest()[:12]


BLOCKS: dict[str, Callable[[Stations], list[str]]] = {name: globals()[name] for name in (*IDS, *WEIGHTS)}


def blocks() -> dict[str, str]:
    """Every block of the page by name."""
    stations = travel()
    return {name: "\n".join(line.rstrip() for line in make(stations)) for name, make in BLOCKS.items()}


def on_page(text: str) -> dict[str, str]:
    """The blocks as the page has them."""
    return dict(re.findall(r"<!-- tour:(\w+) -->\n```text\n(.*?)\n```\n<!-- /tour -->", text, flags=re.S))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the blocks into docs/tour.md")
    made = blocks()
    if not parser.parse_args().write:
        for name, text in made.items():
            print(f"--- {name}\n{text}\n")
        return
    page = PAGE.read_text("utf-8")
    for name, text in made.items():
        pattern = rf"(<!-- tour:{name} -->\n```text\n).*?(```\n<!-- /tour -->)"
        page, found = re.subn(pattern, lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.S)
        if found != 1:
            raise SystemExit(f"{PAGE.name} has {found} blocks tour:{name}, not one.")
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
