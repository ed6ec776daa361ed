"""What is measured: a policy, or the answers that a file holds.

Files of answers: our own (`prompt`, `response`, as `pluralign generate --output` and answers.jsonl have them),
AlpacaEval's model_outputs.json (`instruction`, `output`), Arena-Hard's (`uid`, `messages`) and FastChat's
(`question_id`, `choices`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecordError, SettingsError
from .core import Open, Row
from .kept import digest_of
from .questions import read_rows

if TYPE_CHECKING:
    from ...policy import Policy

__all__ = ["Saved", "System", "answer_of", "open_system", "saved_answers"]

ANSWER_FILES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


@dataclass
class Saved:
    """Answers by a question's id and by its first turn (blanks at the ends do not count)."""

    by_id: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_prompt: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def find(self, item: Open) -> tuple[str, ...] | None:
        """The answers to an item, one a turn; None where there are none for every turn."""
        found = self.by_id.get(item.id) or self.by_prompt.get(item.turns[0].strip())
        return found[: len(item.turns)] if found and len(found) >= len(item.turns) else None


@dataclass
class System:
    """A policy that is loaded when it is needed, or saved answers. `model` is what was named on the command line."""

    name: str
    model: str = ""
    saved: Saved | None = None
    trust_remote_code: bool = False
    loaded: Any = None

    @cached_property
    def policy(self) -> Policy:
        """The policy. Raises SettingsError for saved answers, which have no log-probs."""
        if self.saved is not None:
            raise SettingsError(f"{self.name} is a file of answers; this needs a model.")
        if self.loaded is not None:
            policy: Policy = self.loaded
            return policy
        from ...policy import Policy as Loaded

        return Loaded.load(self.model, trust_remote_code=self.trust_remote_code)

    @cached_property
    def key(self) -> str:
        """A digest of everything that its answers depend on."""
        if self.saved is not None:
            return digest_of([self.saved.by_id, self.saved.by_prompt])
        from ...judging.answers import policy_key

        return policy_key(self.policy)


def open_system(name: str, model: str, *, trust_remote_code: bool = False) -> System:
    """A system by what was named: a file of answers, else a model. Raises RecordError for a file that is no such."""
    path = Path(model)
    if path.is_file() and path.name.endswith(ANSWER_FILES):
        return System(name, model, saved_answers(path))
    if model.endswith(ANSWER_FILES):
        raise SettingsError(f"{model}: no such file.")
    return System(name, model, trust_remote_code=trust_remote_code)


def saved_answers(path: str | Path, rows: list[Row] | None = None) -> Saved:
    """The answers of a file, or of rows that were read from one.

    Raises RecordError (file and line) where a row is none, and where a prompt is answered twice in different words.
    """
    saved = Saved()
    later: dict[str, dict[int, str]] = {}
    for row in read_rows(path) if rows is None else rows:
        ids, prompt, answers, turn = _read(row)
        if turn is not None:  # one turn a row, as we write them ourselves
            later.setdefault(ids, {})[turn] = answers[0]
            continue
        for known, key in ((saved.by_id, ids), (saved.by_prompt, prompt)):
            if key and known.setdefault(key, answers) != answers:
                raise RecordError("this prompt has two different answers.", where=str(row.get("_where", path)))
    for ids, turns in later.items():
        if sorted(turns) == list(range(len(turns))):
            saved.by_id[ids] = tuple(turns[i] for i in sorted(turns))
    return saved


def _read(row: Row) -> tuple[str, str, tuple[str, ...], int | None]:
    """(id, first turn, answers, number of the turn where a row holds one of several) of a row of any known form."""
    where = str(row.get("_where", ""))
    if isinstance(row.get("response"), str):
        turn = row.get("turn")
        prompt = row.get("prompt", "")
        first = prompt if isinstance(prompt, str) else _first_user(prompt)
        return str(row.get("id", "")), first.strip(), (row["response"],), turn if isinstance(turn, int) else None
    if isinstance(row.get("output"), str) and isinstance(row.get("instruction"), str):
        return "", row["instruction"].strip(), (row["output"],), None
    if "messages" in row and "uid" in row:
        return str(row["uid"]), "", (answer_of(row["messages"], where),), None
    choices = row.get("choices")
    if "question_id" in row and isinstance(choices, list) and choices and isinstance(choices[0], dict):
        turns = choices[0].get("turns")
        if isinstance(turns, list) and turns and all(isinstance(t, str) for t in turns):
            return str(row["question_id"]), "", tuple(turns), None
    have = ", ".join(key for key in row if not key.startswith("_"))
    raise RecordError(f"no answer that can be read (it has: {have}).", where=where,
                      remedy='An answer is a row with "prompt" and "response".')  # fmt: skip


def _first_user(turns: Any) -> str:
    if isinstance(turns, list):
        for turn in turns:
            if isinstance(turn, Mapping) and turn.get("role") == "user":
                return str(turn.get("content", ""))
    return ""


def answer_of(turns: Any, where: str = "") -> str:
    """The last assistant turn of Arena-Hard's messages, whose content is text or {"answer": text}."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    content = last.get("content") if isinstance(last, Mapping) and last.get("role") == "assistant" else None
    if isinstance(content, Mapping):
        content = content.get("answer")
    if not isinstance(content, str):
        raise RecordError("the messages do not end with an answer.", where=where)
    return content
