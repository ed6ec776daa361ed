"""Our unpaired, tokenwise and batchwise losses equal TRL's on the same models and the same token ids."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("trl", reason="trl is not installed (pip install 'pluralign[parity]')")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

from pluralign.objectives import OBJECTIVES, batchwise, tokenwise, unpaired  # noqa: E402
from pluralign.scoring.forward import forward  # noqa: E402
from pluralign.scoring.layout import Scored, lay_rows, lay_trie  # noqa: E402

from .test_trl import ROWS, arguments, models  # noqa: E402

assert batchwise and tokenwise and unpaired  # noqa: PT018 - imported for what they register

LAYOUTS = (lay_rows, lay_trie)
# Responses of one length among others: where lengths alone decide, sorting each side finds the pairs again.
PAIRS = [
    *ROWS,
    {"prompt": "Name a river.", "chosen": " The Rhine is one.", "rejected": " The owl is one."},
    {"prompt": "Is it late?", "chosen": " It is not late.", "rejected": " It was so before."},
    {"prompt": "Why not?", "chosen": " I can not know.", "rejected": " You do not say."},
    {"prompt": "Who is it?", "chosen": " It is the egg.", "rejected": " He is the river."},
]
SINGLE = [
    {"prompt": "Tell me about owls.", "completion": " Owls hunt at night.", "label": True},
    {"prompt": "Why?", "completion": " I do not know why that is.", "label": False},
    {"prompt": "How do I boil an egg for breakfast?", "completion": " Six minutes.", "label": True},
    {"prompt": "Name a river.", "completion": " No.", "label": False},
    {"prompt": "Is it late?", "completion": " It is late, and it was late before.", "label": False},
]


def read(model, pairs, lay, reads=("sum", "length")):
    """Readings of (context, target) rows."""
    with torch.no_grad():
        return forward(model, lay([Scored(c, t) for c, t in pairs]), reads)


# Pairs


@pytest.fixture
def trained(tmp_path):
    """A DPO trainer over PAIRS -> (loss of TRL, our readings in a layout)."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference, tokenizer = models()

    def run(**options):
        config = arguments(DPOConfig, tmp_path, **options)
        config.per_device_train_batch_size = len(PAIRS)
        trainer = DPOTrainer(policy, ref_model=reference, args=config, train_dataset=Dataset.from_list(PAIRS),
                             processing_class=tokenizer)  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        with torch.no_grad():
            theirs = float(trainer.compute_loss(trainer.model.eval(), batch))
        rows, n = list(trainer.train_dataset), len(PAIRS)
        sides = [(r["prompt_ids"], r["chosen_ids"]) for r in rows] + [
            (r["prompt_ids"], r["rejected_ids"]) for r in rows
        ]

        def readings(lay, reads):
            here, there = read(policy, sides, lay, ("sum", "length", *reads)), read(reference, sides, lay)
            first, second = range(n), range(n, 2 * n)
            return {"w": here[first], "l": here[second], "ref_w": there[first], "ref_l": there[second]}

        return theirs, readings

    return run


@pytest.mark.parametrize(
    ("options", "name", "hyper"),
    [
        ({"loss_type": "aot"}, "aot", {}),
        ({"loss_type": "aot", "label_smoothing": 0.2}, "aot", {"label_smoothing": 0.2}),
        ({"loss_type": "aot_unpaired"}, "aot_unpaired", {}),
        ({"loss_type": "aot_unpaired", "label_smoothing": 0.2}, "aot_unpaired", {"label_smoothing": 0.2}),
        ({"ld_alpha": 1.0}, "ld_dpo", {"ld_alpha": 1.0}),
        ({"ld_alpha": 0.3}, "ld_dpo", {"ld_alpha": 0.3}),
        ({"ld_alpha": 0.0}, "ld_dpo", {"ld_alpha": 0.0}),
        ({"use_weighting": True}, "wpo", {}),
    ],
)
def test_dpo_trainer(trained, options, name, hyper) -> None:
    theirs, readings = trained(beta=0.3, **options)
    objective = OBJECTIVES[name]
    for lay in LAYOUTS:
        found = float(objective(readings(lay, objective.reads), beta=0.3, **hyper).loss.mean())
        assert found == pytest.approx(theirs, abs=1e-5, rel=1e-6)


def test_the_options_compared_do_change_the_loss(trained) -> None:
    """Else the comparison above would hold for plain DPO as well."""
    plain, _ = trained(beta=0.3)
    for options in ({"loss_type": "aot"}, {"loss_type": "aot_unpaired"}, {"ld_alpha": 0.3}, {"use_weighting": True}):
        assert abs(trained(beta=0.3, **options)[0] - plain) > 1e-3, options


# Single responses


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("kto", {}),
        ("kto", {"desirable_weight": 1.3, "undesirable_weight": 0.4}),
        ("apo_zero_unpaired", {}),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_kto_trainer(tmp_path, name, hyper, swapped) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    policy, reference, tokenizer = models()
    if swapped:
        policy, reference = reference, policy
    config = arguments(KTOConfig, tmp_path, beta=0.3, loss_type=name, **hyper)
    config.per_device_train_batch_size = len(SINGLE)
    trainer = KTOTrainer(policy, ref_model=reference, args=config, train_dataset=Dataset.from_list(SINGLE),
                         processing_class=tokenizer)  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model.eval(), batch))

    rows = split(batch, "")
    for lay in LAYOUTS:
        r = {
            "y": read(policy, rows, lay),
            "ref_y": read(reference, rows, lay),
            "label": torch.as_tensor(batch["label"]),
        }
        if name == "kto":
            crossed = split(batch, "KL_")
            assert sorted(t for _, t in crossed) == sorted(t for _, t in rows)  # the same responses, each elsewhere
            assert all(a != b for a, b in zip(crossed, rows, strict=True))
            r |= {"mismatched": read(policy, crossed, lay), "ref_mismatched": read(reference, crossed, lay)}
        outcome = OBJECTIVES[name](r, beta=0.3, **hyper)
        assert float(outcome.loss.mean()) == pytest.approx(theirs, abs=1e-5, rel=1e-6)
        if name == "kto":
            assert bool(outcome.metrics["kl"][0] > 0) != swapped  # one way round z0 counts, the other way it is clamped


def split(batch, prefix: str) -> list[tuple[list[int], list[int]]]:
    """(context, target) of the rows of a batch, padding left out."""
    out = []
    for ids, there, completion in zip(
        batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], batch[f"{prefix}completion_mask"], strict=True
    ):
        own = [(int(i), bool(c)) for i, a, c in zip(ids, there, completion, strict=True) if a]
        out.append(([i for i, c in own if not c], [i for i, c in own if c]))
    return out
