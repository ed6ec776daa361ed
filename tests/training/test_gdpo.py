"""GDPO in whole runs: its terms, where its gradients may go, and what it does to a group's beliefs."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from pluralign.api import settings_for
from pluralign.conditioning import Conditioning, conditioned
from pluralign.data.beliefs import Beliefs
from pluralign.errors import RecordError
from pluralign.objectives import find
from pluralign.policy import Policy
from pluralign.recipes import recipe
from pluralign.recipes.gdpo import beliefs
from pluralign.records import Preference, messages
from pluralign.scoring.forward import forward, unwrap
from pluralign.scoring.layout import Scored
from pluralign.scoring.support import lay_out
from pluralign.steering.beliefs import spread
from pluralign.terms import Column
from pluralign.training.batch import Collator
from pluralign.training.examples import render_examples
from pluralign.training.goal import Goal, observe
from pluralign.training.run import align

from .test_runs import losses

SAID = ("Of course, it is good for all of us.", "Never, it does us all harm.", "That depends > 3 things on the day.")
TOPICS = ("shops on Sundays", "cars in town", "longer summers", "new taxes", "tall houses", "school uniforms")


def row(i: int, accept: int, shares: list[float]) -> dict:
    options = ["Yes", "No", "It depends"][: len(shares)]
    reject = (accept + 1) % len(shares)
    return {
        "context": "", "question": f"What do you think of {TOPICS[i % len(TOPICS)]}?", "options": options,
        "probabilities": shares, "accept_choice_id": accept, "accept_response": SAID[accept],
        "reject_choice_id": reject, "reject_response": SAID[reject],
    }  # fmt: skip


def record(accept=1, shares=(0.7, 0.3), w="Never > 1.", l="Yes, always.") -> Preference:
    meta = {"options": ["Yes", "No", "It depends"][: len(shares)], "probabilities": list(shares), "accept": accept}
    said = lambda text: messages(text, role="assistant")
    return Preference(prompt=messages("Is tax theft?"), chosen=said(w), rejected=said(l), meta=meta)


# Terms


def test_the_plan() -> None:
    items = list(beliefs(record()))
    columns = {c.name: c.value for c in items if isinstance(c, Column)}
    assert columns == {"share.0": 0.7, "share.1": 0.3, "accept": 1.0, "majority": 0.0}
    terms = {t.name: t for t in items if not isinstance(t, Column)}
    assert {n: ("".join(t.prefix), t.target[0].content, t.ended) for n, t in terms.items()} == {
        "w": ("1<No>", "Never > 1.", True),
        "l": ("1<No>", "Yes, always.", True),  # the rejected answer behind the chosen belief
        "ref_w": ("1<No>", "Never > 1.", True),
        "ref_l": ("1<No>", "Yes, always.", True),
        "belief": ("1", "<No>", False),
        "b.0": ("", "0", False),
        "b.1": ("", "1", False),
    }
    bare = Preference(prompt=messages("q"), chosen=messages("a"), rejected=messages("b"))
    with pytest.raises(RecordError, match="no options"):
        list(beliefs(bare))
    assert recipe("gdpo").plan is recipe("gdpo_sft").plan is beliefs


def observed(policy: Policy, records, layout="trie", how: Conditioning | None = None, hyper: dict | None = None):
    how = how or Conditioning()
    goal = Goal(find("gdpo"), hyper or {}, how)
    examples = render_examples(records, conditioned(beliefs, how), policy.renderer)
    names = [(n, ex.sequences[n]) for n in examples.named("reference") for ex in examples]
    sums = policy.score([s for _, s in names], layout="rows")
    reference = {
        n: np.concatenate([r.sum.numpy() for (m, _), r in zip(names, sums, strict=True) if m == n])
        for n in examples.named("reference")
    }
    collator = Collator(goal.names(examples.named("policy"), watched=False), layout, 8192, reference)
    (micro,) = collator(list(examples)).micro
    return goal, observe(policy.model, micro, goal, lambda: contextlib.nullcontext(policy.model)), examples


@pytest.fixture(scope="module")
def tiny(tiny_model) -> Policy:
    return Policy.load(tiny_model, precision="fp32")


def test_both_layouts_read_the_same_and_the_chain_rule_holds(tiny) -> None:
    """log pi(b, y | x) in one piece is the sum of number, text and answer; questions differ in their options."""
    records = [record(), record(2, (0.2, 0.3, 0.5)), record(0, (1.0,))]
    goal, named, examples = observed(tiny, records)
    _, rows, _ = observed(tiny, records, "rows")
    a, b = goal.outcome(named, goal.views()), goal.outcome(rows, goal.views())
    torch.testing.assert_close(a.loss, b.loss, atol=2e-5, rtol=1e-5)
    assert named["b"].mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert named["share"].tolist() == [pytest.approx(x) for x in ([0.7, 0.3, 0], [0.2, 0.3, 0.5], [1.0, 0, 0])]
    for i, ex in enumerate(examples):
        whole = ex.sequences["w"]
        (reading,) = tiny.score([Scored(whole.context, whole.target)])  # every token scored
        parts = [named["b"].sum[i, records[i].meta["accept"]], named["belief"].sum[i], named["w"].sum[i]]
        assert float(reading.sum[0]) == pytest.approx(sum(float(p.detach()) for p in parts), abs=1e-4)
    assert [float(x) for x in a.metrics["preference"]] == pytest.approx([math.log(2)] * 3, abs=1e-5)


def test_the_prompt_is_computed_once(tiny) -> None:
    """All terms of a record share a trie: its tokens are those of the prompt, one belief and two answers."""
    _, _, examples = observed(tiny, [record()])
    own = examples[0].sequences
    laid = lay_out("trie", [own[n] for n in ("w", "l", "belief", "b.0", "b.1")])
    w, l = own["w"], own["l"]
    prefix = w.scored.index(True)
    answers = len(w.target) + len(l.target) - prefix
    shared_start = next(i for i, (a, b) in enumerate(zip(w.target[prefix:], l.target[prefix:], strict=False)) if a != b)
    assert laid.tokens == len(w.context) + answers - shared_start + 1  # and the number of the other option


def test_no_gradient_of_the_preference_reaches_what_predicts_the_belief(tiny) -> None:
    """The states from which the output layer predicts the belief's tokens: exactly 0, whatever the answers hold."""
    _, _, examples = observed(tiny, [record(w="1 > 0 <3> yes.", l="No <2>, > 4.")])
    own = examples[0].sequences
    final: list[torch.Tensor] = []
    norm = unwrap(tiny.model).model.norm
    laid = lay_out("rows", [own["w"], own["l"]])
    hook = norm.register_forward_hook(lambda _, __, out: final.append(out) or out.retain_grad())
    try:
        readings = forward(tiny.model, laid)
        (-torch.nn.functional.logsigmoid(0.1 * (readings.sum[0] - readings.sum[1]))).backward()
    finally:
        hook.remove()
    (states,) = final
    for i, s in enumerate((own["w"], own["l"])):
        n = s.scored.index(True)
        assert tiny.tokenizer.decode(s.target[:n]) == "1<No>"
        start = len(s.context) - 1  # the state that predicts the belief's first token
        predicts = states.grad[i].norm(dim=-1)
        assert predicts[: start + n].tolist() == [0.0] * (start + n)
        assert (predicts[start + n : start + len(s.target)] > 0).all()
    tiny.model.zero_grad()


@pytest.mark.parametrize("strategy", ["cross", "averaged"])
def test_beliefs_are_read_from_the_prompt_whatever_the_answers_are_shown(tiny, strategy) -> None:
    """InSPO shows the policy the other answer; numbers and texts of options are calibrated without it."""
    records = [record(), record(0)]
    _, plain, _ = observed(tiny, records)
    _, shown, _ = observed(tiny, records, how=Conditioning(strategy))
    torch.testing.assert_close(shown["b"].sum, plain["b"].sum, atol=1e-5, rtol=0)
    torch.testing.assert_close(shown["belief"].sum, plain["belief"].sum, atol=1e-5, rtol=0)
    assert "w|l" in shown


# Runs


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """Seven of ten pairs argue for "Yes", three for "No", on each of six questions; the people are 70 to 30."""
    rows = [row(i, int(n >= 7), [0.7, 0.3]) for i in range(6) for n in range(10)]
    path = tmp_path_factory.mktemp("gdpo") / "beliefs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


@pytest.fixture
def run(source, tmp_path):
    def go(name: str, *overrides: str, output: str = "run", model: str = "embedded"):
        short = [
            f"model={model}", f"data.source={source}", f"output={tmp_path / output}", "precision=fp32", "batch_size=20",
            "learning_rate=3e-4", "max_steps=12", "validation_fraction=0", "kl_rows=0", "max_length=128", "warmup=0",
            "optimizer=adamw", "patience=0",
        ]  # fmt: skip
        settings, own = settings_for(name, {}, [*short, *overrides])
        assert own is not None
        return align(settings, plan=own.plan)

    return go


def trained(policy: Policy, steps: int, rate: float, **hyper):
    """(spread, margins) after some steps on two pairs that weigh as much as their beliefs: 70 to 30."""
    records = [record(0, w="Yes, always.", l="Never > 1."), record(1)]
    goal, named, examples = observed(policy, records, hyper=hyper)
    (micro,) = Collator(examples.named("policy"), "trie", 8192, {})(list(examples)).micro
    micro = replace(micro, given={**micro.given, **{n: named[n] for n in ("ref_w", "ref_l")}})
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=rate, weight_decay=0)
    metrics = {}
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        named = observe(policy.model, micro, goal, lambda: contextlib.nullcontext(policy.model))
        out = goal.outcome(named, goal.views())
        (torch.tensor([0.7, 0.3]) * out.loss).sum().backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimiser.step()
        metrics = {n: float(v.mean()) for n, v in out.metrics.items()}
    (found,) = spread(policy, [("Is tax theft?", Beliefs(("Yes", "No"), (0.7, 0.3), 0, True))])
    return float(jensenshannon(found.shares, (0.7, 0.3))), found.off_option, metrics


def test_a_golden_run_on_the_embedded_model() -> None:
    """The beliefs come to 70 to 30, the mass onto the two options, and both groups' answers are learned."""
    distance, off, metrics = trained(Policy.load("embedded", precision="fp32"), 12, 1e-3)
    assert distance < 0.1
    assert off < 0.05
    assert metrics["majority_margin"] > 0
    assert metrics["minority_margin"] > 0


def test_options_compared_with_one_another_leave_the_mass_where_it_is(tiny_model) -> None:
    """The two variants of the calibration, on a fresh model: both find the shares, one of them the options."""
    weights = {"belief_weight": 0.0, "preference_weight": 0.0}
    whole, near = (
        trained(Policy.load(tiny_model, precision="fp32"), 40, 1e-2, restricted=r, **weights) for r in (False, True)
    )
    assert max(whole[0], near[0]) < 0.02
    assert whole[1] < 0.1
    assert near[1] > 0.99


def test_the_parts_add_up_whatever_they_are_called(tiny) -> None:
    _, named, _ = observed(tiny, [record(), record(0)])
    loss = lambda name, **hyper: find(name)(named, **hyper).loss.detach()
    off = {"preference_weight": 0.0, "belief_weight": 0.0, "calibration_weight": 0.0}
    parts = [loss("gdpo", **{**off, f"{part}_weight": 1.0}) for part in ("calibration", "preference", "belief")]
    torch.testing.assert_close(sum(parts), loss("gdpo"))
    torch.testing.assert_close(loss("dpo + calibration + belief_nll"), loss("gdpo"))
    torch.testing.assert_close(parts[1], torch.full((2,), math.log(2)), atol=1e-5, rtol=0)


def test_a_run_ends_with_a_mean_for_each_group(run, tiny_model) -> None:
    """Any preference in DPO's place; the other part of the data is validated on."""
    done = run("gdpo", "max_steps=2", "validation_fraction=0.3", model=tiny_model)
    assert {"majority_margin", "minority_margin", "js_distance", "off_option", "calibration"} <= set(done.metrics)
    ipo = run("gdpo", "objective=ipo + calibration + belief_nll", "max_steps=1", output="ipo", model=tiny_model)
    # a fresh model: ln(4096 / 2) to the shares by KL, 25 at policy = reference, ln 4096 a token of the belief
    kl = math.log(4096) + 0.7 * math.log(0.7) + 0.3 * math.log(0.3)
    assert losses(ipo.output)[0] == pytest.approx(25 + kl + math.log(4096), rel=0.02)


def test_fine_tuning_comes_first(run, tiny_model) -> None:
    done = run("gdpo_sft", "max_steps=3", "learning_rate=3e-3", output="sft", model=tiny_model)
    found = losses(done.output)
    assert found[0] == pytest.approx(math.log(4096), rel=0.1)  # a fresh model: 1/V a token
    assert found[-1] < found[0]
