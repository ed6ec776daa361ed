"""Any objective under any conditioning: every cell, its reductions, its signs, and what it shares."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import pytest
import torch

from pluralign.attributes import Scale, ScoreForm
from pluralign.conditioning import STRATEGIES, Conditioning, conditioned, scored, view
from pluralign.data import as_kind
from pluralign.errors import RecordError
from pluralign.heads.regression import attach
from pluralign.objectives import OBJECTIVES
from pluralign.policy import Policy
from pluralign.recipes.gdpo import beliefs
from pluralign.records import Demonstration, Preference, Ranked, messages
from pluralign.scoring.forward import forward
from pluralign.scoring.layout import lay_rows
from pluralign.terms import PROVIDED, Plan, Term, pair, plan_for
from pluralign.training.batch import Collator, Given
from pluralign.training.examples import render_examples
from pluralign.training.goal import Goal, View, mismatched, observe
from pluralign.training.run import KINDS

STYLES = ("separator", "turns")
SHOWN = ("one-sided", "cross", "averaged")


def records(n: int = 4) -> list[Preference]:
    said = lambda text: messages(text, role="assistant")
    rows = [
        ("Name a fruit.", "An apple.", "A carrot, I would say."),
        ("Why is the sky blue?", "Light scatters.", "No."),
    ]
    rows += [("Tell me a joke.", "I have none today, sorry.", "Ha ha ha."), ("What is 2 + 2?", "It is four.", "Five!")]
    return [
        Preference(
            prompt=messages(x), chosen=said(w), rejected=said(l), margin=0.5,
            meta={"p": 0.8, "density": 1.0, "options": ["Yes", "No"], "probabilities": [0.7, 0.3], "accept": i % 2},
            attributes={"help": (0.9, 0.1), "humour": (0.2 * i, 0.5)},
        )
        for i, (x, w, l) in enumerate(rows[:n])
    ]  # fmt: skip


FORM = ScoreForm((Scale("help"), Scale("humour")))


def plan_of(data: str, needs: tuple[str, ...]) -> Plan:
    """The plan a run would have: with the attribute scores as columns where the objective reads them."""
    plan = beliefs if {"b", "belief"} & set(needs) else plan_for(data, needs)
    return scored(plan, FORM, "none") if set(PROVIDED) & set(needs) else plan


@pytest.fixture(scope="module")
def tiny(tiny_model) -> Policy:
    return rated(Policy.load(tiny_model, precision="fp32"))


@pytest.fixture(scope="module")
def embedded() -> Policy:
    return rated(Policy.load("embedded", precision="fp32"))


@pytest.fixture(scope="module")
def blind(tiny_model) -> Policy:
    """A model that sees nothing but the current token, and for which the separator is the response header."""
    policy = rated(Policy.load(tiny_model, precision="fp32"))
    with torch.no_grad():
        for layer in policy.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
        ids = policy.tokenizer.convert_tokens_to_ids(["<|sep|>", "<|assistant|>"])
        weight = policy.model.get_input_embeddings().weight
        weight[ids[0]] = weight[ids[1]]
    return policy


def rated(policy: Policy) -> Policy:
    """With a rating head that says something, for the objectives that read one."""
    torch.nn.init.normal_(attach(policy.model, "rated", 2, layers=1, bounded=False).out.weight, std=0.1)
    return policy


PREPARED: dict = {}  # rendering and reference of a few records, which many cells share


def prepared(policy: Policy, data: str, needs: tuple[str, ...], how: Conditioning):
    """(examples, reference sums) by policy, kind of record, terms and conditioning."""
    key = (id(policy), data, tuple(sorted(needs)), how.strategy, how.style)
    if key not in PREPARED:
        rows = [r for pair_ in records() for r in as_kind(pair_, KINDS[data])]
        examples = render_examples(rows, conditioned(plan_of(data, needs), how), policy.renderer)
        names = [(n, ex.sequences[n]) for n in examples.named("reference") for ex in examples]
        sums = policy.score([s for _, s in names], layout="rows")
        reference = {
            n: torch.cat([r.sum for (m, _), r in zip(names, sums, strict=True) if m == n]).numpy()
            for n in examples.named("reference")
        }
        PREPARED[key] = examples, reference
    return PREPARED[key]


def cell(policy: Policy, name: str, how: Conditioning, *, layout: str = "trie", watched: bool = False):
    """The outcome of one objective under one conditioning over a few records, policy = reference."""
    objective = OBJECTIVES[name]
    goal = Goal(objective, {}, how)
    live = lambda: contextlib.nullcontext(policy.model)
    examples, reference = prepared(policy, objective.data, objective.needs, how)
    collator = Collator(
        goal.names(examples.named("policy"), watched=watched), layout, 8192, {} if goal.live else reference,
        live=examples.named("reference") if goal.live and not goal.mismatched else (),
        mismatched=goal.mismatched, max_length=512,
    )  # fmt: skip
    if goal.mismatched:
        collator.reference = reference
    (micro,) = collator(list(examples)).micro
    if micro.mismatched is not None:
        micro = replace(micro, given={**micro.given, **mismatched(policy.model, micro, live)})
    named = observe(policy.model, micro, goal, live)
    views = goal.views(watched=watched)
    batches = None
    if goal.objective.statistics is not None:
        batches = [goal.statistics_of(named, v) for v in views]
        if objective.update is not None:
            goal.remember(batches, views)
    return goal.outcome(named, views, batches)


CELLS = [(name, strategy) for name in sorted(OBJECTIVES) for strategy in STRATEGIES]


@pytest.mark.parametrize(("name", "strategy"), CELLS)
def test_every_cell_is_finite_and_trains(embedded, name, strategy) -> None:
    outcome = cell(embedded, name, Conditioning(strategy))
    assert outcome.loss.ndim == 1
    assert torch.isfinite(outcome.loss).all()
    embedded.model.zero_grad()
    outcome.loss.sum().backward()
    norms = [p.grad.norm() for p in embedded.model.parameters() if p.grad is not None]
    assert norms
    assert all(torch.isfinite(n) for n in norms)
    assert sum(norms) > 0


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_context_blind_model_gives_the_base_loss(blind, name) -> None:
    base = cell(blind, name, Conditioning()).loss.detach()
    styles = {"one-sided": "turns", "cross": "separator", "averaged": "separator"}
    for strategy, style in [*styles.items(), *([("cross", "turns")] if name == "dpo" else [])]:
        shown = cell(blind, name, Conditioning(strategy, style=style)).loss.detach()
        torch.testing.assert_close(shown, base, rtol=0, atol=2e-6 * max(1.0, float(base.abs().max())))


@dataclass
class Leaf:
    sum: torch.Tensor
    length: torch.Tensor
    mean: torch.Tensor


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", [n for n in sorted(OBJECTIVES) if OBJECTIVES[n].data == "pairs"])
def test_gradients_raise_the_chosen_and_lower_the_rejected(tiny, name, strategy) -> None:
    """Through the views, on the sums themselves: catches a conditioned term under the other one's name."""
    objective = OBJECTIVES[name]
    if objective.reads:
        pytest.skip("reads tokens: its signs are tested beside the objective")
    if {"b", "belief"} & set(objective.needs):
        pytest.skip("reads beliefs: its signs are tested beside the objective")
    if name == "parm":
        pytest.skip("each attribute orders the pair for itself: its signs are tested beside the objective")
    if name == "apo_down":
        pytest.skip("lowers both responses, the rejected one faster: that is what it is for")
    how = Conditioning(strategy)
    values = {"w": -10.0, "l": -11.0, "w|l": -9.5, "l|w": -11.5, "l|l": -11.2}
    leaves = {n: torch.tensor([v], requires_grad=True) for n, v in values.items()}
    length = torch.tensor([6])
    named = {n: Given(s, length) for n, s in leaves.items()}
    terms = [t.name for t in conditioned(pair, how)(records(1)[0]) if isinstance(t, Term) and t.by == "policy"]
    names = Goal(objective, {}, how).names(terms, watched=False)
    readings = {n: named[n] for n in names} | {f"ref_{n}": Given(torch.tensor([-10.4]), length) for n in "wl"}
    readings |= {n: torch.tensor([0.9]) for n in objective.needs if n not in ("w", "l", "ref_w", "ref_l")}
    readings |= {n: torch.tensor([[0.9, 0.2]]) for n in PROVIDED}
    Goal(objective, {}, how).outcome(readings, Goal(objective, {}, how).views()).loss.sum().backward()
    for n in names:
        grad = leaves[n].grad
        if name == "nll" and n[0] == "l":  # imitates the chosen response, whatever the other one is
            continue
        assert grad is not None, n
        assert float(grad) <= 0 if n[0] == "w" else float(grad) >= 0, n
    assert any(float(leaves[n].grad) != 0 for n in names if leaves[n].grad is not None)


def test_inspo_by_hand() -> None:
    """Fixture C: log pi(y_w|x,y_l) = -9, log pi(y_l|x,y_w) = -15, reference -12 and -13, beta 0.1: the margin is .5."""
    g = lambda x: Given(torch.tensor([x]), torch.tensor([5]))
    named = {"w": g(-10.0), "l": g(-14.0), "w|l": g(-9.0), "l|w": g(-15.0), "ref_w": g(-12.0), "ref_l": g(-13.0)}
    goal = lambda s: Goal(OBJECTIVES["dpo"], {"beta": 0.1}, Conditioning(s))
    loss = lambda s: float(goal(s).outcome(named, goal(s).views()).loss)
    assert loss("cross") == pytest.approx(0.474077, abs=1e-6)
    assert loss("none") == pytest.approx(0.554355, abs=1e-6)
    assert loss("averaged") == pytest.approx((0.474077 + 0.554355) / 2, abs=1e-6)
    one_sided = {**named, "l|l": g(-4.0)}
    del one_sided["l|w"]  # -9 + 12 - (-4 + 13) = -6
    out = goal("one-sided").outcome(one_sided, [View(1.0, True)])
    assert float(out.loss) == pytest.approx(1.037488, abs=1e-6)  # ln(1 + e^.6)


def test_swapping_the_responses_negates_the_logit(tiny) -> None:
    """-log s(z) + log s(-z) = -z: the conditioned margin changes its sign and nothing else."""
    swapped = [replace(r, chosen=r.rejected, rejected=r.chosen) for r in records()]
    goal = Goal(OBJECTIVES["dpo"], {}, Conditioning("cross"))
    margins = []
    for rows in (records(), swapped):
        examples = render_examples(rows, conditioned(pair, goal.conditioning), tiny.renderer)
        reference = {
            n: torch.cat([tiny.score([ex.sequences[n]])[0].sum for ex in examples]).numpy() for n in ("ref_w", "ref_l")
        }
        (micro,) = Collator(("w|l", "l|w"), "trie", 8192, reference)(list(examples)).micro
        named = observe(tiny.model, micro, goal, lambda: contextlib.nullcontext(tiny.model))
        margins.append(goal.outcome(named, goal.views()).metrics["conditioned_margin"])
    torch.testing.assert_close(margins[0], -margins[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("style", STYLES)
def test_conditioned_log_probs_are_those_of_the_plain_model_on_the_whole_sequence(tiny, style) -> None:
    """Against transformers' own logits, one sequence at a time."""
    examples = render_examples(records(), conditioned(pair, Conditioning("averaged", style=style)), tiny.renderer)
    names = examples.named("policy")
    (micro,) = Collator(names, "trie", 8192, {})(list(examples)).micro
    named = observe(tiny.model, micro, Goal(OBJECTIVES["dpo"], {}), lambda: contextlib.nullcontext(tiny.model))
    for b, ex in enumerate(examples):
        for name in names:
            s = ex.sequences[name]
            ids = torch.tensor([[*s.context, *s.target]])
            logp = tiny.model(ids).logits[0].log_softmax(-1)
            at = torch.arange(len(s.context) - 1, ids.shape[1] - 1)
            own = logp[at, ids[0, 1:][at]].sum().detach()
            assert float(named[name].sum[b].detach()) == pytest.approx(float(own), abs=1e-4)


def test_layouts_agree_on_every_conditioning(tiny) -> None:
    for strategy in SHOWN:
        a, b = (cell(tiny, "dpo", Conditioning(strategy), layout=layout).loss for layout in ("trie", "rows"))
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_dropout_at_one_is_no_conditioning_and_is_drawn_by_row_and_epoch(tiny) -> None:
    how = Conditioning("cross", dropout=0.5)
    examples = render_examples(records() * 60, conditioned(pair, how), tiny.renderer)
    names = ("w|l", "l|w")
    draws = []
    for epoch in (0, 0, 1):
        examples.set_epoch(epoch)
        collator = Collator(names, "trie", 8192, {}, dropout=0.5, seed=3)
        draws.append([collator.dropped(ex).sequences["w|l"] == ex.sequences["w"] for ex in examples])
    assert draws[0] == draws[1] != draws[2]
    assert 80 < sum(draws[0]) < 160
    everything = Collator(names, "trie", 8192, {}, dropout=1.0)
    assert all(everything.dropped(ex).sequences["l|w"] == ex.sequences["l"] for ex in examples)


def test_lists_are_shown_the_best_of_the_others() -> None:
    said = [messages(t, role="assistant") for t in ("a", "b", "c")]
    ex = Ranked(prompt=messages("x"), responses=tuple(said), scores=(1.0, 3.0, 2.0))
    how = Conditioning("cross")
    shown = {
        t.name: t.alternative.response[0].content
        for t in conditioned(plan_for("lists", ("ys", "scores")), how)(ex)
        if isinstance(t, Term) and t.alternative
    }
    assert shown == {"ys.0|other": "b", "ys.1|other": "c", "ys.2|other": "b"}


def test_a_row_without_another_response_says_so() -> None:
    ex = Demonstration(prompt=messages("x"), response=messages("y", role="assistant"))
    with pytest.raises(RecordError, match="Use pairs, or conditioning=none"):
        list(conditioned(plan_for("demonstrations", ("y",)), Conditioning("cross"))(ex))


def test_view_puts_conditioned_readings_under_the_objectives_names() -> None:
    named = {"w": 1, "l": 2, "w|l": 3, "l|w": 4, "ref_w": 5}
    assert view(named, False) == {"w": 1, "l": 2, "ref_w": 5}
    assert view(named, True) == {"w": 3, "l": 4, "ref_w": 5}


def test_kl_reading_by_the_definition(tiny) -> None:
    """r["w"].kl against full log-softmaxes of both models, with a gradient; 0 where policy = reference."""
    objective = OBJECTIVES["dpo"]
    goal = Goal(replace(objective, reads=("kl",)), {}, Conditioning())
    examples = render_examples(records(2), pair, tiny.renderer)
    (micro,) = Collator(("w", "l"), "trie", 8192, {}, live=("ref_w", "ref_l"))(list(examples)).micro
    other = Policy.load(tiny.name, precision="fp32").model
    same = observe(tiny.model, micro, goal, lambda: contextlib.nullcontext(tiny.model))
    assert float(same["w"].kl.abs().max()) < 1e-6
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    named = observe(tiny.model, micro, goal, lambda: contextlib.nullcontext(other))
    s = examples[1].sequences["l"]
    ids = torch.tensor([[*s.context, *s.target]])
    at = slice(len(s.context) - 1, ids.shape[1] - 1)
    pi, ref = (m(ids).logits[0, at].log_softmax(-1) for m in (tiny.model, other))
    want = (ref.exp() * (ref - pi)).sum(-1)
    torch.testing.assert_close(named["l"].kl[named["l"].segment == 1], want, atol=1e-5, rtol=1e-4)
    named["l"].kl.sum().backward()
    assert tiny.model.get_input_embeddings().weight.grad is not None


def test_collision_reading_by_the_definition(tiny) -> None:
    examples = render_examples(records(1), pair, tiny.renderer)
    s = examples[0].sequences["w"]
    r = forward(tiny.model, lay_rows([s]), ("sum", "length", "tokens", "collision"))
    ids = torch.tensor([[*s.context, *s.target]])
    probs = tiny.model(ids).logits[0, len(s.context) - 1 : -1].softmax(-1)
    torch.testing.assert_close(r.collision, probs.pow(2).sum(-1).log(), atol=1e-5, rtol=0)
    assert not r.collision.requires_grad
