"""A cross-encoder as fact checker: a sequence classifier of (evidence, claim), such as an NLI model or MiniCheck.

Evidence is cut into chunks at the ends of sentences, so that nothing of it is lost to the model's limit, and the chunk
that supports a claim most decides. Which output means what comes from the model's own configuration, and a claim that
is its own evidence must be found supported before anything else is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import SettingsError
from .checking import THRESHOLD, Claim, Verdict
from .sentences import sentences

__all__ = ["CrossEncoder", "load_cross_encoder", "outputs_of"]

LONGEST = 400  # tokens of evidence and claim together (E3: 350 to 400 for encoders)
SURE = 0.9  # what identical text must score
SMOKE = "The museum of Lisbon was opened by a committee of sailors in 1911."
MEANINGS = {
    "ok": ("entail", "support", "consistent", "true"),
    "contradictory": ("contradict", "refute", "inconsistent", "false"),
    "unverifiable": ("neutral", "not enough info", "unverifiable", "unrelated"),
}


def outputs_of(labels: Mapping[int, str]) -> dict[str, int]:
    """{"ok": output, "contradictory": output, ...} of a classifier's `id2label`.

    Two outputs of no name (LABEL_0, LABEL_1) are taken as not supported and supported, as MiniCheck has them. Raises
    SettingsError where no output means support.
    """
    named = {int(i): str(label).lower().replace("_", " ") for i, label in labels.items()}
    if sorted(named.values()) == ["label 0", "label 1"]:
        return {"ok": 1, "unverifiable": 0}
    found: dict[str, int] = {}
    for i, label in named.items():
        kind = _meaning(label)
        if kind and kind not in found:
            found[kind] = i
    if "ok" not in found:
        raise SettingsError(
            f"no output of the classifier means support ({', '.join(named.values())}).",
            remedy="Take an NLI model (entailment, neutral, contradiction) or MiniCheck.",
        )
    return found


def _meaning(label: str) -> str | None:
    if label.startswith(("not ", "non ", "not-", "non-", "un")) and label not in MEANINGS["unverifiable"]:
        return "unverifiable"
    order = ("contradictory", "unverifiable", "ok")  # "inconsistent" holds "consistent"
    return next((kind for kind in order if any(word in label for word in MEANINGS[kind])), None)


@dataclass
class CrossEncoder:
    """`model` gives logits of pairs (evidence, claim), in this order. p = P(support) of the best chunk; "contradictory"
    where p is below `threshold` and some chunk is more likely against the claim than anything else."""

    model: Any
    tokenizer: Any
    name: str
    limit: int = LONGEST
    threshold: float = THRESHOLD
    batch: int = 16

    @cached_property
    def outputs(self) -> dict[str, int]:
        """See `outputs_of`; checked once. Raises SettingsError where identical text is not found supported."""
        found = outputs_of(self.model.config.id2label)
        (p,) = self._probabilities([(SMOKE, SMOKE)])
        if p[found["ok"]] <= SURE:
            raise SettingsError(
                f'"{self.name}" gives a sentence that is its own evidence only {p[found["ok"]]:.2f} as "ok".',
                remedy="Its labels are in another order than it says, or it is no fact checker: take another model.",
            )
        return found

    @cached_property
    def key(self) -> str:
        """A digest of the weights and of how evidence is cut. It reads all weights, once."""
        out = hashlib.sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            out.update(f"{name} {tuple(weight.shape)}".encode())
            out.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return f"cross-encoder {self.name} {out.hexdigest()[:32]} {self.limit} {self.threshold}"

    def check(self, claims: Sequence[Claim]) -> list[Verdict]:
        """See `checking.FactChecker`."""
        outputs = self.outputs
        pairs: list[tuple[str, str]] = []
        owner: list[int] = []
        for i, claim in enumerate(claims):
            for chunk in self.chunks(claim):
                pairs.append((chunk, claim.text))
                owner.append(i)
        of: dict[int, list[tuple[str, list[float]]]] = {i: [] for i in range(len(claims))}
        for i, (chunk, _), p in zip(owner, pairs, self._probabilities(pairs), strict=True):
            of[i].append((chunk, p))
        return [self._verdict(of[i], outputs) for i in range(len(claims))]

    def chunks(self, claim: Claim) -> list[str]:
        """The evidence in pieces of whole sentences that fit beside the claim; a sentence that is longer is cut by
        tokens into several."""
        own = len(self._ids(claim.text)) + self.tokenizer.num_special_tokens_to_add(pair=True)
        room = self.limit - own
        if room < 16:
            raise SettingsError(f'a claim of {own} tokens leaves "{self.name}" no room for evidence.')
        out: list[str] = []
        held: list[str] = []
        for passage in claim.evidence:
            for sentence in sentences(passage):
                for piece in self._cut(sentence, room):
                    if held and len(self._ids(" ".join([*held, piece]))) > room:
                        out.append(" ".join(held))
                        held = []
                    held.append(piece)
        return [*out, " ".join(held)] if held else out

    def _cut(self, sentence: str, room: int) -> list[str]:
        ids = self._ids(sentence)
        if len(ids) <= room:
            return [sentence]
        return [self.tokenizer.decode(ids[i : i + room - 2]) for i in range(0, len(ids), room - 2)]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        import torch

        out: list[list[float]] = [[] for _ in pairs]
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
        with torch.no_grad():
            for start in range(0, len(order), self.batch):
                at = order[start : start + self.batch]
                first, second = [pairs[i][0] for i in at], [pairs[i][1] for i in at]
                made = self.tokenizer(first, second, padding=True, return_tensors="pt", verbose=False)
                logits = self.model(**made.to(self.model.device)).logits
                for i, row in zip(at, logits.double().softmax(-1).tolist(), strict=True):
                    out[i] = row
        return out

    def _verdict(self, found: Sequence[tuple[str, list[float]]], outputs: Mapping[str, int]) -> Verdict:
        if not found:
            return Verdict("unverifiable", 0.0, self.name, why="there is no evidence")
        chunk, p = max(found, key=lambda one: one[1][outputs["ok"]])
        support = p[outputs["ok"]]
        if support >= self.threshold:
            return Verdict("ok", support, self.name, chunk)
        if "contradictory" in outputs:
            against, q = max(found, key=lambda one: one[1][outputs["contradictory"]])
            if q[outputs["contradictory"]] >= max(q):
                return Verdict("contradictory", support, self.name, against)
        return Verdict("unverifiable", support, self.name, chunk)


def load_cross_encoder(name: str, *, threshold: float = THRESHOLD, batch: int = 16) -> CrossEncoder:
    """The sequence classifier of a folder or hub name, safetensors only, with its labels checked.

    Raises SettingsError where it cannot be loaded or is no fact checker.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSequenceClassification.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f'cannot load the fact checker "{name}": {str(error).strip().splitlines()[0]}',
            remedy="Give a folder with config.json and safetensors weights, or a hub name while online.",
        ) from None
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    places = int(getattr(model.config, "max_position_embeddings", LONGEST) or LONGEST)
    limit = min(LONGEST, places - 2, int(min(tokenizer.model_max_length, 1 << 30)))
    made = CrossEncoder(model, tokenizer, name, limit, threshold, batch)
    _ = made.outputs
    return made
