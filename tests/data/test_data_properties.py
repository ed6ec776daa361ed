"""Properties that hold for any record, any dialogue and any damage."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pluralign.data import Loaded, convert, from_row, load
from pluralign.data.transcripts import read_transcript, split_prefix, split_transcript
from pluralign.errors import RecordError
from pluralign.records import Demonstration, Labelled, Message, Preference, Ranked, Record, to_row

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
solid = text.filter(lambda t: t.strip() != "")
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
extra = st.dictionaries(st.sampled_from(["name", "tool_call_id", "tool_calls"]), json_values, max_size=2)
message = st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), solid, extra)
turns = st.lists(message, min_size=1, max_size=4).map(tuple)
shared = {
    "prompt": turns,
    "tools": st.lists(st.dictionaries(text, json_values, max_size=2), max_size=2).map(tuple),
    "source": text,
    "group": st.none() | solid,
    "user": st.none() | solid,
    "weight": st.floats(0, 100),
    "meta": st.dictionaries(text, json_values, max_size=3),
}
both = st.tuples(st.none() | finite, st.none() | finite).filter(lambda values: values != (None, None))
known = st.dictionaries(solid, finite, max_size=2)
responses = st.lists(st.tuples(turns, finite), min_size=2, max_size=4)
records = st.one_of(
    st.builds(Demonstration, **shared, response=turns, attributes=known),
    st.builds(Labelled, **shared, response=turns, label=st.booleans(), attributes=known),
    st.builds(
        Preference, **shared, chosen=turns, rejected=turns, margin=st.none() | finite,
        attributes=st.dictionaries(solid, both, max_size=2),
    ).filter(lambda p: p.chosen != p.rejected),
    st.builds(
        lambda both, **kept: Ranked(
            responses=tuple(r for r, _ in both), scores=tuple(s for _, s in both),
            attributes={"b": tuple(None if s > 0 else s for _, s in both)} if any(s <= 0 for _, s in both) else {},
            **kept,
        ),
        both=responses, **shared,
    ),
)  # fmt: skip


@given(records)
def test_native_rows_read_back_exactly(record: Record) -> None:
    assert from_row(json.loads(json.dumps(to_row(record)))) == record


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(records, min_size=1, max_size=4))
def test_native_files_read_back_exactly(tmp_path: Path, many: list[Record]) -> None:
    path = tmp_path / "native.jsonl"
    convert(many, path, overwrite=True)
    assert load(path).records() == many


# --- dialogues ----------------------------------------------------------------------------------------------------

speech = st.text("ab:\n #HumanAssistant", max_size=30)


@given(st.lists(st.tuples(st.sampled_from(["Human", "Assistant"]), speech), min_size=1, max_size=6))
def test_the_turns_of_a_transcript_join_to_the_transcript(spoken: list[tuple[str, str]]) -> None:
    transcript = "".join(f"\n\n{who}: {said}" for who, said in spoken)
    parts = split_transcript(transcript)
    assert "".join(marker + body for _, marker, body in parts) == transcript
    assert all(a.role != b.role for a, b in itertools.pairwise(read_transcript(transcript)))


@given(st.lists(st.tuples(st.booleans(), st.text("abc .,?!", min_size=1)), min_size=1, max_size=6), st.booleans())
def test_a_plain_transcript_gives_back_its_turns(spoken: list[tuple[bool, str]], headed: bool) -> None:
    spoken = [(n % 2 == 0, said) for n, (_, said) in enumerate(spoken)]
    names = [("Human" if human else "Assistant", said) for human, said in spoken]
    transcript = "\n\n\n".join(f"## {who}:\n{said}" for who, said in names) if headed else "".join(
        f"\n\n{who}: {said}" for who, said in names
    )  # fmt: skip
    want = tuple(Message("user" if human else "assistant", said.strip()) for human, said in spoken)
    assert read_transcript(transcript) == want


talk = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), st.sampled_from("abc")), max_size=5)


@given(st.lists(talk.filter(bool).map(tuple), min_size=2, max_size=3), talk.map(tuple))
def test_the_shared_prefix_is_shared_whole_and_longest(tails: list[tuple[Message, ...]], head: Any) -> None:
    conversations = [head + tail for tail in tails]
    try:
        prompt, answers = split_prefix(conversations)
    except RecordError:
        # refused only where they part at a user's turn, or where one of them does not end with the assistant
        common = min(_common(conversations), *(len(c) - 1 for c in conversations))
        assert any(c[-1].role != "assistant" for c in conversations) or any(
            c[n].role == "user" for c in conversations for n in range(common + 1)
        )
        return
    assert [prompt + answer for answer in answers] == conversations
    assert all(answer and answer[-1].role == "assistant" for answer in answers)
    longer = len(prompt) + 1
    could = _common(conversations) >= longer and all(len(c) > longer for c in conversations)
    assert not could or any(turn.role == "tool" for c in conversations for turn in c[longer : longer + 1])


def _common(conversations: list[tuple[Message, ...]]) -> int:
    together = zip(*conversations, strict=False)
    return len(list(itertools.takewhile(lambda turns: all(t == turns[0] for t in turns), together)))


# --- damage -------------------------------------------------------------------------------------------------------

ROWS: list[list[dict[str, Any]]] = [
    [{"prompt": f"q{n}?", "chosen": "gööd", "rejected": "bad", "weight": 0.5, "n": n} for n in range(12)],
    [{"chosen": f"\n\nHuman: {n}\n\nAssistant: a", "rejected": f"\n\nHuman: {n}\n\nAssistant: b"} for n in range(12)],
    [{"prompt": f"q{n // 2}", "response": f"r{n}", "helpfulness": n % 5, "verbosity": 1} for n in range(12)],
    [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]} for n in range(12)],
    [to_row(load([{"prompt": f"{n}", "responses": ["a", "b"], "scores": [1, 2]}]).records()[0]) for n in range(12)],
]


def test_native_rows_of_older_files_keep_their_attributes() -> None:
    """Before there were attributes, a pair had them in `scores` and a ranking in `meta`."""
    pair, ranking = (load([row]).records()[0] for row in (
        {"prompt": "q", "chosen": "a", "rejected": "b", "attributes": {"humour": [3, 1]}},
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, 2], "attributes": {"humour": [None, 1]}, "n": 1},
    ))  # fmt: skip
    older = to_row(pair)
    older["scores"] = older.pop("attributes")
    assert from_row(json.loads(json.dumps(older))) == pair
    older = to_row(ranking)
    older["meta"] = {**older["meta"], "attributes": older.pop("attributes")}
    assert from_row(json.loads(json.dumps(older))) == ranking
    with pytest.raises(RecordError, match='no field "scores"'):
        from_row({**to_row(pair), "scores": {"humour": [3, 1]}})


def damage(data: bytes, seed: int) -> bytes:
    """Flip, delete, insert or cut bytes in a few places."""
    rng = random.Random(seed)
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found))
        what = rng.random()
        if what < 0.5:
            found[at] ^= 1 << rng.randrange(8)
        elif what < 0.65:
            del found[at : at + rng.randint(1, 40)]
        elif what < 0.8:
            found[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 4)))
        elif what < 0.9:
            found[at] = rng.choice(b'\x00"{}[],\n\\')
        else:
            del found[at:]
        if not found:
            return b"x"
    return bytes(found)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(range(len(ROWS))))
@example(2097151, 0)  # once broke the message into two lines
def test_damage_is_reported_and_no_row_vanishes(tmp_path: Path, seed: int, which: int) -> None:
    data = damage("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS[which]).encode(), seed)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    aside = tmp_path / "aside.jsonl"
    aside.unlink(missing_ok=True)
    lines = [line for line in data.split(b"\n") if line.strip(b" \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f")]
    loaded, error = attempt(path, bad_rows="quarantine", quarantine=aside)
    if loaded is None:  # only where nothing is left to read
        assert any(sign in error for sign in ("no record in", "no known format", "can be read", "no rows", "UTF-16"))
    else:
        counts = loaded.counts
        assert counts.balanced
        assert counts.rows == len(lines)
        written = aside.read_text(encoding="utf-8").splitlines() if counts.bad else []
        assert len([json.loads(line) for line in written]) == counts.bad.total()
    attempt(path)


def attempt(path: Path, **options: Any) -> tuple[Loaded | None, str]:
    """Read to the end; anything but a record error that names its place is a failure of the test."""
    try:
        loaded = load(path, **options)
        list(loaded)
        return loaded, ""
    except RecordError as error:
        message, where = str(error), error.where
    assert where.startswith(str(path))
    assert "\n" not in message
    return None, message


@pytest.mark.parametrize("ending", ["json", "csv"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_arrays_and_tables_raise_record_errors_only(tmp_path: Path, ending: str, seed: int) -> None:
    rows = ROWS[0]
    if ending == "json":
        whole = json.dumps(rows, ensure_ascii=False)
    else:
        whole = "prompt,chosen,rejected\n" + "".join(f'"{r["prompt"]}",{r["chosen"]},"b ""x"""\n' for r in rows)
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(damage(whole.encode(), seed))
    for options in ({}, {"bad_rows": "quarantine", "quarantine": tmp_path / "aside.jsonl"}):
        loaded, _ = attempt(path, **options)
        assert loaded is None or loaded.counts.balanced
