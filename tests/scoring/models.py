"""Tiny randomly initialised models of the architectures we promise, and of those that must fall back."""

from __future__ import annotations

import torch
import transformers as tf

from pluralign.scoring.layout import Scored

BASE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
GPT = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def config(name: str) -> tf.PreTrainedConfig:
    match name:
        case "llama":
            return tf.LlamaConfig(**BASE)
        case "llama-tied":
            return tf.LlamaConfig(**BASE, tie_word_embeddings=True)
        case "qwen2":
            return tf.Qwen2Config(**BASE)
        case "qwen3":
            return tf.Qwen3Config(**BASE, head_dim=8)
        case "mistral":
            return tf.MistralConfig(**BASE, sliding_window=None)
        case "mistral-window":
            return tf.MistralConfig(**BASE, sliding_window=64)
        case "gemma":
            return tf.GemmaConfig(**BASE, head_dim=8)
        case "gemma2":
            return tf.Gemma2Config(
                **BASE, head_dim=8, sliding_window=64, query_pre_attn_scalar=8, final_logit_softcapping=5.0
            )
        case "gemma3":
            return tf.Gemma3TextConfig(**BASE, head_dim=8, sliding_window=256, query_pre_attn_scalar=8)
        case "gpt2":
            return tf.GPT2Config(**GPT, n_embd=32, n_layer=3, n_head=4, n_positions=512)
        case "pythia":
            small = {k: v for k, v in BASE.items() if k != "num_key_value_heads"}
            return tf.GPTNeoXConfig(**small, rotary_pct=0.25)
        case "olmo2":
            return tf.Olmo2Config(**BASE)
        case "olmo":
            return tf.OlmoConfig(**BASE)
        case "smollm3":
            return tf.SmolLM3Config(**{**BASE, "num_hidden_layers": 4})
        case "phi3":
            return tf.Phi3Config(**BASE)
        case "qwen3-next":
            return tf.Qwen3NextConfig(
                **BASE,
                head_dim=8,
                linear_num_key_heads=2,
                linear_num_value_heads=2,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
                num_experts=2,
                num_experts_per_tok=1,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=16,
                decoder_sparse_step=1,
                layer_types=["linear_attention", "linear_attention", "full_attention"],
            )
        case "mamba":
            return tf.MambaConfig(**GPT, hidden_size=32, num_hidden_layers=2, state_size=4)
    raise KeyError(name)


TRIE = (
    "llama", "llama-tied", "qwen2", "qwen3", "mistral", "gemma", "gemma3", "gpt2", "pythia", "olmo", "olmo2", "phi3",
    "smollm3",
)  # fmt: skip
ROWS = ("mistral-window", "gemma2", "qwen3-next", "mamba")


def build(name: str, *, seed: int = 0) -> tf.PreTrainedModel:
    """fp32, in evaluation mode, with weights large enough that a wrong mask shows."""
    torch.manual_seed(seed)
    eager = name in ("mamba", "gemma2")  # they have no SDPA path
    model = tf.AutoModelForCausalLM.from_config(config(name), attn_implementation="eager" if eager else "sdpa")
    for p in model.parameters():
        if p.dim() > 1:
            p.data.mul_(4.0)
        else:
            p.data.add_(torch.randn_like(p) * 0.1)
    return model.float().eval()


def one_by_one(model: tf.PreTrainedModel, sequence: Scored) -> torch.Tensor:
    """(T,) log-probs of a target from the model's own logits, alone in its batch: what every path must equal."""
    ids = torch.tensor([[*sequence.context, *sequence.target]])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()
    before = logits.log_softmax(-1)[len(sequence.context) - 1 : -1]
    logps = before.gather(-1, torch.tensor(sequence.target)[:, None])[:, 0]
    return logps if sequence.scored is None else logps[torch.tensor(sequence.scored)]
