"""A knowledge base at Pinecone, the paper's choice: vectors with the passages as their metadata.

The key comes from the environment (PINECONE_API_KEY). Pinecone ranks by vectors alone; there is no search by word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..curate.filters import batches
from ..encoders import Encoder
from ..errors import SettingsError
from .bases import BaseDown, Passage, passage_text

__all__ = ["KEY", "PineconeBase", "open_pinecone"]

KEY = "PINECONE_API_KEY"
CHUNK = 100  # vectors in one request
METADATA = 30_000  # characters of a passage; the service takes 40 KB of metadata a vector


@dataclass
class PineconeBase:
    """An index of vectors of `encoder`, made with the metric "cosine". `index` is the client's object for it."""

    index: Any
    encoder: Encoder
    where: str
    namespace: str = ""

    @property
    def name(self) -> str:
        return f"pinecone:{self.where}"

    @property
    def key(self) -> str:
        return f"pinecone {self.where} {self.encoder.key}"

    def search(self, texts: Sequence[str], k: int) -> list[list[Passage]]:
        """See `KnowledgeBase`."""
        found = []
        for vector in self.encoder.encode(list(texts)):
            try:
                got = self.index.query(vector=[float(x) for x in vector], top_k=k, include_metadata=True,
                                       namespace=self.namespace)  # fmt: skip
                found.append([_passage(match) for match in _get(got, "matches")])
            except Exception as error:
                raise _down(self.where, error) from None
        return found

    def ingest(self, passages: Iterable[Passage], source: str, *, progress: Callable[[int], None] | None = None) -> int:
        """Add passages; one that is there already (the same title and text) takes its own place, so that an ingest that
        was stopped may simply be started anew."""
        count = 0
        for chunk in batches(passages, CHUNK):
            vectors = self.encoder.encode([passage_text(p) for p in chunk])
            rows = [
                {"id": p.id, "values": [float(x) for x in v],
                 "metadata": {"title": p.title, "text": p.text[:METADATA], "source": source}}
                for p, v in zip(chunk, vectors, strict=True)
            ]  # fmt: skip
            try:
                self.index.upsert(vectors=rows, namespace=self.namespace)
            except Exception as error:
                raise _down(self.where, error) from None
            count += len(chunk)
            if progress:
                progress(count)
        return count


def open_pinecone(where: str, encoder: Encoder, *, client: Any = None) -> PineconeBase:
    """The index `INDEX` or `INDEX/NAMESPACE`. `client` is a Pinecone client, made from the environment without one.

    Raises SettingsError without the package or a key, BaseDown where the index does not answer.
    """
    name, _, namespace = where.partition("/")
    if client is None:
        key = os.environ.get(KEY)
        if not key:
            raise SettingsError("Pinecone needs a key.", remedy=f"Set the environment variable {KEY}.")
        try:
            from pinecone import Pinecone
        except ImportError:
            raise SettingsError(
                "Pinecone's client is not installed.", remedy='Install it: pip install "pluralign[pinecone]"'
            ) from None
        client = Pinecone(api_key=key)
    try:
        return PineconeBase(client.Index(name), encoder, where, namespace)
    except Exception as error:
        raise _down(where, error) from None


def _passage(match: Any) -> Passage:
    about = _get(match, "metadata") or {}
    return Passage(str(_get(match, "id")), about.get("title", ""), about.get("text", ""), float(_get(match, "score")))


def _get(found: Any, name: str) -> Any:
    """A field of the client's answers, which are mappings or objects by its version."""
    return found[name] if isinstance(found, dict) else getattr(found, name)


def _down(where: str, error: Exception) -> BaseDown:
    key = os.environ.get(KEY)
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    said = said.replace(key, "***") if key else said
    return BaseDown(
        f"the knowledge base pinecone:{where} does not answer: {said}",
        remedy="Try again later, or go on without it: --without-base.",
    )
