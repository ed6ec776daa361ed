"""What a policy does with held-out prompts: pairs it orders, intents it infers, answers it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from a_ipo_data import Parts

from pluralign.curate.plural import belief_row, holds
from pluralign.data import load
from pluralign.data.beliefs import beliefs_of
from pluralign.encoders import encoder
from pluralign.intention import WORDS
from pluralign.policy import Policy
from pluralign.records import Preference
from pluralign.scoring.layout import Scored
from pluralign.steering import Request, answer
from pluralign.steering.beliefs import spread
from pluralign.steering.intended import infer_intents
from pluralign.terms import Scores, Term

__all__ = ["TOLD", "judge"]

TOLD = {"DPO, told": "DPO", "A-IPO, told": "A-IPO"}  # method -> whose policy is told each record's own intent


def judge(
    policy: Policy, method: str, parts: Parts, *, guide: Policy | None, answers: int, seed: int
) -> dict[str, Any]:
    """Figures of one policy, item by item, so that the page can pool seeds and cluster by prompt."""
    test = parts.test
    inferred = [r.intent or "" for r in test] if method in TOLD else _inferred(policy, guide, test)
    gaps = _gaps(policy, test, inferred) if method != "GDPO" else _belief_gaps(policy, test)
    row: dict[str, Any] = {
        "right": [int(g > 0) for g in gaps],
        "gap": [round(g, 4) for g in gaps],
        "part": [str(r.meta.get(parts.about.by, "")) for r in test],
    }
    if inferred is not None and method not in TOLD and (guide is not None or len(set(_names(policy))) > 1):
        row["intent_right"] = [int(i == r.intent) for i, r in zip(inferred, test, strict=True)]
    return {**row, **_written(policy, test[:answers], None if inferred is None else inferred[:answers], seed)}


def _names(policy: Policy) -> tuple[str, ...]:
    return policy.intents.names if policy.intents else ()


def _inferred(policy: Policy, guide: Policy | None, test: Sequence[Preference]) -> list[str] | None:
    """What is shown as each prompt's intent; None for a policy that is shown none."""
    reader = guide or policy
    if reader.intention is None or reader.intents is None:
        return None
    if len(reader.intents.names) == 1:  # (-I): the average intent
        return [reader.intents.names[0]] * len(test)
    return [next(iter(q)) for q in infer_intents(reader, [r.prompt for r in test])]


def _gaps(policy: Policy, test: Sequence[Preference], inferred: Sequence[str] | None) -> list[float]:
    """Nats a token by which the preferred response is likelier, under the intent that deployment would show."""
    words = policy.intents.words if policy.intents else WORDS
    out = []
    sequences, groups = [], []
    for i, r in enumerate(test):
        shown = (r.prompt,) if inferred is None else (r.prompt, Scores(words.format(intent=inferred[i])))
        both = policy.renderer.render([Term("w", shown, r.chosen), Term("l", shown, r.rejected)])
        groups.append([len(sequences), len(sequences) + 1])
        sequences += [Scored(x.context, x.target, x.scored) for x in both]
    read = policy.score(sequences, groups=groups)
    for w, l in groups:
        out.append(float(read[w].mean[0] - read[l].mean[0]))
    return out


def _belief_gaps(policy: Policy, test: Sequence[Preference]) -> list[float]:
    """GDPO answers by belief: nats by which the accepted option is likelier than the rejected one."""
    rows = list(load([belief_row(r) for r in test]))
    found = spread(policy, [(r.prompt, beliefs_of(r)) for r in rows])
    return [s.log_q[int(r.meta["accept"])] - s.log_q[int(r.meta["reject"])] for s, r in zip(found, test, strict=True)]


def _written(policy: Policy, test: Sequence[Preference], inferred: Sequence[str] | None, seed: int) -> dict[str, Any]:
    """Answers in text: similarity to the preferred response (RS), for attacks whether each answer stands in them."""
    requests = [
        Request(r.prompt, max_new_tokens=32, temperature=0.7, top_p=0.95, seed=seed, place=i,
                intent=None if inferred is None else inferred[i])
        for i, r in enumerate(test)
    ]  # fmt: skip
    texts = [a.text for a in answer(policy, requests, batch_size=20)]
    vectors = encoder()
    own = vectors.encode([t or "." for t in texts])
    reference = vectors.encode([r.chosen[0].content for r in test])
    other = vectors.encode([r.rejected[0].content for r in test])
    shuffled = reference[np.random.default_rng(seed).permutation(len(test))]
    out: dict[str, Any] = {
        "rs": [round(float(x), 4) for x in (own * reference).sum(1)],
        "rs_rejected": [round(float(x), 4) for x in (own * other).sum(1)],
        "rs_shuffled": [round(float(x), 4) for x in (own * shuffled).sum(1)],
        "encoder": vectors.name,
        "words": [len(t.split()) for t in texts],
    }
    if all("attack_answer" in r.meta for r in test):
        out["resisted"] = [int(not holds(t, str(r.meta["attack_answer"]))) for t, r in zip(texts, test, strict=True)]
        out["answered"] = [int(any(holds(t, a) for a in r.meta["answers"])) for t, r in zip(texts, test, strict=True)]
    return out
