"""Knowledge bases: BM25 and reciprocal ranks by hand, LanceDB in a folder, Pinecone through a client of our own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pluralign.encoders import HashedWords
from pluralign.errors import SettingsError
from pluralign.intents.bases import BM25, BaseDown, MemoryBase, Passage, fused, open_base
from pluralign.intents.pinecone import open_pinecone

TEXTS = ("Tea is a drink made of leaves.", "Coffee is a drink made of beans.", "The moon circles the earth.")
PASSAGES = [Passage.of(title, text) for title, text in zip(("Tea", "Coffee", "Moon"), TEXTS, strict=True)]


def test_bm25_by_hand() -> None:
    # P = 2 texts of 2 and 4 words, mean 3. "b" stands in both: idf = log(1 + .5 / 2.5); "a" in the first alone:
    # idf = log(1 + 1.5 / 1.5) = log 2. tf 1 in a text of 2 words: 2.2 / (1 + 1.2 (.25 + .75 * 2/3)) = 2.2 / 1.9
    found = BM25(["a b", "b c b d"]).scores("a b")
    assert found[0] == pytest.approx((math.log(2) + math.log(1.2)) * 2.2 / 1.9)
    # tf 2 in a text of 4 words: 2 * 2.2 / (2 + 1.2 (.25 + .75 * 4/3)) = 4.4 / 3.5
    assert found[1] == pytest.approx(math.log(1.2) * 4.4 / 3.5)
    assert BM25(["a b", "b c b d"]).ranked("zzz", 2).tolist() == []
    assert BM25([]).ranked("a", 2).tolist() == []


def test_reciprocal_ranks_by_hand() -> None:
    a, b, c = (Passage(name, name, name, score) for name, score in (("a", 0.1), ("b", 0.2), ("c", 0.3)))
    # a: 1/61 + 1/62, b: 1/62, c: 1/61
    assert [p.id for p in fused([[a, b], [c, a]], 3)] == ["a", "c", "b"]
    again = Passage("b", "b", "b", 0.9)
    assert fused([[b], [again]], 1)[0].score == 0.9  # the highest score of a passage stays
    assert fused([], 3) == []


@pytest.mark.parametrize("by", ["hybrid", "words", "vectors"])
def test_memory_finds_what_is_meant(by: str) -> None:
    base = MemoryBase(PASSAGES, HashedWords(), by)
    ((first, *_), nothing) = base.search(["a drink of leaves", ""], 2)
    assert first.title == "Tea"
    assert first.score == pytest.approx(float(HashedWords().encode(["a drink of leaves"])[0] @ base.vectors[0]))
    assert len(nothing) == (0 if by == "words" else 2)
    assert MemoryBase([], HashedWords()).search(["x"], 1) == [[]]


def test_a_key_belongs_to_passages_encoder_and_way() -> None:
    keys = {MemoryBase(p, HashedWords(), by).key for p in (PASSAGES, PASSAGES[:2]) for by in ("hybrid", "words")}
    assert len(keys) == 4


def test_no_base() -> None:
    with pytest.raises(SettingsError, match="holds no knowledge base"):
        open_base("nowhere")
    with pytest.raises(SettingsError, match="PINECONE_API_KEY"):
        open_base("pinecone:index", encoder="tfidf")
    with pytest.raises(SettingsError, match="no such file"):
        open_base("memory:nowhere.jsonl", encoder="tfidf")


# LanceDB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("lancedb")
    from pluralign.intents.lance import LanceBase

    base = LanceBase.create(tmp_path / "base", "tfidf")
    assert base.ingest(iter(PASSAGES), "three") == 3
    return tmp_path / "base"


def test_lance_answers_as_memory_does(folder: Path) -> None:
    base, memory = open_base(str(folder)), MemoryBase(PASSAGES, HashedWords())
    for query in ("a drink of leaves", "what circles the earth", 'odd "signs" (AND) +x:y*'):
        (found,), (wanted,) = base.search([query], 1), memory.search([query], 1)
        assert [p.id for p in found] == [p.id for p in wanted]
        assert found[0].score == pytest.approx(wanted[0].score, abs=1e-6)
    assert base.search([""], 3)[0]  # vectors alone
    assert base.search([], 3) == []
    assert "3 passages" in base.name


def test_lance_takes_a_source_once_and_goes_on_after_a_stop(folder: Path) -> None:
    from pluralign.intents import lance

    base = lance.LanceBase.open(folder)
    with pytest.raises(SettingsError, match="already"):
        base.ingest(iter(PASSAGES), "three")
    more = [Passage.of(f"t{i}", f"text number {i}") for i in range(5)]

    def stopping():
        yield from more[:4]
        raise KeyboardInterrupt

    before = base.key
    monkey = pytest.MonkeyPatch()
    monkey.setattr(lance, "CHUNK", 2)
    with monkey.context() as at:
        at.setattr(lance, "CHUNK", 2)
        with pytest.raises(KeyboardInterrupt):
            base.ingest(stopping(), "five")
        with pytest.raises(SettingsError, match="unfinished"):
            lance.LanceBase.open(folder).ingest(iter(more), "other")
        assert lance.LanceBase.open(folder).ingest(iter(more), "five") == 5
    monkey.undo()
    opened = lance.LanceBase.open(folder)
    assert opened.table.count_rows() == 8  # none twice, none lost
    assert opened.passages == 8
    assert opened.key != before
    assert opened.search(["text number 4"], 1)[0][0].title == "t4"


def test_lance_that_is_down(folder: Path) -> None:
    base = open_base(str(folder))
    import shutil

    shutil.rmtree(folder / "passages.lance")
    with pytest.raises(BaseDown, match=r"does not answer.*--without-base"):
        base.search(["tea"], 1)
    with pytest.raises(BaseDown, match="does not answer"):
        open_base(str(folder))


def test_another_encoder_is_noticed(folder: Path) -> None:
    from pluralign.intents.lance import LanceBase

    with pytest.raises(SettingsError, match="embedded by tfidf, not minilm"):
        LanceBase.create(folder, "minilm")
    with pytest.raises(SettingsError, match="knows its encoder"):
        open_base(str(folder), encoder="minilm")
    about = json.loads((folder / "base.json").read_text())
    (folder / "base.json").write_text(json.dumps({**about, "encoder_key": "other"}))
    with pytest.raises(SettingsError, match="another version of tfidf"):
        open_base(str(folder))


def test_without_lancedb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from pluralign.intents.lance import LanceBase

    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(SettingsError, match=r'pip install "pluralign\[retrieval\]"'):
        LanceBase.create(tmp_path / "base", "tfidf")


# Pinecone


class Cloud:
    """What the client does, over a list in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict] = {}
        self.down = False
        self.spaces: set[str] = set()

    def Index(self, name: str) -> Cloud:  # as the client has it
        assert name == "wiki"
        return self

    def upsert(self, vectors: list[dict], namespace: str) -> None:
        self.spaces.add(namespace)
        self.rows |= {row["id"]: row for row in vectors}

    def query(self, vector: list[float], top_k: int, include_metadata: bool, namespace: str) -> SimpleNamespace:
        if self.down:
            raise ConnectionError("no route for key-123 to the host")
        assert include_metadata
        scored = [(float(np.dot(row["values"], vector)), row) for row in self.rows.values()]
        best = sorted(scored, key=lambda one: -one[0])[:top_k]
        return SimpleNamespace(
            matches=[{"id": row["id"], "score": score, "metadata": row["metadata"]} for score, row in best]
        )


def test_pinecone(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud()
    base = open_pinecone("wiki/space", HashedWords(), client=cloud)
    assert base.ingest(iter(PASSAGES), "three") == 3
    assert base.ingest(iter(PASSAGES), "three") == 3  # again: each takes its own place
    assert (len(cloud.rows), cloud.spaces) == (3, {"space"})
    (found,) = base.search(["a drink of leaves"], 2)
    (wanted,) = MemoryBase(PASSAGES, HashedWords(), "vectors").search(["a drink of leaves"], 2)
    assert [(p.id, p.title, p.text) for p in found] == [(p.id, p.title, p.text) for p in wanted]
    assert found[0].score == pytest.approx(wanted[0].score, abs=1e-5)
    cloud.down = True
    monkeypatch.setenv("PINECONE_API_KEY", "key-123")
    with pytest.raises(BaseDown, match="does not answer") as caught:
        base.search(["tea"], 1)
    assert "key-123" not in str(caught.value)


def test_gold_paragraphs_of_real_questions_are_found(shared: Path) -> None:
    """HotpotQA's 100 training questions over their 994 articles: BM25 alone finds .77 +- .05 of the gold ones in 5."""
    import gzip

    from pluralign.intents.ingest import passages_in

    folder = shared / "passages"
    passages = list(passages_in(folder / "hotpotqa_train_corpus.jsonl.gz"))
    index = BM25([f"{p.title}. {p.text}" for p in passages])
    recalls = []
    with gzip.open(folder / "hotpotqa_train_questions.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            gold = {title for title, _ in row["supporting_facts"]}
            found = {passages[i].title for i in index.ranked(row["question"], 5)}
            recalls.append(len(found & gold) / len(gold))
    assert len(recalls) == 100
    assert np.mean(recalls) == pytest.approx(0.77, abs=0.02)
