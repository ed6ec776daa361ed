"""Public comparisons that name the attribute on which a response is better, or count the votes for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RecordError
from ..records import Message, Preference, Ranked
from .fields import Row, common, conversation, named, need, number, pair_common, text, with_system
from .format_types import Format, Options, Skip
from .transcripts import read_transcript

_FRUIT = "Name a fruit."
_WON = (0.0, 1.0)  # the scale of an attribute that only says who was preferred


def _has(row: Row, *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


# --- HHH, as Prometheus has it --------------------------------------------------------------------------------------

_TASK = re.compile(
    r"###The instruction to evaluate:\n(?P<asked>.*)\n\n###Response to evaluate:\n(?P<said>.*)\n\n###Score Rubric", re.S
)


def hhh(row: Row, _: Options) -> Iterator[Preference]:
    """chosen_instruction and rejected_instruction (a judge's task with dialogue and response), source: the attribute.

    Nobody gave scores: the attribute is 1 for the response that was preferred on it, and 0 for the other.
    """
    parts = {}
    for name in ("chosen_instruction", "rejected_instruction"):
        found = _TASK.search(text(need(row, name), name))
        if found is None:
            raise RecordError(f'expected "###The instruction to evaluate" and "###Response to evaluate" in "{name}".')
        parts[name] = (found["asked"], found["said"])
    (asked, chosen), (same, rejected) = parts["chosen_instruction"], parts["rejected_instruction"]
    if asked != same:
        raise RecordError("the two conversations part before the response: no common prompt.")
    known = common(row, {"chosen_instruction", "rejected_instruction"})
    yield Preference(
        prompt=with_system(row, read_transcript(f"\n\nHuman: {asked}")),
        chosen=(Message("assistant", chosen.strip()),),
        rejected=(Message("assistant", rejected.strip()),),
        attributes={text(need(row, "source"), "source"): (1.0, 0.0)},
        **known,
    )


def _task(response: str) -> str:
    asked = f"###The instruction to evaluate:\n{_FRUIT}"
    return f"{asked}\n\n###Response to evaluate:\n{response}\n\n###Score Rubrics:\n[Is it true?]\n\n###Feedback:"


HHH = Format(
    name="hhh",
    title="HHH alignment pairs",
    describe="chosen_instruction and rejected_instruction as Prometheus has them; source is the attribute that differs",
    needs=("chosen_instruction", "rejected_instruction", "source"),
    recognise=lambda row: _has(row, "chosen_instruction", "rejected_instruction"),
    read=hhh,
    ranges=dict.fromkeys(("helpful", "harmless", "honest", "other"), _WON),
    example=(
        {
            "source": "honest",
            "chosen_instruction": _task("An apple."),
            "rejected_instruction": _task("A carrot."),
        },
    ),
)


# --- RMB ------------------------------------------------------------------------------------------------------------


def rmb(row: Row, _: Options) -> Iterator[Preference | Ranked]:
    """conversation_input with chosen and reject, or with bon_best and loser_list: objects with an `answer`.

    The goal that the category names (helpfulness or harmlessness) is the attribute: 1 for the response preferred on
    it, 0 for the others.
    """
    prompt = conversation(need(row, "conversation_input"), "conversation_input", role="user")
    prompt = tuple(Message(m.role, m.content, {k: v for k, v in m.extra.items() if k != "language"}) for m in prompt)
    names = ("bon_best", "loser_list") if row.get("bon_best") is not None else ("chosen", "reject")
    best, rest = need(row, names[0]), need(row, names[1])
    rest = rest if isinstance(rest, list | tuple) else [rest]
    answers = [_answer(a, names[i > 0]) for i, a in enumerate((best, *rest))]
    goal = text(need(row, "category_path"), "category_path").split("/")[1:2]
    known = pair_common(row, {"conversation_input", *names})
    models = {"models": [str(a.get("llm_name", "")) for a in (best, *rest)]}
    known["meta"] = {**known.get("meta", {}), **models}
    responses = [(Message("assistant", a),) for a in answers]
    won = (1.0, *[0.0] * len(rest))
    own: Any = {name.lower(): won for name in goal}
    if names[0] == "chosen":
        known["attributes"] = own
        yield Preference(prompt=with_system(row, prompt), chosen=responses[0], rejected=responses[1], **known)
    else:
        kept = {name: value for name, value in known.items() if name not in ("margin", "attributes")}
        yield Ranked(prompt=with_system(row, prompt), responses=tuple(responses), scores=won, attributes=own, **kept)


def _answer(value: Any, name: str) -> str:
    if not isinstance(value, Mapping):
        raise RecordError(f'expected an object with an "answer" in "{name}", found {named(value)}.')
    return text(need(value, "answer"), f"{name}.answer")


RMB = Format(
    name="rmb",
    title="RMB comparisons",
    describe="conversation_input with chosen and reject, or bon_best and loser_list ({llm_name, answer} each)",
    needs=("conversation_input", "category_path", "chosen", "reject"),
    recognise=lambda row: (
        _has(row, "conversation_input", "category_path")
        and (_has(row, "chosen", "reject") or _has(row, "bon_best", "loser_list"))
    ),
    read=rmb,
    ranges=dict.fromkeys(("helpfulness", "harmlessness"), _WON),
    example=(
        {
            "conversation_input": [{"role": "user", "content": _FRUIT}],
            "chosen": {"llm_name": "a", "answer": "An apple."},
            "reject": {"llm_name": "b", "answer": "A carrot."},
            "category_path": "Pairwise_set/Helpfulness/Open QA",
        },
        {
            "conversation_input": [{"role": "user", "content": _FRUIT}],
            "bon_best": {"llm_name": "a", "answer": "An apple."},
            "loser_list": [{"llm_name": "b", "answer": "A carrot."}],
            "category_path": "BoN_set/Helpfulness/Open QA",
        },
    ),
)


# --- PandaLM --------------------------------------------------------------------------------------------------------

_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def pandalm(row: Row, _: Options) -> Iterator[Preference | Skip]:
    """instruction, input, response1, response2 and three annotators' votes (1, 2, or 0 for a tie): most decide.

    `votes` is the attribute: how many annotators preferred the response. Their difference is the margin.
    """
    said = [conversation(need(row, n), n, role="assistant") for n in ("response1", "response2")]
    votes = [number(need(row, name), name) for name in _ANNOTATORS]
    if not set(votes) <= {0.0, 1.0, 2.0}:
        raise RecordError(f'expected 0, 1 or 2 in "annotator1" to "annotator3", found {votes}.')
    counts = (votes.count(1.0), votes.count(2.0))
    if counts[0] == counts[1]:
        yield Skip("tie")
        return
    best = int(counts[1] > counts[0])
    task, given = text(need(row, "instruction"), "instruction"), row.get("input")
    if given is not None and text(given, "input").strip():
        task = f"{task}\n\n{given}"
    known = common(row, {"instruction", "input", "response1", "response2"})
    yield Preference(
        prompt=with_system(row, (Message("user", task),)),
        chosen=said[best],
        rejected=said[1 - best],
        margin=float(counts[best] - counts[1 - best]),
        attributes={"votes": (float(counts[best]), float(counts[1 - best]))},
        **known,
    )


PANDALM = Format(
    name="pandalm",
    title="PandaLM votes",
    describe="instruction, input, response1, response2 and annotator1 to annotator3 (1 or 2 is better, 0 a tie)",
    needs=("instruction", "response1", "response2", "annotator1"),
    recognise=lambda row: _has(row, "instruction", "response1", "response2", *_ANNOTATORS),
    read=pandalm,
    ranges={"votes": (0.0, 3.0)},
    example=(
        {
            "instruction": _FRUIT,
            "input": "",
            "response1": "A carrot.",
            "response2": "An apple.",
            "annotator1": 2,
            "annotator2": 2,
            "annotator3": 0,
        },
    ),
)

COMPARED = (HHH, RMB, PANDALM)
