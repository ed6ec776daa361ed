"""A-IPO: its loss as identities of other losses, where gradients go, and whole runs on a small plural world."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pluralign.conditioning import Conditioning, bare, plain, slot_of, view
from pluralign.errors import SettingsError
from pluralign.heads.intent import IntentionModule, classification, intention_of, log_posterior
from pluralign.intention import IntentForm, fit_intents
from pluralign.objectives import OBJECTIVES, find
from pluralign.policy import Policy
from pluralign.scoring.layout import Beside
from pluralign.training.goal import Goal
from pluralign.training.intent_goal import IntentGoal, Tilted, beta_of, refuse_tilt
from pluralign.training.intents import posterior
from pluralign.training.run import align

from .conftest import plural

INTENTS = ("bread", "trees")


@dataclass
class Read:
    """A reading as a pass returns it."""

    sum: Tensor
    length: Tensor
    sim: Tensor | None = None
    intent: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        return self.sum / self.length


def readings(slots: int = 2, *, grad: bool = False, seed: int = 0) -> dict[str, Any]:
    """Random readings of 3 pairs under candidate intents, and what the intention module says of 4 intents."""
    g = torch.Generator().manual_seed(seed)
    number = lambda *shape: torch.randn(*shape, generator=g).requires_grad_(grad)
    logits = number(3, 4)
    length = torch.tensor([4, 5, 6])
    out: dict[str, Any] = {}
    for k in range(slots):
        for name in ("w", "l"):
            out[f"{name}@{k}"] = Read(number(3) - 10, length, number(3).sigmoid(), logits)
            out[f"ref_{name}@{k}"] = Read(number(3) - 10, length)
    at = torch.tensor([[0, 1], [2, 3], [1, 0]])[:, :slots]
    q = log_posterior(logits.detach()).gather(1, at).softmax(1)
    out |= {"candidates": at.float(), "candidate_q": q, "intent_label": torch.tensor([0.0, -1.0, 1.0])}
    return out


def goal(objective: str = "dpo", conditioning: str = "none", **intents: Any) -> Goal:
    return Goal(find(objective), {}, Conditioning(conditioning), intents=IntentGoal(**{"slots": 2, **intents}))


# Names


def test_names_say_intent_and_other_response() -> None:
    assert [slot_of(n) for n in ("w", "w@1", "ys.3@2|other")] == [None, 1, 2]
    assert [plain(n) for n in ("w", "w@1", "ys.3@2|other")] == ["w", "w", "ys.3"]
    assert bare("w@1|l") == "w@1"
    assert view({"w@0": 1, "w@1": 2, "w@1|l": 3, "c": 4}, True, 1) == {"w": 3, "c": 4}


# The loss


def test_without_similarity_and_with_one_certain_intent_it_is_dpo_under_that_intent() -> None:
    """lambda = 0, K = 1: Eq. 10 is Eq. 15 of the paper with I in every context."""
    r = readings(1)
    r["candidate_q"] = torch.ones(3, 1)
    plain_dpo = OBJECTIVES["dpo"](view(r, False, 0))
    ours = goal(slots=1).outcome(r, goal(slots=1).views())
    assert torch.equal(ours.loss, plain_dpo.loss)
    assert torch.equal(ours.metrics["margin"], plain_dpo.metrics["margin"])


def test_hand_worked_value() -> None:
    """beta rho = .3, lambda delta-sim = 1 * .3: logit .6, loss ln(1 + e^-.6) = .437488."""
    one = torch.ones(1)
    r = {
        "w@0": Read(one * 3, one, one * 0.8), "l@0": Read(one * 0, one, one * 0.5),
        "ref_w@0": Read(one * 0, one), "ref_l@0": Read(one * 0, one), "candidate_q": torch.ones(1, 1),
    }  # fmt: skip
    both = goal(slots=1, similarity=1.0)
    out = both.outcome(r, both.views())
    assert float(out.loss) == pytest.approx(0.437488, abs=1e-6)
    assert float(out.metrics["delta_sim"]) == pytest.approx(0.3)
    assert float(out.metrics["margin"]) == pytest.approx(0.6)
    assert float(out.metrics["policy_margin"]) == pytest.approx(0.3)


def test_a_point_mass_gives_the_loss_under_that_intent_and_a_mixture_the_mean() -> None:
    r = readings()
    each = [OBJECTIVES["dpo"](view(r, False, k)).loss for k in (0, 1)]
    mixed = goal(weights="posterior")
    q = log_posterior(r["w@0"].intent).gather(1, r["candidates"].long()).softmax(1)
    assert torch.allclose(mixed.outcome(r, mixed.views()).loss, q[:, 0] * each[0] + q[:, 1] * each[1])
    certain = torch.full((3, 4), -200.0).scatter(1, r["candidates"].long()[:, :1], 200.0)
    for reading in r.values():
        if getattr(reading, "intent", None) is not None:
            reading.intent = certain
    assert torch.allclose(mixed.outcome(r, mixed.views()).loss, each[0])


def test_the_logit_shifts_by_exactly_lambda_times_delta_sim() -> None:
    """Lemma 5.2, under every objective of pairs that has a logit; IPO's margin is its tau rho."""
    r, lam = readings(1), 0.7
    r |= {"candidate_q": torch.ones(3, 1), "margin": torch.tensor([0.5, 1.0, 2.0])}
    gap = r["w@0"].sim - r["l@0"].sim
    moved = []
    for name, objective in OBJECTIVES.items():
        if objective.data != "pairs" or set(objective.needs) - {"w", "l", "ref_w", "ref_l", "margin"}:
            continue
        if objective.statistics is not None or objective.update is not None:
            continue
        try:
            refuse_tilt(objective, {})
        except SettingsError:
            continue
        margins = []
        for weight in (0.0, lam):
            g = replace(goal(slots=1, similarity=weight), objective=objective)
            margins.append(g.outcome(r, g.views()).metrics["margin"])
        assert torch.allclose(margins[1] - margins[0], lam * gap, atol=1e-5), name
        moved.append(name)
    assert {"dpo", "ipo", "r_dpo", "simpo", "orpo", "cpo", "sigmoid_norm", "robust", "slic", "alphapo"} <= set(moved)


def test_objectives_without_a_place_for_the_similarity_say_so() -> None:
    with pytest.raises(SettingsError, match="no logit"):
        refuse_tilt(OBJECTIVES["sft"], {})
    with pytest.raises(SettingsError, match="no logit"):
        refuse_tilt(OBJECTIVES["tdpo1"], {})
    assert beta_of(OBJECTIVES["ipo"], {"tau": 0.3}) == 0.3
    assert beta_of(find("dpo + 0.2*nll"), {}) == 0.1


def test_tilting_the_reference_is_theorem_5_1() -> None:
    """beta (log pi - log pi_ref') with pi_ref' = pi_ref exp(-lambda sim / beta) is r + lambda sim."""
    ref = Read(torch.tensor([-4.0]), torch.tensor([2]))
    tilted = Tilted(ref, -0.5 / 0.1 * torch.tensor([0.6]))
    assert float(0.1 * (torch.tensor(-3.0) - tilted.sum)) == pytest.approx(0.1 * (-3 + 4) + 0.5 * 0.6)
    assert tilted.length is ref.length


def test_a_drawn_intent_has_the_expectation_of_the_sum() -> None:
    """E over draws from the stored shares of ratio * loss, and of its gradient in q, is the sum's."""
    r, whole = readings(grad=True), goal(weights="posterior")
    r["candidate_q"] = torch.tensor([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])  # from an older module
    exact = whole.outcome(r, whole.views()).loss.sum()
    drawn = goal(weights="drawn")
    total: Any = 0.0
    for k in (0, 1):
        one = {plain(n) + "@0" if slot_of(n) is not None else n: v for n, v in r.items() if slot_of(n) in (None, k)}
        one["slot"] = torch.full((3,), k)
        total = total + (r["candidate_q"][:, k] * drawn.outcome(one, drawn.views()).loss).sum()
    assert total.item() == pytest.approx(exact.item(), rel=1e-5)
    logits = r["w@0"].intent
    first, second = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (exact, total))
    assert torch.allclose(first, second, atol=1e-6)


def test_kl_and_classification() -> None:
    """q = (1/2, 1/2) against p = (1/4, 3/4): KL = ln 2 / 2 + ln(2/3) / 2 = .143841; L_i = ln 2, unlabelled 0."""
    r = readings(1)
    for name in ("w@0", "l@0"):
        r[name].intent = torch.zeros(3, 2)
    r |= {"candidate_q": torch.ones(3, 1), "candidates": torch.zeros(3, 1)}
    g = goal(slots=1, kl=2.0, classify=3.0, prior=(0.25, 0.75))
    base = goal(slots=1).outcome(r, goal(slots=1).views()).loss
    extra = g.outcome(r, g.views()).loss - base
    kl, nats = 0.14384104, 0.69314718
    assert extra.tolist() == pytest.approx([2 * kl + 3 * nats, 2 * kl, 2 * kl + 3 * nats], abs=1e-5)
    # Eq. 5 as printed: mean over the two intents of -s log i - (1 - s) log(1 - i), both ln 2 at i = 1/2
    assert float(classification(torch.zeros(1, 2), torch.tensor([1]), "bce")) == pytest.approx(nats)


def test_similarity_lies_in_the_unit_interval_and_its_gap_in_minus_one_to_one() -> None:
    module = IntentionModule(6, 3)
    h = torch.randn(50, 6) * 100
    sim = module.similarity(h, torch.arange(50) % 3)
    assert bool((sim >= 0).all())
    assert bool((sim <= 1).all())
    same = module.table.weight[:1].detach()
    assert module.similarity(same, torch.tensor([0])).tolist() == pytest.approx([1.0])
    assert module.similarity(-same, torch.tensor([0])).tolist() == pytest.approx([0.0], abs=1e-6)


def test_gradients_go_where_the_equations_say() -> None:
    """theta and E by the similarity; phi by q, KL and L_i; the policy's states get none from the posterior."""
    module = IntentionModule(6, 3)
    states, pooled = torch.randn(2, 6, requires_grad=True), torch.randn(2, 6, requires_grad=True)
    torch.nn.init.normal_(module.classifier.weight)
    logits, sim = module(states, pooled, Beside(torch.tensor([1, -1]), torch.tensor([0, 1])))
    assert sim[1].item() == 0.0, "no intent has no similarity"
    sim.sum().backward(retain_graph=True)
    assert module.table.weight.grad is not None
    assert float(module.table.weight.grad[1].abs().sum()) > 0
    assert float(module.table.weight.grad[[0, 2]].abs().sum()) == 0
    assert pooled.grad is not None
    assert module.classifier.weight.grad is None
    logits.square().sum().backward()
    assert module.classifier.weight.grad is not None
    assert states.grad is None, "theta is not moved by the intention's losses"


def test_no_gradient_through_q_where_it_is_switched_off() -> None:
    for wanted in (True, False):
        r = readings(grad=True)
        g = goal(weights="posterior", gradient=wanted)
        loss = g.outcome(r, g.views()).loss.sum()
        grad = torch.autograd.grad(loss, r["w@0"].intent, allow_unused=True)[0]
        assert (grad is not None and float(grad.abs().sum()) > 0) is wanted


def test_a_prompt_without_any_intent_is_read_once() -> None:
    r = readings()
    r["candidates"] = torch.tensor([[-1.0, -1.0], [2.0, 3.0], [1.0, -1.0]])
    shares = goal(weights="posterior").intents.shares(r)  # type: ignore[union-attr]
    assert shares[0].tolist() == [1.0, 0.0]
    assert shares[2].tolist() == [1.0, 0.0]
    assert float(shares[1].sum()) == pytest.approx(1.0)


# The form


def test_forms() -> None:
    form = fit_intents(["b", "a", None, "b"], prior="data", threshold=0.6)
    assert form.names == ("a", "b")
    assert form.shares() == pytest.approx((2 / 5, 3 / 5))
    assert form.pick([0.5, 0.5]) is None
    assert form.pick([0.1, 0.9]) == 1
    assert form.text(1).strip() == "Intent: b"
    assert form.text(-1) == ""
    assert IntentForm.from_dict(json.loads(json.dumps(form.as_dict()))) == form
    with pytest.raises(SettingsError, match="unknown intent"):
        form.number("c")
    with pytest.raises(SettingsError, match="no intents"):
        fit_intents([None, " "])


# Whole runs


RUN = ("max_steps=4", "batch_size=8", "eval_every=0", "best_metric=none", "kl_rows=0", "learning_rate=1e-3", "warmup=0")


@pytest.mark.parametrize("more", [
    ("intents=label",),
    ("intents=infer",),
    ("intents=infer", "intents.expectation=sum", "conditioning=cross"),
    ("intents=infer", "intents.expectation=draw", "intents.candidates=2", "conditioning=averaged"),
    ("intents=average",),
    ("intents=infer", "intents.candidates=2", "objective=simpo", "conditioning=one-sided"),
    ("intents=infer", "intents.candidates=2", "objective=kto"),
    ("intents=infer", "intents.candidates=2", "objective=orpo", "intents.loss=bce", "intents.table=random"),
    ("intents=infer", "intents.candidates=2", "objective=plackett_luce"),
])  # fmt: skip
def test_it_composes_and_trains(settings, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Any objective and conditioning under intents; rows and trie give the same first losses."""
    data = plural(tmp_path / "plural.jsonl", 48)
    losses = []
    for layout in ("trie", "rows"):
        run = align(settings(
            f"data.source={data}", *RUN, "intents.similarity=0.2", "intents.kl=0.01", *more, f"layout={layout}",
            f"output={tmp_path / layout}", "validation_fraction=0.2",
        ))  # fmt: skip
        lines = [json.loads(line) for line in (tmp_path / layout / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if line["phase"] == "train"])
        assert run.metrics["rows"] > 0
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)


def test_with_scores_and_the_other_response_it_still_trains(settings, tmp_path: Path) -> None:
    """A-IPO x InSPO x SGA: intent, scores and the other response in one context, both heads on one raw prompt."""
    rng = random.Random(1)
    rows = [json.loads(line) for line in plural(tmp_path / "p.jsonl", 40).read_text().splitlines()]
    for row in rows:
        row["attributes"] = {"calm": [rng.randint(0, 4), rng.randint(0, 4)]}
    data = tmp_path / "scored.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = align(settings(
        f"data.source={data}", *RUN, "intents=infer", "intents.candidates=2", "intents.similarity=0.2", "scores=chosen",
        "scores.sense=10", "conditioning=cross",
    ))  # fmt: skip
    assert {"sensing_loss", "delta_sim", "intent_accuracy", "conditioned_margin"} <= set(run.metrics)
    assert run.policy.scores is not None
    assert run.policy.intents is not None
    assert run.policy.intents.names == INTENTS


def test_form_and_module_are_saved_with_the_policy(settings, tmp_path: Path) -> None:
    data = plural(tmp_path / "plural.jsonl", 48)
    run = align(settings(f"data.source={data}", *RUN, "intents=infer", "intents.similarity=0.2"))
    again = Policy.load(run.output)
    assert again.intents == run.policy.intents
    first, second = intention_of(run.policy.model), again.intention
    assert first is not None
    assert second is not None
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_stopped_run_goes_on_with_module_and_both_optimisers(settings, tmp_path: Path) -> None:
    data = plural(tmp_path / "plural.jsonl", 64)
    more = (f"data.source={data}", *RUN, "intents=infer", "intents.candidates=2", "intents.similarity=0.2",
            "save_every=2", "optimizer=rmsprop")  # fmt: skip
    whole = align(settings(*more, f"output={tmp_path / 'whole'}"))
    half = settings(*more, f"output={tmp_path / 'half'}")
    align(half)
    import shutil

    shutil.rmtree(tmp_path / "half" / "checkpoints" / "checkpoint-4")
    shutil.rmtree(tmp_path / "half" / "model")
    resumed = align(half, resume=True)
    for (name, a), (_, b) in zip(
        whole.policy.model.named_parameters(), resumed.policy.model.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_both_groups_are_served_where_dpo_serves_the_majority(settings, tmp_path: Path) -> None:
    """Opposed wishes, prompts that differ in one word: with intents both groups get theirs, and intents are recovered.

    DPO is trained on prompts without the telling word, as a policy that nobody tells; its accuracy per group is then
    1 for the majority and 0 for the minority.
    """
    data = plural(tmp_path / "plural.jsonl", 320)
    blind = tmp_path / "blind.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    blind.write_text("".join(json.dumps({**r, "prompt": "Say some words.", "intent": None}) + "\n" for r in rows))
    more = ("model=embedded", "max_steps=30", "batch_size=8", "eval_every=0", "best_metric=none", "kl_rows=0",
            "learning_rate=5e-4", "warmup=0", "validation_fraction=0.25", "precision=auto", "save_every=0")  # fmt: skip
    plural_run = align(settings(f"data.source={data}", *more, "intents=infer", "intents.similarity=0.2",
                                f"output={tmp_path / 'a'}"))  # fmt: skip
    dpo = align(settings(f"data.source={blind}", *more, "validation_fraction=0", f"output={tmp_path / 'b'}"))
    assert plural_run.metrics["intent_accuracy"] > 0.95
    assert plural_run.metrics["accuracy"] > 0.95
    from pluralign.records import Preference, messages
    from pluralign.scoring.layout import Scored
    from pluralign.terms import Term

    pair = Preference(prompt=messages("Say some words."), chosen=messages("bread soup bread bread", role="assistant"),
                      rejected=messages("tree hill tree tree", role="assistant"))  # fmt: skip
    found = {}
    for name, policy in (("dpo", dpo.policy), ("base", Policy.load("embedded"))):
        terms = [Term(n, (pair.prompt,), y) for n, y in (("w", pair.chosen), ("l", pair.rejected))]
        read = policy.score([Scored(r.context, r.target) for r in policy.renderer.render(terms)])
        found[name] = float(read[0].sum - read[1].sum)
    assert found["dpo"] > found["base"] + 1, "without intents the majority's wish is everybody's"
    q = posterior(plural_run.policy, [replace(pair, prompt=messages("Say many words, I am outside."))])
    assert q[0].argmax() == INTENTS.index("trees")
