"""Our losses equal TRL's on the same model and batch. Runs where the extra `parity` is installed.

TRL prepares and collates the rows its own way; we take the token ids it arrived at, score them in both of our
layouts and compare the scalar it computes with ours.
"""

from __future__ import annotations

import pytest
import torch

trl = pytest.importorskip("trl", reason="trl is not installed (pip install 'pluralign[parity]')")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

from pluralign.objectives import OBJECTIVES  # noqa: E402
from pluralign.policy import EMBEDDED  # noqa: E402
from pluralign.scoring.forward import forward  # noqa: E402
from pluralign.scoring.layout import Scored, lay_rows, lay_trie  # noqa: E402

ROWS = [
    {"prompt": "Tell me about owls.", "chosen": " Owls hunt at night.", "rejected": " No."},
    {"prompt": "Why?", "chosen": " Because it is so, and it was so before.", "rejected": " I do not know why that is."},
    {
        "prompt": "How do I boil an egg for breakfast?",
        "chosen": " Six minutes.",
        "rejected": " Boil the egg, then eat it.",
    },
]


def models():
    """(policy, reference) with one shape and different weights, and the embedded tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    pair = [AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval() for _ in range(2)]
    for model in pair:
        for p in model.parameters():
            p.data.mul_(3.0) if p.dim() > 1 else None
    return *pair, tokenizer


def ours(name: str, policy, reference, rows, lay, **hyper) -> float:
    w = [Scored(p, c) for p, c, _ in rows]
    l = [Scored(p, r) for p, _, r in rows]
    n = len(rows)
    with torch.no_grad():
        read = lambda model: forward(model, lay([*w, *l]))
        here, there = read(policy), read(reference)
    r = {"w": here[range(n)], "l": here[range(n, 2 * n)], "ref_w": there[range(n)], "ref_l": there[range(n, 2 * n)]}
    return float(OBJECTIVES[name](r, **hyper).loss.mean())


def arguments(cls, folder, **options):
    common = {"report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True}
    common |= {"per_device_train_batch_size": len(ROWS), "gradient_checkpointing": False}
    return cls(output_dir=str(folder), **common, **options)


@pytest.mark.parametrize(
    ("loss_type", "name", "hyper"),
    [
        ("sigmoid", "dpo", {"beta": 0.1}),
        ("sigmoid", "dpo", {"beta": 0.7}),
        ("ipo", "ipo", {"tau": 0.1, "length_average": True}),
    ],
)
def test_dpo_trainer(tmp_path, loss_type, name, hyper) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference, tokenizer = models()
    config = arguments(DPOConfig, tmp_path, beta=next(iter(hyper.values())), loss_type=loss_type)
    trainer = DPOTrainer(policy, ref_model=reference, args=config, train_dataset=Dataset.from_list(ROWS),
                         processing_class=tokenizer)  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model.eval(), batch))
    rows = [(r["prompt_ids"], r["chosen_ids"], r["rejected_ids"]) for r in trainer.train_dataset]
    for lay in (lay_rows, lay_trie):
        assert ours(name, policy, reference, rows, lay, **hyper) == pytest.approx(theirs, abs=1e-5, rel=1e-6)


def test_simpo_of_the_cpo_trainer(tmp_path) -> None:
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    policy, reference, tokenizer = models()
    config = arguments(CPOConfig, tmp_path, beta=2.0, loss_type="simpo", simpo_gamma=0.5, cpo_alpha=0.0)
    trainer = CPOTrainer(policy, args=config, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = float(trainer.get_batch_loss_metrics(trainer.model.eval(), batch)[0])
    rows = []
    for side in trainer.train_dataset:
        n = len(side["prompt_input_ids"])
        rows.append((side["chosen_input_ids"][:n], side["chosen_input_ids"][n:], side["rejected_input_ids"][n:]))
        assert side["chosen_input_ids"][:n] == side["rejected_input_ids"][:n]
    for lay in (lay_rows, lay_trie):
        assert ours("simpo", policy, reference, rows, lay, beta=2.0, gamma=0.5) == pytest.approx(
            theirs, abs=1e-5, rel=1e-6
        )
