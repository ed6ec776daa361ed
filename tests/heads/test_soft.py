"""The soft prefix: ids below 0 read vectors of E, in every layout and architecture, in training and in generation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pluralign.errors import SettingsError
from pluralign.heads.intent import attach_intention, intention_of
from pluralign.heads.soft import SoftPrefix, as_reference, begin_prefix, give_start
from pluralign.intention import IntentForm
from pluralign.policy import Policy
from pluralign.scoring.forward import forward
from pluralign.scoring.layout import Scored
from pluralign.scoring.reference import model_digest
from pluralign.scoring.support import choose_layout, lay_out
from pluralign.steering import Request, answer
from pluralign.steering.begin import contexts
from pluralign.steering.intended import infer_intents
from pluralign.training.run import align
from tests.scoring.models import ROWS, TRIE, build
from tests.training.conftest import cache, pairs_file, plural, settings, tiny_model  # noqa: F401 - fixtures
from tests.training.test_a_ipo import RUN

NAMES = ("bread", "trees", "comfort")


def prefixed(name: str, tokens: int = 2) -> Any:
    model = build(name)
    torch.manual_seed(3)
    attach_intention(model, "intent", len(NAMES))
    begin_prefix(model, tokens)
    return model


def vectors(model: Any) -> torch.Tensor:
    module = intention_of(model)
    assert module is not None
    assert module.prefix is not None
    return module.prefix(module.table.weight)


def by_hand(model: Any, s: Scored) -> torch.Tensor:
    """(T,) log-probs from the model's own logits over embeddings that are put together here."""
    z, ids = vectors(model), [*s.context, *s.target]
    weight = model.get_input_embeddings()
    embedded = torch.stack([z[-1 - i] if i < 0 else weight(torch.tensor([[i]]))[0, 0] for i in ids])
    logits = model(inputs_embeds=embedded[None], attention_mask=torch.ones(1, len(ids)), use_cache=False).logits[0]
    before = logits.float().log_softmax(-1)[len(s.context) - 1 : -1]
    return before.gather(-1, torch.tensor(s.target)[:, None])[:, 0]


# Ids and vectors


def test_every_intent_has_ids_of_its_own() -> None:
    form = IntentForm(NAMES, soft=2)
    assert [form.vectors(n) for n in (0, 1, 2)] == [(-1, -2), (-3, -4), (-5, -6)]
    assert form.vectors(None) == form.vectors(-1) == ()
    assert IntentForm(NAMES).vectors(1) == ()
    assert IntentForm.from_dict(json.loads(json.dumps(form.as_dict()))) == form
    assert IntentForm(NAMES, words="", soft=1).text(1) == "", "vectors in place of words"
    with pytest.raises(SettingsError, match="need one"):
        IntentForm(NAMES, words="")


def test_vectors_are_as_large_as_the_embeddings_and_differ_by_intent() -> None:
    model = prefixed("llama", 8)
    size = float(model.get_input_embeddings().weight.detach().std())
    assert float(vectors(model).detach().std()) == pytest.approx(size, rel=0.3)
    a, b = vectors(model).view(3, 8, -1)[:2]
    assert float((a - b).detach().std()) > size / 4


def test_hand_worked_vector() -> None:
    """E[I] = (3, 4), of direction (.6, .8); W = ((1, 0), (0, 2)), b = (1, 1): z = (1.6, 2.6)."""
    prefix = SoftPrefix(1, 1, 2, 2)
    with torch.no_grad():
        prefix.project.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        prefix.project.bias.fill_(1.0)
    assert prefix(torch.tensor([[3.0, 4.0]])).tolist() == [pytest.approx([1.6, 2.6])]


@pytest.mark.parametrize("name", [n for n in (*TRIE, *ROWS) if n != "mamba"])
def test_layouts_equal_scoring_by_hand(name: str) -> None:
    model = prefixed(name)
    shared = list(range(10, 24))
    sequences = [Scored([*shared, *z, 7, 8], t) for z in ((-1, -2), (-5, -6), ()) for t in ([30, 31, 32], [40, 41])]
    for layout in {choose_layout(model, max_length=32)[0], "rows"}:
        read = forward(model, lay_out(layout, sequences))
        wanted = torch.stack([by_hand(model, s).sum() for s in sequences])
        assert torch.allclose(read.sum, wanted, atol=2e-5), layout
        assert len(set(read.sum.tolist())) == len(sequences), "every intent is another context"


def test_gradients_reach_the_table_and_the_projection_of_the_intents_that_stand_there() -> None:
    model = prefixed("llama")
    module = intention_of(model)
    assert module is not None
    assert module.prefix is not None
    forward(model, lay_out("trie", [Scored([5, 6, -3, -4, 7], [8, 9])])).sum.sum().backward()
    grad = module.table.weight.grad
    assert grad is not None
    assert [bool(row.abs().sum()) for row in grad] == [False, True, False]
    assert module.prefix.project.weight.grad is not None
    assert module.classifier.weight.grad is None
    # the embedding of token 0, which stands in for the ids below it, learns nothing by that
    assert float(model.get_input_embeddings().weight.grad[0].abs().sum()) == 0


def test_without_vectors_a_model_reads_as_before() -> None:
    model, s = build("llama"), [Scored([5, 6, 7], [8, 9])]
    before = forward(model, lay_out("trie", s)).sum
    attach_intention(model, "intent", 3)
    begin_prefix(model, 2)
    assert torch.equal(forward(model, lay_out("trie", s)).sum, before)


# The reference


def test_a_reference_keeps_the_vectors_of_the_start() -> None:
    model = prefixed("llama")
    s = [Scored([5, 6, -1, -2, 7], [8, 9])]
    before, key = forward(model, lay_out("rows", s)).sum, model_digest(model)
    copied, other = copy.deepcopy(model), build("llama")
    with torch.no_grad():
        intention_of(model).table.weight[0] += 1  # type: ignore[union-attr]
    give_start(copied, model)
    give_start(other, model)
    moved = forward(model, lay_out("rows", s)).sum
    assert not torch.allclose(moved, before, atol=1e-3)
    with as_reference(model):
        assert torch.equal(forward(model, lay_out("rows", s)).sum, before)
    assert torch.equal(forward(model, lay_out("rows", s)).sum, moved)
    for reference in (copied, other):
        assert torch.equal(forward(reference, lay_out("rows", s)).sum, before)
    assert model_digest(model) == key, "a cache of the start is still its own"
    begin_prefix(model, 2)
    assert model_digest(model) != key, "and that of another start is another"


def test_another_number_of_vectors_is_refused() -> None:
    with pytest.raises(SettingsError, match="2 vectors an intent, not 3"):
        begin_prefix(prefixed("llama"), 3)


# Whole runs


def run(settings: Any, data: Path, output: Path, *more: str) -> Any:  # noqa: F811 - the fixture
    return align(settings(
        f"data.source={data}", *RUN, "intents=infer", "intents.soft=3", "intents.module_rate=0.01", *more,
        f"output={output}",
    ))  # fmt: skip


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["phase"] == "train"]


@pytest.mark.parametrize("more", [
    ('intents.words=""', "intents.candidates=2"),
    ("intents=label", "objective=sft"),
    ("intents=average", "lora.rank=4", "kl_rows=2", "eval_every=2"),
    ("objective=tdpo2", "lora.rank=4"),  # a live reference: the base under its adapters,
    ("objective=tdpo2", "kl_rows=2", "eval_every=2"),  # and a second model
])  # fmt: skip
def test_it_trains_and_begins_where_the_reference_is(settings, tmp_path: Path, more: tuple[str, ...]) -> None:  # noqa: F811
    data = plural(tmp_path / "plural.jsonl", 48)
    found = run(settings, data, tmp_path / "run", "intents.classify=0", *more)
    seen = losses(tmp_path / "run")
    if "objective=sft" not in more:
        assert seen[0] == pytest.approx(0.693147, abs=1e-5)
        assert seen[-1] != pytest.approx(seen[0], abs=1e-6)
    module = found.policy.intention
    start, now = module.prefix.first, module.prefix(module.table.weight)
    assert not torch.allclose(start, now, atol=1e-4), "z learns"
    if "kl_rows=2" in more:
        assert found.metrics["kl"] > 0


def test_both_layouts_train_alike_beside_the_other_response(settings, tmp_path: Path) -> None:  # noqa: F811
    data = plural(tmp_path / "plural.jsonl", 48)
    for layout in ("trie", "rows"):
        run(settings, data, tmp_path / layout, "intents.similarity=0.2", "conditioning=cross", f"layout={layout}")
    assert losses(tmp_path / "trie") == pytest.approx(losses(tmp_path / "rows"), rel=5e-4)


def test_saved_loaded_resumed_and_trained_on(settings, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    data = plural(tmp_path / "plural.jsonl", 48)
    whole = run(settings, data, tmp_path / "whole", "save_every=2")
    loaded = Policy.load(tmp_path / "whole")
    assert loaded.intents == whole.policy.intents
    assert loaded.intents is not None
    assert loaded.intents.soft == 3
    assert torch.equal(vectors(loaded.model), vectors(whole.policy.model))
    asked = [Request("Say some words, I am hungry.", max_new_tokens=6, temperature=0)]
    assert answer(loaded, asked)[0].text == answer(whole.policy, asked)[0].text

    half = settings(
        f"data.source={data}", *RUN, "intents=infer", "intents.soft=3", "intents.module_rate=0.01", "save_every=2",
        f"output={tmp_path / 'half'}",
    )  # fmt: skip
    align(half)
    import shutil

    shutil.rmtree(tmp_path / "half" / "checkpoints" / "checkpoint-4")
    shutil.rmtree(tmp_path / "half" / "model")
    resumed = align(half, resume=True)
    for (name, a), (_, b) in zip(
        whole.policy.model.named_parameters(), resumed.policy.model.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name

    on = run(settings, data, tmp_path / "on", f"model={tmp_path / 'whole'}", "intents.classify=0")
    assert losses(tmp_path / "on")[0] == pytest.approx(0.693147, abs=1e-5), "its reference is where it begins"
    assert torch.equal(on.policy.intention.prefix.first, vectors(loaded.model))


def test_generation_in_one_cache_gives_the_text_of_two_passes(tiny_model: str) -> None:  # noqa: F811 - the fixture
    policy = Policy.load(tiny_model, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    policy.intents = IntentForm(NAMES, words="", soft=4)
    module = attach_intention(policy.model, "intent", len(NAMES))
    torch.nn.init.normal_(module.classifier.weight, std=2.0)
    begin_prefix(policy.model, 4)
    prompts = ["The cat sat on the house.", "A red tree and a dog.", "Then the bread ran."]
    requests = [Request(p, max_new_tokens=8, temperature=0) for p in prompts]
    one = answer(policy, requests)
    likeliest = [next(iter(q)) for q in infer_intents(policy, prompts)]
    assert [a.intent for a in one] == likeliest
    for prompt, intent, got in zip(prompts, likeliest, one, strict=True):
        told = Request(prompt, max_new_tokens=8, temperature=0, intent=intent)
        assert answer(policy, [told])[0].text == got.text
        ids = contexts(policy, [told])[0][0]
        assert [i for i in ids if i < 0] == list(policy.intents.vectors(NAMES.index(intent)))
        written: list[int] = []
        for _ in range(8):  # greedily, over embeddings that are put together by hand
            z, weight = vectors(policy.model), policy.model.get_input_embeddings().weight
            embedded = torch.stack([z[-1 - i] if i < 0 else weight[i] for i in [*ids, *written]])
            written.append(int(policy.model(inputs_embeds=embedded[None]).logits[0, -1].argmax()))
            if written[-1] in policy.renderer.stop_ids:
                break
        text = policy.tokenizer.decode([i for i in written if i not in policy.renderer.stop_ids])
        assert text.strip() == got.text
    assert len({a.text for a in (answer(policy, [Request(prompts[0], max_new_tokens=8, temperature=0, intent=n)])[0]
                                 for n in NAMES)}) > 1, "else vectors change nothing"  # fmt: skip
