# SPDX-License-Identifier: Apache-2.0
"""Tokenizer and chat template of the embedded default model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VOCABULARY = 4096
NAMED = ("begin", "end", "pad", "system", "user", "assistant", "tool", "sep")
SPECIAL_TOKENS = [f"<|{n}|>" for n in NAMED] + [f"<|reserved_{i}|>" for i in range(8)]
PRETOKENIZER = (
    r"(?i:['’](?:s|t|re|ve|m|ll|d)\b)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- macro text(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- elif content is not none and content is defined -%}
    {%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- if tools -%}
  {{- '<|system|>' -}}
  {%- if has_system -%}{{- text(messages[0].content) + '\\n\\n' -}}{%- endif -%}
  {{- 'Tools: ' -}}{{- tools | tojson -}}{{- '<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- '<|assistant|>' -}}
    {%- generation -%}
      {{- text(message.content) -}}
      {%- if message.tool_calls -%}{{- message.tool_calls | tojson -}}{%- endif -%}
      {{- '<|end|>' -}}
    {%- endgeneration -%}
  {%- elif message.role in ['system', 'user', 'tool'] -%}
    {%- if not (tools and has_system and loop.first) -%}
      {{- '<|' + message.role + '|>' -}}{{- text(message.content) -}}{{- '<|end|>' -}}
    {%- endif -%}
  {%- else -%}
    {{- raise_exception('unknown role ' + message.role) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], folder: Path) -> Any:
    """Train a byte-level BPE on the texts and save it with its chat template; encoding adds no token by itself."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL_TOKENS[3:],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # a name that older releases know, too
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer
