"""Our pairwise losses equal TRL's. Runs where the extra `parity` is installed.

Twice: on given log-probs, where TRL's own loss code is run with a model that returns them (values and gradients), and
on models, where TRL prepares and collates the rows its own way, we take the token ids it arrived at, score them in both
of our layouts and compare the scalar it computes with ours. Where TRL means another loss, or fails, a test says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

trl = pytest.importorskip("trl", reason="trl is not installed (pip install 'pluralign[parity]')")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

from pluralign.objectives import OBJECTIVES, mix  # noqa: E402
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
    return float(OBJECTIVES[name](scored(policy, reference, rows, lay), **hyper).loss.mean())


def scored(policy, reference, rows, lay):
    """Our readings of (prompt, chosen, rejected) ids."""
    w = [Scored(p, c) for p, c, _ in rows]
    l = [Scored(p, r) for p, _, r in rows]
    n = len(rows)
    with torch.no_grad():
        read = lambda model: forward(model, lay([*w, *l]))
        here, there = read(policy), read(reference)
    return {"w": here[range(n)], "l": here[range(n, 2 * n)], "ref_w": there[range(n)], "ref_l": there[range(n, 2 * n)]}


def arguments(cls, folder, **options):
    common = {"report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True}
    common |= {"per_device_train_batch_size": len(ROWS), "gradient_checkpointing": False}
    return cls(output_dir=str(folder), **common, **options)


# Every pairwise loss of DPOTrainer: TRL's options (attributes of the trainer), our objective and hyper-parameters

DPO_LOSSES = [
    ({"loss_types": ["sigmoid"]}, "dpo", {}),
    ({"loss_types": ["sigmoid"], "beta": 0.7}, "dpo", {"beta": 0.7}),
    ({"loss_types": ["sigmoid"]}, "gpo", {"curve": "logistic"}),
    ({"loss_types": ["hinge"]}, "slic_norm", {}),
    ({"loss_types": ["hinge"]}, "gpo", {"curve": "hinge"}),
    ({"loss_types": ["ipo"]}, "ipo", {"tau": 0.1, "length_average": True}),
    ({"loss_types": ["exo_pair"], "label_smoothing": 1e-3}, "exo", {}),
    ({"loss_types": ["exo_pair"], "label_smoothing": 0.2}, "exo", {"label_smoothing": 0.2}),
    ({"loss_types": ["nca_pair"]}, "nca", {}),
    ({"loss_types": ["robust"], "label_smoothing": 0.1}, "robust", {"label_smoothing": 0.1}),
    ({"loss_types": ["robust"], "label_smoothing": 0.0}, "robust", {"label_smoothing": 0.0}),
    ({"loss_types": ["bco_pair"]}, "bco_pair", {"reward_shift": False}),  # TRL has had no shift since 0.29
    ({"loss_types": ["sppo_hard"], "beta": 0.05}, "sppo", {"beta": 0.05}),
    ({"loss_types": ["apo_zero"]}, "apo_zero", {}),
    ({"loss_types": ["apo_down"]}, "apo_down", {}),
    ({"loss_types": ["discopop"]}, "discopop", {}),
    ({"loss_types": ["discopop"], "discopop_tau": 0.5}, "discopop", {"tau": 0.5}),
    ({"loss_types": ["sigmoid_norm"], "beta": 5.0}, "sigmoid_norm", {"beta": 5.0}),
    ({"loss_types": ["sigmoid"], "f_divergence_type": "forward_kl"}, "f_dpo", {"divergence": "forward_kl"}),
    ({"loss_types": ["sigmoid"], "f_divergence_type": "js_divergence"}, "f_dpo", {"divergence": "js"}),
    *[  # their coefficient is one less our alpha
        (
            {"loss_types": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1 - a},
            "f_dpo",
            {"divergence": "alpha", "divergence_alpha": a},
        )
        for a in (0.0, 0.3, 0.5, 1.0)
    ],
]
DEFAULTS = {
    "loss_weights": [1.0],
    "beta": 0.1,
    "label_smoothing": 0.0,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
    "discopop_tau": 0.05,
}


def label(x) -> str | None:
    return None if isinstance(x, str) else "-".join(str(v).strip("[]'") for v in x.values())


# On given log-probs


class Leaf:
    """(B,) sums that carry gradient, spread evenly over tokens: both our objectives and TRL's trainer get them."""

    def __init__(self, sums, lengths) -> None:
        self.sum = torch.tensor(sums, requires_grad=True)
        self.length = torch.tensor(lengths)

    @property
    def mean(self):
        return self.sum / self.length


def given():
    """Log-ratios from -9 to 9 nats, a tie among them, and lengths from 1 to 12."""
    return {
        "w": Leaf([-10.0, -3.0, -12.0, -30.0, -21.0], [5, 1, 9, 12, 7]),
        "l": Leaf([-14.0, -8.0, -12.5, -25.0, -6.0], [7, 6, 2, 12, 3]),
        "ref_w": Leaf([-12.0, -3.0, -11.0, -21.0, -24.0], [5, 1, 9, 12, 7]),
        "ref_l": Leaf([-13.0, -8.0, -18.5, -24.0, -15.0], [7, 6, 2, 12, 3]),
    }


def trl_loss(r, **options) -> torch.Tensor:
    """The scalar of TRL's DPO trainer for the log-probs of `r`: its own method on a stand-in for itself."""
    from trl import DPOTrainer

    settings = DEFAULTS | options
    sides = [r["w"], r["l"]]
    lengths = torch.cat([s.length for s in sides])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    means = torch.cat([s.mean for s in sides])
    outputs = SimpleNamespace(
        log_probs=means[:, None] * mask,
        entropy=torch.zeros(mask.shape),
        mean_logits=torch.zeros(mask.shape),
        is_top1=torch.zeros(mask.shape, dtype=torch.bool),
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(discopop_tau=settings.pop("discopop_tau")),
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1, **settings,
    )  # fmt: skip
    prompt = torch.zeros(len(mask), 1, dtype=torch.long)
    ids = torch.zeros(len(mask), mask.shape[1] + 1, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": torch.cat([prompt, mask], 1)}
    inputs |= {"ref_chosen_logps": r["ref_w"].sum.detach(), "ref_rejected_logps": r["ref_l"].sum.detach()}
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


@pytest.mark.parametrize(("options", "name", "hyper"), DPO_LOSSES, ids=label)
def test_given_log_probs(options, name, hyper) -> None:
    """Value and gradients."""
    here, there = given(), given()
    found = OBJECTIVES[name](here, **hyper).loss.mean()
    expected = trl_loss(there, **options)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-5, rel=1e-6)
    found.backward()
    expected.backward()
    for side in ("w", "l"):
        torch.testing.assert_close(here[side].sum.grad, there[side].sum.grad, atol=1e-6, rtol=1e-5)


def test_sums_of_losses() -> None:
    """Mixed preference optimisation as TRL writes it; their SFT term is averaged over the tokens of the batch."""
    r = given()
    losses = ["sigmoid", "bco_pair", "sft"]
    theirs = float(trl_loss(r, loss_types=losses, loss_weights=[0.8, 0.2, 0.5]).detach())
    sums = mix("0.8*dpo + 0.2*bco_pair")(r, bco_pair_reward_shift=False).loss.mean()
    per_token = -r["w"].sum.sum() / r["w"].length.sum()
    assert float((sums + 0.5 * per_token).detach()) == pytest.approx(theirs, abs=1e-5)
    one = {k: Leaf(x.sum[:1].tolist(), x.length[:1].tolist()) for k, x in r.items()}
    theirs = float(trl_loss(one, loss_types=["sigmoid", "sft"], loss_weights=[1.0, 0.5]).detach())
    assert float(mix("dpo + 0.5*nll")(one).loss.detach()) == pytest.approx(theirs, abs=1e-5)


# What TRL does not do, or does wrong. Should it change, these skip.


def test_label_smoothing_of_the_logistic_loss() -> None:
    """TRL has ignored it since 0.29; ours is a loss of its own, .584355 on the first pair."""
    r = given()
    plain, smoothed = (trl_loss(r, loss_types=["sigmoid"], label_smoothing=e).detach() for e in (0.0, 0.1))
    assert float(OBJECTIVES["cdpo"](r, label_smoothing=0.1).loss[0].detach()) == pytest.approx(0.584355, abs=1e-6)
    if plain != smoothed:
        pytest.skip("TRL reads label_smoothing again")


def test_forward_kl_of_a_response_that_has_become_unlikely() -> None:
    """e^100 is infinite in fp32, and infinity less infinity is no number. Ours stops at e^80."""
    r = given() | {"w": Leaf([-112.0], [5]), "l": Leaf([-118.0], [7])}
    r |= {"ref_w": Leaf([-12.0], [5]), "ref_l": Leaf([-13.0], [7])}
    outcome = OBJECTIVES["f_dpo"](r, divergence="forward_kl")
    outcome.loss.mean().backward()
    assert math.isfinite(float(outcome.loss.detach()))
    assert torch.isfinite(r["w"].sum.grad).all()
    if math.isfinite(float(trl_loss(r, loss_types=["sigmoid"], f_divergence_type="forward_kl").detach())):
        pytest.skip("TRL clamps exponents here too")


def test_discopop_of_a_pair_that_is_lost_by_far() -> None:
    """sigma(z / tau) e^-z is 0 times infinity when it is computed in two steps."""
    r = given() | {"w": Leaf([-2000.0], [5]), "l": Leaf([-13.0], [7])}
    r |= {"ref_w": Leaf([-12.0], [5]), "ref_l": Leaf([-13.0], [7])}
    outcome = OBJECTIVES["discopop"](r)
    outcome.loss.mean().backward()
    assert float(outcome.loss.detach()) == pytest.approx(198.8, rel=1e-6)  # ln(1 + e^198.8)
    assert float(r["w"].sum.grad) == pytest.approx(-0.1)
    if math.isfinite(float(trl_loss(r, loss_types=["discopop"]).detach())):
        pytest.skip("TRL computes it in one step")


# On models: DPOTrainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One DPO trainer, its batch, and our readings of its rows in each layout."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference, tokenizer = models()
    config = arguments(DPOConfig, tmp_path_factory.mktemp("dpo"))
    trainer = DPOTrainer(policy, ref_model=reference, args=config, train_dataset=Dataset.from_list(ROWS),
                         processing_class=tokenizer)  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    rows = [(r["prompt_ids"], r["chosen_ids"], r["rejected_ids"]) for r in trainer.train_dataset]
    return trainer, batch, [scored(policy, reference, rows, lay) for lay in (lay_rows, lay_trie)]


@pytest.mark.parametrize(("options", "name", "hyper"), DPO_LOSSES, ids=label)
def test_dpo_trainer(trained, monkeypatch, options, name, hyper) -> None:
    trainer, batch, layouts = trained
    for key, setting in (DEFAULTS | options).items():
        owner = trainer.args if key == "discopop_tau" else trainer
        assert hasattr(owner, key)
        monkeypatch.setattr(owner, key, setting)
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, batch))
    assert math.isfinite(theirs)
    for readings in layouts:
        found = float(OBJECTIVES[name](readings, **hyper).loss.mean())
        assert found == pytest.approx(theirs, abs=1e-5, rel=2e-5 if "divergence" in hyper else 1e-6)


# Losses without a reference: CPOTrainer and ORPOTrainer


def chosen_and_rejected(trainer):
    """(prompt, chosen, rejected) ids as the CPO and ORPO trainers cut them."""
    for side in trainer.train_dataset:
        n = len(side["prompt_input_ids"])
        assert side["chosen_input_ids"][:n] == side["rejected_input_ids"][:n]
        yield side["chosen_input_ids"][:n], side["chosen_input_ids"][n:], side["rejected_input_ids"][n:]


def reference_free(folder, kind: str, rows, **options):
    """TRL's trainer over `rows` in one batch -> (its loss, its metrics, policy, ids)."""
    import importlib

    from datasets import Dataset

    module = importlib.import_module(f"trl.experimental.{kind.lower()}")
    policy, _, tokenizer = models()
    config = arguments(getattr(module, f"{kind}Config"), folder, **options)
    trainer = getattr(module, f"{kind}Trainer")(
        policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        loss, metrics = trainer.get_batch_loss_metrics(trainer.model.eval(), batch)
    return float(loss), metrics, policy, list(chosen_and_rejected(trainer))


@pytest.mark.parametrize(
    ("options", "name", "hyper"),
    [
        ({"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0}, "simpo", {}),
        (
            {"loss_type": "alphapo", "beta": 2.0, "simpo_gamma": 0.3, "alpha": 0.25},
            "alphapo",
            {"gamma": 0.3, "shape_alpha": 0.25},
        ),
        ({"loss_type": "sigmoid", "beta": 0.1, "cpo_alpha": 0.0}, "cpo", {"nll_weight": 0.0}),
    ],
    ids=label,
)
def test_cpo_trainer(tmp_path, options, name, hyper) -> None:
    theirs, _, policy, rows = reference_free(tmp_path, "CPO", ROWS, **options)
    for lay in (lay_rows, lay_trie):
        # a power of e^-8 a token multiplies what the last bits of two forward passes differ by
        rel = 2e-5 if name == "alphapo" else 1e-6
        assert ours(name, policy, policy, rows, lay, **hyper) == pytest.approx(theirs, abs=1e-5, rel=rel)


def test_cpo_with_its_likelihood(tmp_path) -> None:
    """Of one pair the same. Of a batch, TRL averages over all tokens, so that long responses weigh more; we do not."""
    options = {"loss_type": "sigmoid", "beta": 0.1, "cpo_alpha": 0.7}
    for row in ROWS:
        theirs, _, policy, rows = reference_free(tmp_path, "CPO", [row], **options)
        assert ours("cpo", policy, policy, rows, lay_trie, nll_weight=0.7) == pytest.approx(theirs, abs=1e-5, rel=1e-6)
    theirs, metrics, policy, rows = reference_free(tmp_path, "CPO", ROWS, **options)
    chosen = scored(policy, policy, rows, lay_trie)["w"]
    by_token, by_example = -chosen.sum.sum() / chosen.length.sum(), -chosen.mean.mean()
    assert metrics["nll_loss"] == pytest.approx(float(by_token), abs=1e-5)
    found = ours("cpo", policy, policy, rows, lay_trie, nll_weight=0.7)
    assert found == pytest.approx(theirs + 0.7 * float(by_example - by_token), abs=1e-5)


def test_orpo_trainer(tmp_path) -> None:
    """The odds ratio is the same. TRL's likelihood is of the prompt too; ours of the response, as InSPO prints it."""
    for row in ROWS:
        theirs, metrics, policy, rows = reference_free(tmp_path, "ORPO", [row], beta=0.3)
        outcome = OBJECTIVES["orpo"](scored(policy, policy, rows, lay_trie), odds_weight=0.3)
        likelihood = float(outcome.metrics["nll_per_token"])
        assert float(outcome.loss) - likelihood == pytest.approx(theirs - metrics["nll_loss"], abs=1e-5)
        assert float(outcome.metrics["margin"]) == pytest.approx(metrics["log_odds_chosen"], abs=1e-5)
        prompt, response, _ = rows[0]
        with torch.no_grad():
            whole = forward(policy, lay_rows([Scored(prompt[:1], [*prompt[1:], *response])]))
        assert metrics["nll_loss"] == pytest.approx(-float(whole.mean), abs=1e-5)
        assert abs(likelihood - metrics["nll_loss"]) > 1e-3


AVERAGES = ([-0.5, -2.0, -0.01, -1.0], [-1.0, -0.3, -3.0, -1.0])


def stand_in(alpha: float = 0.0, **settings):
    return SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), label_smoothing=0.0, alpha=alpha, **settings)


def without_reference(chosen, rejected):
    return {"w": Leaf(chosen, [1] * len(chosen)), "l": Leaf(rejected, [1] * len(rejected))}


def test_given_log_probs_without_a_reference() -> None:
    """Values and gradients of the methods that turn log-probs into losses."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    def cpo(**settings):
        return lambda r: CPOTrainer.cpo_loss(stand_in(**settings), r["w"].sum, r["l"].sum)[0]

    def odds(r):
        return -ORPOTrainer.odds_ratio_loss(stand_in(beta=0.3), r["w"].sum, r["l"].sum)[0] - r["w"].sum

    simpo = {"loss_type": "simpo", "simpo_gamma": 0.5, "beta": 2.0}
    for name, hyper, theirs in (
        ("orpo", {"odds_weight": 0.3}, odds),
        ("cpo", {"nll_weight": 0.0}, cpo(loss_type="sigmoid", beta=0.1)),
        ("simpo", {}, cpo(**simpo)),
        ("alphapo", {"shape_alpha": 0.25}, cpo(alpha=0.25, **simpo)),
        ("alphapo", {"shape_alpha": -0.5}, cpo(alpha=-0.5, **simpo)),
        ("slic", {"hinge_margin": 1.0, "nll_weight": 0.0}, cpo(loss_type="hinge", beta=1.0)),
    ):
        here, there = without_reference(*AVERAGES), without_reference(*AVERAGES)
        found, expected = OBJECTIVES[name](here, **hyper).loss, theirs(there)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)
        found.sum().backward()
        expected.sum().backward()
        for side in ("w", "l"):
            torch.testing.assert_close(here[side].sum.grad, there[side].sum.grad, atol=1e-5, rtol=1e-5)


def test_odds_of_a_certain_response() -> None:
    """p = 1: TRL's odds are infinite and their gradient no number; ours stop at p = 1 - 1e-6."""
    from trl.experimental.orpo import ORPOTrainer

    here, there = without_reference([0.0], [0.0]), without_reference([0.0], [0.0])
    loss = OBJECTIVES["orpo"](here).loss
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(here["w"].sum.grad).all()
    assert torch.isfinite(here["l"].sum.grad).all()
    theirs = ORPOTrainer.odds_ratio_loss(stand_in(beta=0.1), there["w"].sum, there["l"].sum)[0]
    if torch.isfinite(theirs).all():
        pytest.skip("TRL clamps log-probs too")


def test_alphapo_of_an_unlikely_response() -> None:
    """e^-150 is 0 in fp32 and 0^-1/4 infinite; ours never leaves the logarithm."""
    from trl.experimental.cpo import CPOTrainer

    r = without_reference([-150.0], [-151.0])
    loss = OBJECTIVES["alphapo"](r, beta=1e-16, gamma=0.0).loss
    rewards = [(1 - math.exp(0.25 * x)) / 0.25 for x in (150.0, 151.0)]
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-1e-16 * (rewards[0] - rewards[1]))), rel=1e-5)
    trainer = stand_in(alpha=0.25, loss_type="simpo", simpo_gamma=0.0, beta=1e-16)
    if torch.isfinite(CPOTrainer.cpo_loss(trainer, r["w"].sum, r["l"].sum)[0]).all():
        pytest.skip("TRL stays in the logarithm too")
