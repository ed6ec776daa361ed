"""Sense, then go on from the same keys and values: the same text as sensing first and generating from scratch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf

from pluralign.attributes import Scale, ScoreForm
from pluralign.errors import SettingsError
from pluralign.heads.regression import attach
from pluralign.policy import EMBEDDED, Policy
from pluralign.records import messages
from pluralign.steering.begin import begin
from pluralign.steering.generate import answer
from pluralign.steering.requests import Request
from pluralign.steering.self_guided import sense
from pluralign.terms import Scores
from tests.scoring.models import ROWS, TRIE, config

FORM = ScoreForm(tuple(Scale(n) for n in ("help", "humour", "length")))
PROMPTS = ("Tell me about wild dogs.", "Why?", "What should I expect of a ski resort in the middle of the summer?")


def small_policy(name: str = "llama", *, form: ScoreForm = FORM, head: bool = True) -> Policy:
    """A tiny random model of an architecture with the embedded tokenizer and a head whose scores differ by prompt."""
    tokenizer = tf.AutoTokenizer.from_pretrained(EMBEDDED)
    shape = config(name)
    shape.vocab_size = len(tokenizer)
    shape.tie_word_embeddings = name == "llama-tied"  # random tied models only repeat what they read
    shape.bos_token_id, shape.eos_token_id, shape.pad_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id, 0
    torch.manual_seed(8)
    eager = name in ("mamba", "gemma2")
    model = tf.AutoModelForCausalLM.from_config(shape, attn_implementation="eager" if eager else "sdpa").float().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(4.0)
        if head:
            own = attach(model, "sensed", len(form.names), layers=2, bounded=True)
            own.out.weight.normal_(0, 2.0)
    return Policy(model, tokenizer, name, "fp32", {"max_length": 256}, form)


def greedy(policy: Policy, attributes=None, new: int = 10):
    requests = [Request(p, max_new_tokens=new, temperature=0, attributes=attributes or {}) for p in PROMPTS]
    return answer(policy, requests)


@pytest.mark.parametrize("name", [*TRIE, *ROWS])
def test_self_guided_text_is_that_of_two_passes(name: str) -> None:
    """Sense each prompt by itself, give the scores as a person would, generate each from scratch: token for token."""
    policy = small_policy(name)
    guided = greedy(policy, new=40)  # beyond the window of those that have one
    assert len({a.text for a in guided}) > 1
    for prompt, mine in zip(PROMPTS, guided, strict=True):
        (sensed,) = sense(policy, [prompt])
        again = answer(policy, [Request(prompt, max_new_tokens=40, temperature=0, attributes=sensed)])[0]
        assert mine.text == again.text
        assert mine.tokens == again.tokens
        assert mine.attributes == again.attributes == pytest.approx(sensed, abs=0.00501)
        assert mine.sensed == FORM.names
        assert again.sensed == ()
    assert len({tuple(a.attributes.values()) for a in guided}) > 1  # it is the prompt that is sensed


@pytest.mark.parametrize("name", [*TRIE, "mistral-window", "gemma2"])
def test_the_prompt_is_read_once_where_keys_and_values_are_kept(name: str) -> None:
    policy = small_policy(name)
    begun = begin(policy, [Request(p, max_new_tokens=4) for p in PROMPTS])
    assert begun.cache is not None
    assert begun.cache.get_seq_length() < begun.ids.shape[1]


@pytest.mark.parametrize("name", ["qwen3-next", "mamba"])
def test_running_states_are_read_anew(name: str) -> None:
    assert begin(small_policy(name), [Request(p, max_new_tokens=4) for p in PROMPTS]).cache is None


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral-window", "gemma2", "mamba"])
def test_scores_of_different_lengths_share_a_batch(name: str) -> None:
    """Where the words of one row have more tokens, the others are padded between prompt and words."""
    form = ScoreForm(FORM.scales, "ric", "none")
    policy = small_policy(name, form=form)
    given = ({"help": -1234.5}, {"help": 7.0}, {})
    requests = [Request(p, max_new_tokens=40, temperature=0, attributes=g) for p, g in zip(PROMPTS, given, strict=True)]
    assert len({len(policy.tokenizer(form.text(a.attributes))["input_ids"]) for a in answer(policy, requests)}) > 1
    for request, mine in zip(requests, answer(policy, requests), strict=True):
        assert mine == answer(policy, [request])[0]


def test_the_context_is_the_one_of_training() -> None:
    """The ids that are continued are those the renderer gives a training context with these scores."""
    policy = small_policy()
    begun = begin(policy, [Request(PROMPTS[0], max_new_tokens=4)])
    text = FORM.text(begun.attributes[0])
    assert begun.ids[0].tolist() == policy.renderer.prompt(messages(PROMPTS[0]), (), Scores(text))
    assert text.strip() in policy.tokenizer.decode(begun.ids[0])


def test_a_person_sets_some_and_the_policy_senses_the_rest() -> None:
    policy = small_policy()
    free, partly = greedy(policy), greedy(policy, {"humour": 0.25})
    for a, b in zip(free, partly, strict=True):
        assert b.attributes["humour"] == 0.25
        assert b.sensed == ("help", "length")
        assert {n: b.attributes[n] for n in b.sensed} == {n: a.attributes[n] for n in b.sensed}


def test_all_set_senses_nothing() -> None:
    policy = small_policy()
    given = {"help": 1.0, "humour": 0.0, "length": 0.5}
    for a in greedy(policy, given):
        assert (a.attributes, a.sensed) == (given, ())


def test_without_a_head_only_given_scores_are_shown() -> None:
    policy = small_policy(head=False)
    assert [a.attributes for a in greedy(policy, {"help": 0.5})] == [{"help": 0.5}] * 3
    assert [a.attributes for a in greedy(policy)] == [{}] * 3
    with pytest.raises(SettingsError, match="no sensing head"):
        sense(policy, PROMPTS)


def test_what_is_sensed_does_not_depend_on_batch_mates_or_given_scores() -> None:
    policy = small_policy()
    together, alone = sense(policy, PROMPTS), [sense(policy, [p])[0] for p in PROMPTS]
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("wording", ["cpo", "steerlm", "ric"])
def test_the_words_of_the_baselines_reach_the_context(wording: str) -> None:
    form = ScoreForm(FORM.scales, wording, "none")
    policy = small_policy(form=form, head=False)
    begun = begin(policy, [Request(PROMPTS[0], max_new_tokens=4, attributes={"help": 4, "length": 1})])
    shown = policy.tokenizer.decode(begun.ids[0])
    assert form.text({"help": 4, "length": 1}).strip() in shown
    assert begun.attributes == [{"help": 4, "length": 1}]


def test_a_long_prompt_loses_its_beginning_and_keeps_its_scores() -> None:
    policy = small_policy()
    warned: list[str] = []
    long = "word " * 600
    request = Request(long, max_new_tokens=8, temperature=0)
    a = answer(policy, [request], warn=warned.append)[0]
    assert len(warned) == 1
    assert a.prompt_tokens + 8 <= 512
    again = answer(policy, [Request(long, max_new_tokens=8, temperature=0, attributes=sense(policy, [long])[0])],
                   warn=warned.append)[0]  # fmt: skip
    assert a.text == again.text


def test_head_and_form_are_saved_and_loaded_with_the_policy(tmp_path: Path) -> None:
    policy = small_policy()
    policy.save(tmp_path / "saved")
    loaded = Policy.load(tmp_path / "saved", precision="fp32")
    assert loaded.scores == FORM
    assert sense(loaded, PROMPTS)[0] == pytest.approx(sense(policy, PROMPTS)[0], abs=1e-6)
    assert [a.text for a in greedy(loaded)] == [a.text for a in greedy(policy)]


def test_the_saved_folder_is_a_plain_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without our code: transformers loads it whole, and a person steers by writing the sentence."""
    policy = small_policy()
    folder = policy.save(tmp_path / "saved")
    model, info = tf.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    given = {"help": 0.75, "humour": 0.25, "length": 1.0}
    said = PROMPTS[0] + FORM.text(given)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": said}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**ids, max_new_tokens=8, do_sample=False, eos_token_id=list(policy.renderer.stop_ids))
    text = tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert text == greedy(policy, given, new=8)[0].text


def test_a_head_for_another_model_is_refused(tmp_path: Path) -> None:
    policy = small_policy()
    folder = policy.save(tmp_path / "saved")
    kept = (folder / "pluralign.json").read_text()
    (folder / "pluralign.json").write_text(kept.replace('"hidden": 32', '"hidden": 64'))
    with pytest.raises(SettingsError, match="64 numbers a state"):
        Policy.load(folder)
    (folder / "pluralign.json").write_text(kept)
    (folder / "sensing.safetensors").unlink()
    with pytest.raises(SettingsError, match="no weights for it"):
        Policy.load(folder)


def test_a_policy_on_the_hub_brings_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository as the hub's cache keeps it: what `push` uploads is what `save` writes."""
    policy = small_policy()
    cache = tmp_path / "hub"
    repository = cache / "models--someone--sga"
    policy.save(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache), raising=False)
    loaded = Policy.load("someone/sga", precision="fp32")
    assert loaded.scores == FORM
    assert sense(loaded, PROMPTS)[0] == pytest.approx(sense(policy, PROMPTS)[0], abs=1e-6)


def test_push_uploads_what_save_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    seen: dict[str, set[str]] = {}

    class Hub:
        def create_repo(self, name: str, **options: object):
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{name}")

        def upload_folder(self, *, repo_id: str, folder_path: str) -> None:
            seen[repo_id] = {p.name for p in Path(folder_path).iterdir()}

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    small_policy().push("someone/sga")
    assert {"model.safetensors", "sensing.safetensors", "pluralign.json", "tokenizer.json"} <= seen["someone/sga"]
