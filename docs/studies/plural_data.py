"""What the offline counterparts of A-IPO's metrics are worth: known answers, good and bad, measured by each of them.

    python docs/studies/plural_data.py            # prints the tables of plural_data.md; some minutes on one core

Rows come from the folder of public data (PLURALIGN_SHARED). Nothing is trained but a classifier on vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from pluralign.benchmarks import benchmark
from pluralign.benchmarks.kinds.core import settings_of
from pluralign.benchmarks.kinds.questions import QuestionFiles, data_folder
from pluralign.curate.plural import attack_pref, dsp_intents, opinion_ext, prefeval_intents, rows_of, three_ways
from pluralign.encoders import Encoder, encoder
from pluralign.judging.intent_metrics import (
    classifier_intents,
    dsr_contained,
    expressed_nearest,
    nearer_reference,
    same_intent,
    similarity,
)
from pluralign.judging.statistics import Estimate, mean_interval, share_interval

PLACES = {
    "attack-pref": "mkqa_nq/nq_open_dev.jsonl.gz",
    "opinion-ext": "opinion_distributions/globalopinionqa_eval.jsonl.gz",
    "prefeval": "prefeval/mcq_options.jsonl.gz",
    "dsp": "dsp_domain/dsp.jsonl.gz",
}
TRAINED_ON = 600  # responses that the classifier sees


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def head(*cells: str) -> None:
    row(*cells)
    row(*("---" for _ in cells))


def built() -> None:
    head("data", "rows", "used", "skipped", "records", "intents", "groups", "train / validation / test")
    for name, make in (("attack-pref", attack_pref), ("opinion-ext", opinion_ext), ("prefeval", prefeval_intents),
                       ("dsp", dsp_intents)):  # fmt: skip
        found = make(rows_of(data_folder() / PLACES[name]))
        said = found.report()
        skipped = ", ".join(f"{n} {why}" for why, n in found.skipped.items()) or "none"
        parts = " / ".join(f"{len(part):,}" for part in three_ways(found.records).values())
        row(name, *(f"{said[key]:,}" for key in ("rows", "used")), skipped,
            *(f"{said[key]:,}" for key in ("records", "intents", "groups")), parts)  # fmt: skip


def containment() -> None:
    records = attack_pref(rows_of(data_folder() / PLACES["attack-pref"])).records
    for side in ("chosen", "rejected"):
        said = [getattr(record, side)[0].content for record in records]
        values = [dsr_contained(text, record.meta["answers"], record.meta["attack_answer"])
                  for text, record in zip(said, records, strict=True)]  # fmt: skip
        row("dsr_contained", "attack-pref", side, share_interval(values))


def by_encoder(name: str, vectors: Encoder) -> None:
    chosen = benchmark(name)
    items = chosen.read(QuestionFiles(chosen), settings_of(chosen))
    among = [(item.intent, *item.rivals) for item in items]
    for side in ("reference", "rejected"):
        said: Sequence[str] = [getattr(item, side) for item in items]
        near = expressed_nearest(said, [item.intent for item in items], among, vectors)
        row("ric_nearest", name, side, share_interval(near))
    alike = similarity([item.rejected for item in items], [item.reference for item in items], vectors)
    row("rs", name, "rejected", alike.mean)
    row("rs, shuffled", name, "rejected", alike.baseline)


def contrast(vectors: Encoder) -> None:
    rows = list(rows_of(data_folder() / PLACES["prefeval"]))[::3]
    good, bad, *others = (list(own) for own in zip(*(r["classification_task_options"] for r in rows), strict=True))
    for number, said in enumerate(others, start=2):
        row("ric_contrast", "prefeval", f"other violation {number}",
            mean_interval(nearer_reference(said, good, bad, vectors)))  # fmt: skip


def classified(vectors: Encoder) -> Estimate:
    parts = three_ways(dsp_intents(rows_of(data_folder() / PLACES["dsp"])).records)
    train = [(r.chosen[0].content, r.intent or "") for r in parts["train"][:TRAINED_ON]]
    test = parts["test"]
    found = classifier_intents(train, [r.chosen[0].content for r in test], vectors)
    return share_interval(same_intent([r.intent for r in test], found))


def main() -> None:
    built()
    print()
    head("figure", "data", "response", "value")
    containment()
    vectors = encoder("minilm")
    for name in ("opinion-ext", "real-pref"):
        by_encoder(name, vectors)
    contrast(vectors)
    row("ric_classifier", "dsp", "chosen", classified(vectors))


if __name__ == "__main__":
    main()
