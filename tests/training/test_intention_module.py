"""The intention module as an encoder of its own: trained, saved, loaded, and learning beside a policy."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pluralign.data import load
from pluralign.errors import RecordError, SettingsError
from pluralign.heads.intent import ENCODER_LENGTH, encoder_ids, intention_of, load_encoder
from pluralign.intents.module import Training, load_intention, train_intention
from pluralign.policy import Policy
from pluralign.records import Demonstration, Record, messages
from pluralign.steering import Request, answer
from pluralign.training.run import align

FILL = ("some", "many", "few", "nice", "new", "eat")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of one layer with a vocabulary of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "say",
        "words",
        "i",
        "am",
        "hungry",
        "outside",
        "hint",
        *FILL,
        ".",
        ",",
    ]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=48, max_position_embeddings=ENCODER_LENGTH)  # fmt: skip
    folder = tmp_path_factory.mktemp("bert")
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def rows(count: int = 160, seed: int = 0, *, knowledge: bool = False) -> list[dict[str, str]]:
    """What is wanted follows from one word of the prompt, or of the knowledge that goes with it."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        want = rng.choice(["bread", "trees"])
        cue = {"bread": "hungry", "trees": "outside"}[want]
        said = f"say {' '.join(rng.choice(FILL) for _ in range(4))} words"
        both = ["bread bread soup", "tree tree hill"]
        good, bad = both if want == "bread" else both[::-1]
        prompt = said if knowledge else f"{said} , i am {cue} ."
        row = {"prompt": prompt, "chosen": good, "rejected": bad, "intent": want}
        out.append({**row, "x_con": f"hint {cue}"} if knowledge else row)
    return out


def records(**how: object) -> list[Record]:
    return list(load(rows(**how)))  # type: ignore[arg-type]


FAST = Training(learning_rate=5e-3, epochs=6, patience=2, batch_size=16)


@pytest.mark.parametrize("knowledge", [False, True])
def test_it_learns_what_a_prompt_or_its_knowledge_says(bert: str, tmp_path: Path, knowledge: bool) -> None:
    trained = train_intention(records(knowledge=knowledge), encoder=bert, how=FAST)
    held = records(count=40, seed=1, knowledge=knowledge)
    q = trained.posterior(held)
    assert np.allclose(q.sum(1), 1)
    right = [trained.names[i] == r.intent for i, r in zip(q.argmax(1), held, strict=True)]
    assert np.mean(right) > 0.95
    again = load_intention(trained.save(tmp_path / "module"))
    assert again.names == trained.names
    assert np.allclose(again.posterior(held), q, atol=1e-6)
    assert again.about["rows"] + again.about["held_out"] == 160


def test_batch_mates_and_lengths_change_no_posterior(bert: str) -> None:
    trained = train_intention(records(), encoder=bert, how=FAST)
    held = records(count=9, seed=2)
    one = np.concatenate([trained.posterior([r]) for r in held])
    assert np.allclose(trained.posterior(held), one, atol=1e-5)


def test_long_texts_lose_their_knowledge_first_then_the_prompts_start(bert: str) -> None:
    _, tokenizer = load_encoder(bert)
    (ids,) = encoder_ids(tokenizer, ["say words " * 200], ["hint " * 200])
    assert len(ids) == ENCODER_LENGTH
    assert ids.count(tokenizer.convert_tokens_to_ids("hint")) == ENCODER_LENGTH - 400 - 3
    (ids,) = encoder_ids(tokenizer, ["say " * 300 + "words " * 300], ["hint"])
    assert len(ids) == ENCODER_LENGTH
    assert ids[-2] == tokenizer.convert_tokens_to_ids("words")
    (ids,) = encoder_ids(tokenizer, ["say words"], ["hint eat"])
    assert ids == tokenizer("say words", "hint eat")["input_ids"]
    (ids,) = encoder_ids(tokenizer, ["say words"], [""])
    assert ids == tokenizer("say words")["input_ids"]


def test_what_cannot_be_is_one_line(bert: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="too few"):
        train_intention(records(count=160)[:1], encoder=bert)
    with pytest.raises(SettingsError, match="no intents"):
        train_intention([Demonstration(prompt=messages("x"), response=messages("y", role="assistant"))], encoder=bert)
    with pytest.raises(SettingsError, match="holds no intention module"):
        load_intention(tmp_path)
    with pytest.raises(SettingsError, match="cannot load the encoder"):
        load_encoder(tmp_path / "nowhere")


def test_it_goes_on_learning_beside_the_policy_and_infers_at_inference(settings, bert: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(80)))
    module = train_intention(records(), encoder=bert, how=FAST).save(tmp_path / "module")
    run = align(settings(
        f"data.source={data}", "intents=infer", f"intents.module={module}", "intents.candidates=2",
        "intents.similarity=0.2", "intents.kl=0.01", "max_steps=3", "batch_size=8", "eval_every=0", "best_metric=none",
        "kl_rows=0", "learning_rate=1e-3", "intents.module_rate=1e-3", "warmup=0", "validation_fraction=0.2",
    ))  # fmt: skip
    assert run.metrics["intent_accuracy"] > 0.9
    own, before = intention_of(run.policy.model), load_intention(module)
    assert own is not None
    moved = [not torch.equal(a, b) for a, b in zip(own.encoder.parameters(), before.encoder.parameters(), strict=True)]
    assert any(moved), "phi learns beside theta"
    again = Policy.load(run.output)
    asks = [Request(f"say some words , i am {cue} .", max_new_tokens=2) for cue in ("hungry", "outside")]
    assert [a.intent for a in answer(again, asks)] == ["bread", "trees"]


def test_a_module_of_other_intents_is_refused(settings, bert: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({**row, "intent": row["intent"] + "!"}) + "\n" for row in rows(20)))
    module = train_intention(records(), encoder=bert, how=FAST).save(tmp_path / "module")
    with pytest.raises(SettingsError, match="trained on other intents"):
        align(settings(f"data.source={data}", "intents=infer", f"intents.module={module}", "max_steps=1"))
