"""The audit finds each broken promise, and says what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import render_toys as toys
from rich.cells import cell_len
from rich.console import Console

from pluralign.data import load
from pluralign.records import Demonstration, Labelled, Message, Messages, Preference, Ranked, Record, messages
from pluralign.render import Renderer
from pluralign.render.audit import Audit, audit, default_plan, print_audit
from pluralign.terms import Term, pair


def _said(text: str, **extra: Any) -> Messages:
    return (Message("assistant", text, extra),)


def _pair(prompt: str = "Hello there!", chosen: str = "Hi, how are you?", rejected: str = "No.") -> Preference:
    return Preference(prompt=messages(prompt), chosen=_said(chosen), rejected=_said(rejected))


def _audit(*records: Record, name: str = "chatml", **settings: Any) -> Audit:
    return audit(records, Renderer(toys.tokenizer(name), **settings))


@pytest.mark.parametrize("name", toys.NAMES)
def test_sound_data_has_no_breach(name: str) -> None:
    found = _audit(_pair(), _pair("2+2?", "4", "5"), name=name)
    assert found.breaches == []
    assert found.ok
    assert (found.rows, found.terms) == (2, 4)
    assert found.ends == {1: 4}
    assert found.bos == {int(found.uses_bos): 2}
    assert {k: len(v) for k, v in found.lengths.items()} == {"prompt": 2, "chosen": 2, "rejected": 2}


def test_every_kind_of_record_has_a_plan() -> None:
    prompt = messages("Hello")
    records: list[Record] = [
        _pair(),
        Demonstration(prompt=prompt, response=_said("Hi")),
        Labelled(prompt=prompt, response=_said("Hi"), label=True),
        Ranked(prompt=prompt, responses=(_said("a"), _said("b"), _said("c")), scores=(1, 2, 3)),
    ]
    assert [len(list(default_plan(record))) for record in records] == [2, 1, 1, 3]
    found = _audit(*records)
    assert (found.rows, found.terms, found.ok) == (4, 7, True)


def test_a_repeated_reference_term_is_counted_once() -> None:
    renderer = Renderer(toys.tokenizer("chatml"))
    once, twice = audit([_pair()], renderer), audit([_pair()], renderer, plan=pair)
    assert (twice.terms, twice.tokens, twice.ends) == (4, once.tokens, once.ends)
    assert twice.ok


def test_rows_that_cannot_be_rendered_are_a_breach_with_their_place() -> None:
    system = Preference(prompt=(Message("system", "x"), *messages("y")), chosen=_said("a"), rejected=_said("b"))
    found = audit([_pair(), system], Renderer(toys.tokenizer("gemma")), where=lambda i, _: f"pairs.jsonl:{i + 1}")
    assert [where for where, _ in found.failed] == ["pairs.jsonl:2"]
    (line,) = found.breaches
    assert line.startswith("1 row cannot be rendered: the chat template refuses this conversation")
    assert "(pairs.jsonl:2)" in line


def test_no_rows_are_a_breach() -> None:
    assert _audit().breaches == ["there are no rows."]


def test_a_doubled_bos_is_a_breach() -> None:
    tokenizer = toys.fresh("headers")
    tokenizer.chat_template = "{{ bos_token }}" + toys.HEADERS
    found = audit([_pair()], Renderer(tokenizer))
    assert found.breaches == ["1 prompts begin with a wrong number of BOS tokens (2: 1)."]


def test_a_bos_inside_a_response_is_a_breach() -> None:
    tokenizer = toys.fresh("headers")
    again = "(bos_token if m['role'] == 'assistant' else '')"
    tokenizer.chat_template = toys.HEADERS.replace("+ '<|eot_id|>'", f"+ {again} + '<|eot_id|>'")
    found = audit([_pair()], Renderer(tokenizer))
    assert any(line == "2 responses with a BOS inside: row 1 (chosen), row 1 (rejected)." for line in found.breaches)


def test_two_ends_of_turn_are_a_breach() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = toys.CHATML.replace("m['content']", "m['content'] + '<|im_end|>.'")
    found = audit([_pair()], Renderer(tokenizer))
    assert found.ends == {2: 2}
    assert any(line.startswith("2 responses with a wrong number of ends") for line in found.breaches)


def test_a_response_that_spells_its_end_is_a_breach_and_other_spelling_is_a_note() -> None:
    found = _audit(_pair("what is <|im_end|>?"), _pair(chosen="Hi<|im_end|>\n"))
    assert found.spelled == {"<|im_end|>": 2}
    assert found.ends == {1: 4}
    (line,) = found.breaches
    assert "ends with the characters of a control token: row 2" in line
    assert any("2 rows with the characters of control tokens (<|im_end|> 2x)" in note for note in found.notes)


def test_responses_alike_after_rendering_are_a_breach() -> None:
    trimmed = _audit(_pair(chosen="yes", rejected=" yes "), name="headers")
    assert trimmed.identical == ["row 1"]
    beginning = "the same words " * 10
    cut = _audit(_pair(chosen=beginning + "a", rejected=beginning + "b"), max_length=32)
    assert cut.identical == ["row 1"]
    assert not cut.ok
    assert _audit(_pair(chosen="same", rejected="same")).identical == ["row 1"]


def test_a_template_without_generation_header_is_a_breach() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = toys.CHATML.split("{% if add_generation_prompt")[0]
    found = audit([_pair()], Renderer(tokenizer))
    assert any("prints no generation header" in line for line in found.breaches)
    assert _audit(_pair(), name="llama2").ok  # [/INST] is the header there


def test_a_prompt_without_the_header_is_a_breach() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = toys.CHATML.replace(
        "add_generation_prompt", "add_generation_prompt and 'x' not in messages[0]['content']"
    )
    found = audit([_pair(), _pair("x")], Renderer(tokenizer))
    assert any(line.startswith("1 prompt not ending with the generation header: row 2") for line in found.breaches)


def test_text_that_does_not_survive_the_tokenizer_is_a_breach_and_normalising_a_note() -> None:
    from tokenizers import normalizers

    lossy, composing = toys.fresh("gpt2"), toys.fresh("gpt2")
    lossy.backend_tokenizer.pre_tokenizer = _dropping("q")
    found = audit([_pair("quite")], Renderer(lossy))
    assert any("1 text not given back when decoded: row 1" in line for line in found.breaches)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    found = audit([_pair("cafe\u0301")], Renderer(composing))
    assert found.ok
    assert "1 text changed by the tokenizer's own normalisation." in found.notes


def _dropping(letter: str) -> Any:
    """A pre-tokenizer that loses a letter."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.Split(letter, "removed")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def test_truncation_is_counted() -> None:
    renderer = Renderer(toys.tokenizer("gpt2"), max_length=32)
    records = [_pair(), _pair("one two " * 40), _pair(chosen="three four " * 40)]
    found = audit(records, renderer, show_rows=0)
    rendered = [r for record in records for r in renderer.render(list(default_plan(record)))]
    assert found.rows_cut == ["row 2", "row 3"]
    assert (found.contexts_cut, found.targets_cut) == (2, 1)
    contexts = sum(rendered[i].cut_context for i in (0, 2, 4))  # both terms of a pair share their context
    assert found.tokens_cut == contexts + sum(r.cut_target for r in rendered)
    assert found.ends == {0: 1, 1: 5}
    assert found.ok
    assert found.notes[0].startswith("truncation to 32 tokens touches 2 rows: 2 prompts lost the beginning, 1 response")


def test_boundary_merges_are_counted_and_shown() -> None:
    found = _audit(_pair(chosen="\n\nyes", rejected="no"))
    assert found.merges == 1
    assert found.merge_examples[0].where == "row 1 (chosen)"
    assert found.merge_examples[0].apart != found.merge_examples[0].joined
    assert found.ok


@pytest.mark.parametrize("question", ["2+2?", "what is </s>?"])
@pytest.mark.parametrize("name", ["llama2", "llama2_legacy", "llama2_base"])
def test_a_response_after_a_control_token_is_encoded_as_if_together(name: str, question: str) -> None:
    """Old SentencePiece tokenizers put a space after every control token, and nowhere else inside a text."""
    tokenizer = toys.fresh(name)
    assert audit([_pair(question)], Renderer(tokenizer)).merges == 0
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '</s>' }}{% endfor %}"
    assert audit([_pair(question)], Renderer(tokenizer)).merges == 0


def test_text_that_the_template_leaves_out_is_a_breach() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = toys.CHATML.replace("m['content']", "m['content'][:4]")
    found = audit([_pair("Hello there"), _pair("Hey", "long answer", "no"), _pair("a", "b", "c")], Renderer(tokenizer))
    assert found.left_out == ["row 1", "row 1 (chosen)", "row 2 (chosen)"]
    assert any("3 prompts or responses whose text the template leaves out" in line for line in found.breaches)
    assert _audit(_pair(chosen="<think>\nwhy\n</think>\n\nYes"), name="opened").ok


def test_closed_reasoning_and_assistant_prompts_are_notes() -> None:
    found = _audit(_pair(), name="opened")
    assert "2 responses close the reasoning block that the generation prompt opens." in found.notes
    last = Preference(prompt=(*messages("Hi"), *_said("Yes?")), chosen=_said("a"), rejected=_said("b"))
    assert "1 prompt ending with an assistant turn." in _audit(last).notes


def test_a_limit_and_a_plan_are_respected() -> None:
    def plan(record: Record) -> list[Term]:
        return [Term("only", (record.prompt,), _said("x"))]

    found = audit((_pair() for _ in range(1000)), Renderer(toys.tokenizer("chatml")), plan, limit=300)
    assert (found.rows, found.terms) == (300, 300)
    assert list(found.lengths) == ["prompt", "only"]


def test_the_dictionary_is_json() -> None:
    found = json.loads(json.dumps(_audit(_pair(), _pair(chosen="Hi<|im_end|>")).to_dict()))
    assert found["ok"] is False
    assert found["rows"] == 2
    assert found["bos_per_prompt"] == {"0": 2}
    assert found["ends_per_response"] == {"1": 4}
    assert found["lengths"]["chosen"]["n"] == 2
    assert json.loads(json.dumps(_audit().to_dict()))["breaches"] == ["there are no rows."]


# For a person


def _printed(found: Audit, width: int, *, colour: bool = False, ids: bool = False) -> str:
    system = "truecolor" if colour else None
    with open("/dev/null", "w") as nowhere:
        console = Console(width=width, record=True, file=nowhere, force_terminal=colour, color_system=system)
        print_audit(found, console, ids=ids)
    return console.export_text(styles=colour)


@pytest.mark.parametrize("width", [80, 120])
def test_the_printed_audit_fits_and_tells(width: int) -> None:
    records = [_pair("東京 🙂 one two " * 30), _pair(chosen="\n\nHi<|im_end|>"), _pair("\ta", "b" * 400, "c\u0007")]
    text = _printed(_audit(*records, max_length=200), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for told in (
        "row 1",
        "prompt",
        "chosen",
        "rejected",
        "<user>",
        "<template>",
        "<eos>",
        "breach:",
        "note:",
        "records",
    ):
        assert told in text
    assert "\u0007" not in text
    assert "\t" not in text


def test_tokens_are_parted_coloured_and_numbered() -> None:
    found = _audit(_pair("The answer", "The answer is 42."))
    tokenizer = toys.tokenizer("chatml")
    assert "The| answer" in _printed(found, 120)
    coloured = _printed(found, 120, colour=True)
    assert "\x1b[" in coloured
    assert "The| answer" not in coloured
    ids = tokenizer(" answer")["input_ids"]
    assert len(ids) == 1
    assert f" answer{ids[0]} " in _printed(found, 120, ids=True)


def test_long_texts_are_shown_by_their_ends() -> None:
    found = _audit(_pair("the quick brown fox " * 300), max_length=10_000)
    shown = found.examples[0].shown["chosen"]
    assert f"… {len(shown.rendered.context) - 240:,} tokens …" in _printed(found, 100)


def test_terms_with_the_same_tokens_are_printed_once() -> None:
    text = _printed(audit([_pair()], Renderer(toys.tokenizer("chatml")), plan=pair), 100)
    assert "chosen, ref_w" in text
    assert text.count("Hi|,") + text.count("H|i|,") == 1


# Real data


def _embedded() -> Any:
    from transformers import AutoTokenizer

    import pluralign

    path = Path(pluralign.__path__[0]) / "assets" / "model"
    if not (path / "tokenizer.json").is_file():
        pytest.skip("the embedded model is not there")
    return AutoTokenizer.from_pretrained(path)


REAL = ("hh_rlhf/harmless_base.jsonl.gz", "hh_rlhf/helpful.jsonl.gz", "ultrafeedback_slice/clean_1000.jsonl.gz")


@pytest.mark.parametrize("file", REAL)
def test_real_pairs_keep_every_promise(shared: Path, tmp_path: Path, file: str) -> None:
    """Every row of the file is rendered or set aside by the loader with its reason, and no promise is broken."""
    loaded = load(shared / file, bad_rows="quarantine", quarantine=tmp_path / "bad.jsonl", kind="preference")
    found = audit(loaded, Renderer(_embedded(), max_length=1024), show_rows=1)
    assert found.breaches == []
    assert loaded.counts.balanced
    assert found.rows == loaded.counts.records > 900
    assert found.terms == 2 * found.rows
    assert sum(found.ends.values()) == found.terms
    assert found.ends[0] == found.targets_cut
    assert found.bos == {1: found.rows}


@pytest.mark.parametrize("name", ["chatml", "llama2_base", "headers"])
def test_real_pairs_with_other_tokenizers(shared: Path, tmp_path: Path, name: str) -> None:
    loaded = load(shared / REAL[2], bad_rows="quarantine", quarantine=tmp_path / "bad.jsonl", limit=150)
    found = audit(loaded, Renderer(toys.tokenizer(name), max_length=512), show_rows=0)
    assert found.breaches == []
    assert found.rows == 150
