"""Data of the SGA study's second part: one world in which scores can be obeyed, one in which prompts tell them.

`short_world`: short prompts and short responses, rated as in sga_data. What is taught is varied by a `Rung`.
`told_world`: instructions and whole responses, whose length and form an instruction does say something about.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sga_data import NAMES, PAIRS, SOURCES, TOP, _key, _part, _ranges, _short, raw, same, truth

from pluralign import load
from pluralign.api import HELD_OUT
from pluralign.assets.corpus import read_jsonl
from pluralign.curate.measured import measure
from pluralign.policy import Policy
from pluralign.records import Demonstration, Message, Messages, Preference

__all__ = [
    "LONGER",
    "ONE_AUTHOR",
    "RIVALS",
    "RUNGS",
    "TOLD",
    "Rung",
    "Short",
    "Told",
    "beginnings",
    "short_world",
    "state_ridge",
    "tfidf_ridge",
    "told_world",
]

WORDS, PROMPT = (3, 24), 15  # words of a response that is imitated, the most of a prompt
TOLD = ("words", "list_items", "first_person")
INSTRUCTIONS = ("ultrafeedback_slice/clean_1000.jsonl.gz", "ultrafeedback_slice/eval_200.jsonl.gz",
                "llamafactory_demo/dpo_en_demo.jsonl.gz", "tulu3_samples/preference_sample.jsonl.gz")  # fmt: skip
ONE_AUTHOR = "told by one author"
# whose answers that measures, GPT-4's: (questions, their key, answers, the question's key there, his name there)
ANSWERED = (
    ("benchmark_questions/flask_evaluation", "idx", "text_dialogue/flask_outputs", "question_id", "gpt4"),
    ("benchmark_questions/arena_bench_v1_question", "question_id", "text_dialogue/arena_bench_v1_answers",
     "question_id", "gpt-4-0314"),
    ("benchmark_questions/arena_hard_v0.1_question", "uid", "benchmark_questions/arena_hard_v0.1_answer_gpt-4-0314",
     "uid", "gpt-4-0314"),
    (None, "instruction", "text_dialogue/alpaca_eval_outputs", "instruction", "gpt4"),
)  # fmt: skip
OPENING = 5  # words by which instructions of one template are told
MOST_TOKENS = 160  # of an instruction that is written without blanks
MOST_INSTRUCTION, SHOWN = 60, 10  # words of an instruction, and of the response's beginning that is imitated
ENDS = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Rung:
    """How SGA_SFT is taught.

    `names`: the attributes that stand in the prompt, and that the head senses. `whole`: ratings are rounded to 0, 1, 2,
    3, 4, as HelpSteer2's are. `both`: both responses of a pair are imitated, each under its own ratings, or the chosen
    one alone. `begun`: so is every beginning of a response that ends a sentence, under the beginning's own ratings.
    """

    names: tuple[str, ...] = ("length",)
    whole: bool = True
    both: bool = True
    begun: bool = True
    steps: int = 240


LONGER = "three attributes, longer"
RUNGS = {  # the setting of the page, what it is compared with at equal steps, and three attributes for longer
    "setting": Rung(steps=400),
    "fewer steps": Rung(),
    "three attributes": Rung(names=NAMES),
    LONGER: Rung(names=NAMES, steps=1600),
    "decimals": Rung(whole=False),
    "chosen alone": Rung(both=False),
    "whole responses": Rung(begun=False),
    "as in the first part": Rung(NAMES, False, False, False),
}
RIVALS = {"SteerLM": "steerlm", "RiC": "ric", "CPSFT": "cpo_sft"}  # recipes, on the rows and steps of LONGER


@dataclass(frozen=True)
class Short:
    """Rows to train on, the held-out prompts that are answered, and held-out responses with their attributes (N, K)."""

    rows: list[Demonstration]
    ranges: dict[str, tuple[float, float]]
    prompts: list[Messages]
    held: list[tuple[Messages, Messages]]
    truth: np.ndarray


def short_world(shared: Path, rung: Rung) -> Short:
    """The pairs of sga_data's sources with prompts of PROMPT words at most; policies' prompts by the same hash."""
    held = _short(load(str(HELD_OUT), kind=Preference), np.inf, PROMPT)
    known = {_key(p) for p in held}
    pool = [p for source in (PAIRS, *(shared / s for s in SOURCES))
            for p in _short(load(str(source), kind=Preference, bad_rows="quarantine"), np.inf, PROMPT)]  # fmt: skip
    own = [p for p in pool if _key(p) not in known and _part(_key(p)) == "policy"]
    ranges = _ranges([p for p in own if all(_fits(r[-1].content) for r in (p.chosen, p.rejected))])
    found: dict[tuple[str, str], Demonstration] = {}
    for pair in own:
        sides = sorted((pair.chosen, pair.rejected), key=lambda r: -sum(_known(r[-1].content, ranges)))
        for response in sides if rung.both else sides[:1]:
            whole = response[-1]
            for text in beginnings(whole.content) if rung.begun else [whole.content]:
                if _fits(text) and (values := rated(text, ranges, rung)):
                    found[_key(pair), text] = Demonstration(
                        prompt=pair.prompt, response=(replace(whole, content=text),), attributes=values
                    )
    once = {_key(p): p for p in held}.values()
    fitting = [[r for r in (p.chosen, p.rejected) if _fits(r[-1].content)] for p in once]
    read = [(p.prompt, fit[0]) for p, fit in zip(once, fitting, strict=True) if fit]  # one a prompt
    true = np.array([truth(r[-1].content, ranges) for _, r in read])
    return Short(list(found.values()), ranges, [p.prompt for p in once], read, true)


def beginnings(text: str) -> list[str]:
    """Every beginning of a text that ends where a sentence does; the whole text is the last.

    >>> beginnings("Yes. Why do you ask? I am curious.")
    ['Yes.', 'Yes. Why do you ask?', 'Yes. Why do you ask? I am curious.']
    """
    parts = ENDS.split(text.strip())
    return [" ".join(parts[:k]) for k in range(1, len(parts))] + [text.strip()]


def rated(text: str, ranges: dict[str, tuple[float, float]], rung: Rung) -> dict[str, float]:
    """Ratings from 0 to TOP of the rung's attributes; none where one has no value."""
    units = dict(zip(NAMES, truth(text, ranges), strict=True))
    if any(u != u for u in units.values()):
        return {}
    return {n: float(round(TOP * units[n])) if rung.whole else round(TOP * units[n], 3) for n in rung.names}


def _known(text: str, ranges: dict[str, tuple[float, float]]) -> list[float]:
    return [0.0 if u != u else u for u in truth(text, ranges)]


def _fits(text: str) -> bool:
    n = measure(["words"], text)["words"]
    return WORDS[0] <= n <= WORDS[1] and len(raw(text)) == len(NAMES)


@dataclass(frozen=True)
class Told:
    """Instructions with attributes of the whole response on [0, 1], (N, K), about every fourth prompt held out."""

    rows: list[Demonstration]
    known: np.ndarray
    prompts: list[Messages]
    truth: np.ndarray


def told_world(shared: Path, one_author: bool = False) -> Told:
    """Single turns of up to MOST_INSTRUCTION words. What is imitated is cut to SHOWN words, what is sensed is not.

    The chosen responses of preference sets, by whoever wrote them, or `one_author`'s answers to public questions. These
    have templates: instructions that begin with the same OPENING words are all held out, or none is.
    """
    once: dict[str, tuple[Messages, Message]] = {}
    for pair in _by_author(shared) if one_author else _by_many(shared):
        if len(pair[0][0].content.split()) <= MOST_INSTRUCTION:
            once.setdefault(same(pair[0][0].content), pair)
    raws = {key: _counts(said.content) for key, (_, said) in once.items()}
    keys = [k for k in once if not np.isnan(raws[k]).any()]
    alike = [" ".join(k.split()[:OPENING]) for k in keys] if one_author else keys
    held = np.array([int(hashlib.sha1(k.encode()).hexdigest()[:4], 16) % 4 == 0 for k in alike])
    table = np.array([raws[k] for k in keys])
    low, high = np.quantile(table[~held], [0.05, 0.95], axis=0)
    units = np.clip((table - low) / (high - low), 0, 1)
    rows = [_cut(*once[k], u) for k, u, out in zip(keys, units.tolist(), held, strict=True) if not out]
    prompts = [once[k][0] for k, out in zip(keys, held, strict=True) if out]
    return Told(rows, units[~held], prompts, units[held])


def _by_many(shared: Path) -> Iterator[tuple[Messages, Message]]:
    for source in INSTRUCTIONS:
        pairs: Iterable[Any] = load(str(shared / source), kind=Preference, bad_rows="quarantine")
        yield from ((pair.prompt, pair.chosen[-1]) for pair in pairs if len(pair.prompt) == 1)


def _by_author(shared: Path) -> Iterator[tuple[Messages, Message]]:
    for questions, key, answers, of, name in ANSWERED:
        asked = (
            {row[key]: _question(row) for row in read_jsonl(shared / f"{questions}.jsonl.gz")} if questions else None
        )
        for row in read_jsonl(shared / f"{answers}.jsonl.gz"):
            if name in (row.get("_system"), row.get("model")):
                question = row[of] if asked is None else asked[row[of]]
                yield (Message("user", question.strip()),), Message("assistant", _answer(row).strip())


def _question(row: dict[str, Any]) -> str:
    found = row.get("instruction") or row.get("prompt") or row["turns"][0]
    return str(found)


def _answer(row: dict[str, Any]) -> str:
    """As FLASK, AlpacaEval, arena-bench and Arena-Hard have it."""
    if "messages" in row:
        return str(row["messages"][-1]["content"]["answer"])
    return str(row["choices"][0]["turns"][0]) if "choices" in row else str(row.get("text") or row["output"])


def _counts(text: str) -> list[float]:
    found = measure(list(TOLD), text)
    return [found.get(n, np.nan) if n == "first_person" else float(np.log2(1 + found[n])) for n in TOLD]


def _cut(prompt: Messages, said: Message, units: Sequence[float]) -> Demonstration:
    short = replace(said, content=" ".join(said.content.split()[:SHOWN]))
    values = {n: round(TOP * u, 3) for n, u in zip(TOLD, units, strict=True)}
    return Demonstration(prompt=prompt, response=(short,), attributes=values)


def tfidf_ridge(told: Told) -> np.ndarray:
    """(N, K): what a ridge on the held-out prompts' words and pairs of words foretells, its penalty by leave-one-out.

    It says how much of an attribute is in the prompt for a model that has never seen other text.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|\?")
    x = words.fit_transform([r.prompt[-1].content for r in told.rows])
    held = words.transform([p[-1].content for p in told.prompts])
    each = [RidgeCV(alphas=np.logspace(-1, 3, 13)).fit(x, y).predict(held) for y in told.known.T]
    return np.clip(np.stack(each, axis=1), 0, 1)


def state_ridge(told: Told, policy: Policy) -> dict[str, np.ndarray]:
    """The same from a model's last layer: "last", the state that a sensing head reads, and "mean", over the prompt's.

    (N, K) each. What a head could find without moving the model under it.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known, held = (_states(policy, prompts) for prompts in ([r.prompt for r in told.rows], told.prompts))
    out = {}
    for name, x in known.items():
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 16)))
        each = [ridge.fit(x, y).predict(held[name]) for y in told.known.T]
        out[name] = np.clip(np.stack(each, axis=1), 0, 1)
    return out


def _states(policy: Policy, prompts: Sequence[Messages]) -> dict[str, np.ndarray]:
    """(N, D) by name."""
    import torch

    found = []
    for prompt in prompts:
        ids = torch.tensor([policy.renderer.opened(prompt, (), "after")[0][-MOST_TOKENS:]])
        with torch.no_grad():
            found.append(policy.model.base_model(input_ids=ids).last_hidden_state[0].float())
    return {
        "last": torch.stack([h[-1] for h in found]).numpy(),
        "mean": torch.stack([h.mean(0) for h in found]).numpy(),
    }
