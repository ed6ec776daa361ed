"""Small real tokenizers and chat templates, built here: byte-level BPE, SentencePiece-like BPE and Unigram."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import strategies as st

from pluralign.records import Message, Messages

CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is the answer? The answer is 42.",
    "User: Hello there!\n\nAssistant: Hi, how can I help you today?\n\nHuman: Tell me a story.\n\n\n",
    "system\nuser\nassistant\nYou are a helpful assistant. <think>\n\n</think>\n\nLet me think about it.",
    "def f(x):\n    return x + 1\n\n# a comment: yes, no; maybe (or not) [INST] [/INST]",
    "Weather in Paris: 21 degrees. Bücher, café, naïve, 東京, привет, 🙂🙃.",
] * 8

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant turns are known') }}{% endif %}{% endfor %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Strips reasoning from turns before the last user turn, shows tools and tool calls, and opens the last answer with an
# empty reasoning block where it has none.
THINKING = """
{%- if tools %}<|im_start|>system
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- set content = m.content %}{% set reasoning = '' %}
{%- if '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last and (loop.last or reasoning) %}
{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content }}
{%- for call in m.tool_calls or [] %}
{{- '<tool_call>\\n' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
{{- '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""
# Opens the reasoning in the generation prompt, and drops it from every finished turn.
OPENED = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + m['content'].split('</think>')[-1].lstrip() + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# Decorates the last turn, so that no prompt is the beginning of a full conversation.
REWRITING = (
    "{% for m in messages %}{{ ('LAST ' if loop.last else '') + m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def _byte_level(special: list[str], added: list[str] | None = None, prefix: bool = False, regex: bool = True) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    tok.add_tokens([AddedToken(s, special=False, normalized=False) for s in added or []])
    return tok


def _sentencepiece(legacy: bool = False) -> Any:
    """Llama-2 style: BPE with byte fallback, a space before the first word, BOS added by the post-processor."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False))
    spec = json.loads(trained.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["id"] < 3]
    tok = Tokenizer.from_str(json.dumps(spec))
    if legacy:
        tok.pre_tokenizer = None
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ("<unk>", "<s>", "</s>")])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tok.token_to_id("<s>"))]
    )
    return tok


def _unigram() -> Any:
    """T5-like: Unigram with Metaspace; the control tokens are pieces of the model itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    alphabet = [chr(i) for i in range(32, 127)] + ["\n"]
    special = ["<unk>", "</s>", "<|im_start|>", "<|im_end|>"]
    tok.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
        ),
    )
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    return tok


def _wrap(backend: Any, template: str | None, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tok = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tok.chat_template = template
    return tok


CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
EOT = "<|endoftext|>"


@cache
def tokenizer(name: str) -> Any:
    """A toy by name; see NAMES."""
    if name == "chatml":  # no BOS, pad == eos
        return _wrap(_byte_level(CHATML_TOKENS), CHATML, eos_token="<|im_end|>", pad_token="<|im_end|>")
    if name == "chatml_noregex":  # merges across any boundary
        return _wrap(_byte_level(CHATML_TOKENS, regex=False), CHATML, eos_token="<|im_end|>", pad_token=EOT)
    if name == "thinking":
        backend = _byte_level(CHATML_TOKENS, ["<think>", "</think>", "<tool_call>", "</tool_call>"])
        return _wrap(backend, THINKING, eos_token="<|im_end|>", pad_token=EOT)
    if name == "opened":
        backend = _byte_level(CHATML_TOKENS, ["<think>", "</think>"])
        return _wrap(backend, OPENED, bos_token=EOT, eos_token="<|im_end|>", pad_token="<|im_end|>")
    if name == "headers":  # Llama-3 style: the template prints BOS and the tokenizer adds it too
        from tokenizers import processors

        backend = _byte_level(["<|begin|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
        backend.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", backend.token_to_id("<|begin|>"))]
        )
        return _wrap(backend, HEADERS, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>")
    if name == "gemma":
        backend = _byte_level(["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"])
        return _wrap(backend, GEMMA, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    if name == "llama2":
        return _wrap(_sentencepiece(), LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    if name == "llama2_legacy":
        backend = _sentencepiece(legacy=True)
        return _wrap(backend, LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    if name == "unigram":
        return _wrap(_unigram(), CHATML, eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    if name == "gpt2":  # a base model: no chat template, one token for bos, eos and pad
        return _wrap(_byte_level([EOT]), None, bos_token=EOT, eos_token=EOT, pad_token=EOT)
    if name == "llama2_base":  # a base model that adds BOS and a space before the first word
        return _wrap(_sentencepiece(), None, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")
    if name == "prefix_space":  # byte-level BPE that puts a space before the first word
        return _wrap(_byte_level([EOT], prefix=True), None, bos_token=EOT, eos_token=EOT, pad_token=EOT)
    if name == "rewriting":
        return _wrap(_byte_level([EOT]), REWRITING, eos_token=EOT, pad_token=EOT)
    raise KeyError(name)


NAMES = (
    "chatml",
    "chatml_noregex",
    "thinking",
    "opened",
    "headers",
    "gemma",
    "llama2",
    "llama2_legacy",
    "unigram",
    "gpt2",
    "llama2_base",
    "prefix_space",
)


def fresh(name: str) -> Any:
    """A copy of a toy that a test may change."""
    import copy

    return copy.deepcopy(tokenizer(name))


def slow() -> Any:
    """A tokenizer written in Python: one token a character, nothing known of offsets."""
    from transformers import PreTrainedTokenizer

    class Characters(PreTrainedTokenizer):
        vocab_size = 128

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(eos_token="</s>", unk_token="<unk>", **kwargs)

        def get_vocab(self) -> dict[str, int]:
            return {chr(i): i for i in range(128)} | dict(self.added_tokens_encoder)

        def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
            return list(text)

        def _convert_token_to_id(self, token: str) -> int:
            return ord(token) if len(token) == 1 else 0

        def _convert_id_to_token(self, index: int) -> str:
            return chr(index)

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            return "".join(tokens)

    return Characters()


# Texts to render

WORDS = st.sampled_from(
    [
        "the answer",
        " is",
        "42",
        "\n",
        "\n\n",
        " ",
        "\t",
        "user",
        "assistant",
        "Hello",
        "🙂",
        "東京",
        "é",
        "e\u0301",
        "<|",
        ">",
    ]
)
SPELLED = st.sampled_from(["<|im_end|>", "</s>", "<s>", "<|eot_id|>", "<end_of_turn>", "<|begin|>", "<|endoftext|>"])
INERT = st.lists(st.one_of(WORDS, st.text(max_size=6)), min_size=1, max_size=8).map("".join)
ANY = st.lists(st.one_of(WORDS, SPELLED, st.text(max_size=6)), min_size=1, max_size=8).map("".join)


def visible(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return text.filter(lambda s: s.strip() != "")


def prompt(contents: list[str]) -> Messages:
    return tuple(Message("user" if i % 2 == 0 else "assistant", c) for i, c in enumerate(contents))


def prompts(text: st.SearchStrategy[str]) -> st.SearchStrategy[Messages]:
    return st.lists(visible(text), min_size=1, max_size=3).filter(lambda x: len(x) % 2 == 1).map(prompt)
