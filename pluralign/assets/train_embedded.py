# SPDX-License-Identifier: Apache-2.0
"""Train the embedded default model from the data folder: a real but very small language model.

Stages, each a subcommand (``python -m pluralign.assets.train_embedded STAGE --work FOLDER``):

``data``       corpus and preference pairs (see :mod:`pluralign.assets.corpus`)
``tokenizer``  byte-level BPE with 4,096 entries, special tokens and a chat template
``train``      pre-training on a CPU; resumes from its checkpoint when it is started again
``export``     writes the bfloat16 Hugging Face folder
``samples``    prints unedited samples of an exported folder

The model is Llama-shaped with about 7 million parameters. Weights are kept in float32 by the optimiser and
copied to bfloat16 for the matrix products; hidden matrices are updated by Muon, embeddings and norms by
AdamW; the learning rate warms up, stays constant and decays linearly to zero, and the second half of the steps
is heavy in dialogue. Seeds are fixed, yet the result depends on the library versions and on the CPU.

The data folder is read from the environment variable PLURALIGN_SHARED (default ``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pluralign.assets import MODEL_DIR, PAIRS_DIR, corpus
from pluralign.assets.pretraining import Pretraining, Rows, bits_per_byte, make_loss
from pluralign.assets.vocabulary import VOCABULARY, train_tokenizer

SEED = 20240
MUON_LR, ADAM_LR = 4e-3, 3e-3
CHAT_SOURCES = ("hh-rlhf/helpful", "hh-rlhf/harmless", "dove/helpful", "themis/hh", "tulu3-samples")
# How often a document of a source is repeated in one pass over the mixture (fractions: by chance).
STABLE_MIX: dict[str, float] = dict.fromkeys(CHAT_SOURCES, 2.0)
DIALOGUE_MIX: dict[str, float] = {  # more repeats teach the dialogues by heart, and held-out ones get worse (LOG.md)
    **dict.fromkeys(CHAT_SOURCES, 1.0),
    "just-eval answers": 1.0,
    "arena-bench answers": 1.0,
    "hanna stories": 0.5,
    "wikipedia passages": 0.5,
    "wikipedia articles": 0.5,
    "c4 demo": 0.5,
}
SAMPLE_PROMPTS = (
    "How do I make pancakes?",
    "What is a good way to learn to play the guitar?",
    "Can you tell me about wolves?",
    "I feel a bit sad today.",
    "Write a short story about a dragon.",
)


# -------------------------------------------------------------------------------------- data and tokenizer
def stage_data(args: argparse.Namespace) -> None:
    """Write the pairs of the package and the corpus of the working folder, with a report of the counts."""
    data = corpus.shared_dir()
    benchmarks = corpus.load_benchmarks(data)
    splits, pair_report = corpus.build_pairs(data, corpus.BenchmarkIndex(benchmarks))
    for split, rows in splits.items():
        corpus.write_jsonl_gz(PAIRS_DIR / f"{split}.jsonl.gz", rows)
    documents, report = corpus.build_documents(data, benchmarks)
    corpus.write_jsonl_gz(args.work / "documents.jsonl.gz", documents)
    report["pairs"] = pair_report
    (args.work / "data_report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def document_text(document: dict[str, Any]) -> str:
    """A document with its special tokens."""
    if "text" in document:
        return f"<|begin|>{document['text']}<|end|>"
    return "<|begin|>" + "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in document["messages"])


def stage_tokenizer(args: argparse.Namespace) -> None:
    """Train the tokenizer, save it, and encode the corpus."""
    documents = list(corpus.read_jsonl(args.work / "documents.jsonl.gz"))
    texts: list[str] = []
    for document in documents:
        if document["split"] == "train":
            repeat = 2 if "messages" in document else 1
            texts += [m["content"] for m in document.get("messages", ())] * repeat
            texts += [document["text"]] if "text" in document else []
    tokenizer = train_tokenizer(texts, args.work / "tokenizer")

    pairs = corpus.read_jsonl(PAIRS_DIR / "heldout.jsonl.gz")
    for record in list(pairs)[:96]:
        documents.append({"source": "pairs", "split": "pairs", "messages": record["prompt"] + record["chosen"]})
    encoded = tokenizer.encode_batch([document_text(d) for d in documents])
    lengths = [len(e.ids) for e in encoded]
    sources = sorted({d["source"] for d in documents})
    np.savez(
        args.work / "tokens.npz",
        tokens=np.concatenate([np.array(e.ids, dtype=np.uint16) for e in encoded]),
        offsets=np.cumsum([0, *lengths]),
        source=np.array([sources.index(d["source"]) for d in documents]),
        split=np.array([d["split"] for d in documents]),
        is_chat=np.array(["messages" in d for d in documents]),
        sources=np.array(sources),
    )
    counts: dict[str, dict[str, list[int]]] = {}
    for document, n in zip(documents, lengths, strict=True):
        row = counts.setdefault(document["source"], {}).setdefault(document["split"], [0, 0])
        row[0] += 1
        row[1] += n
    text_bytes = sum(len(t.encode()) for t in texts)
    report = {"documents and tokens": counts, "vocabulary": tokenizer.get_vocab_size(), "bytes": text_bytes}
    (args.work / "token_report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


# --------------------------------------------------------------------------------------------- training
def model_config() -> Any:
    """The shape of the embedded model."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=320,
        num_hidden_layers=6,
        num_attention_heads=5,
        num_key_value_heads=1,
        intermediate_size=800,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def stage_train(args: argparse.Namespace) -> None:
    """Train, or continue training, until ``--total-steps`` (or the number in WORK/total_steps) is reached."""
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    store = dict(np.load(args.work / "tokens.npz"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.work / "tokenizer")
    model: Any = LlamaForCausalLM(model_config())
    rows = (Rows(store, STABLE_MIX, SEED), Rows(store, DIALOGUE_MIX, SEED + 1))
    training = Pretraining(model, args.work, *rows, rates=(args.muon_lr, args.adam_lr))
    loss = make_loss(model, not args.eager)
    training.run(args.total_steps, loss, lambda: bits_per_byte(loss, store, tokenizer), args.eval_every)


# --------------------------------------------------------------------------------------- export and samples
def stage_export(args: argparse.Namespace) -> None:
    """Write the folder of the package from the checkpoint; every file is replaced atomically."""
    from transformers import GenerationConfig, LlamaForCausalLM

    saved = torch.load(args.work / "checkpoint.pt", weights_only=True)
    model: Any = LlamaForCausalLM(model_config())
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in zip(saved["names"], saved["master"], strict=True):
            parameters[name].copy_(value)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=1, pad_token_id=2, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=200
    )
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent) as temporary:
        model.save_pretrained(temporary)
        for path in [*Path(temporary).iterdir(), *(args.work / "tokenizer").iterdir()]:
            target = args.output / path.name
            fresh = target.with_name(f".{path.name}.tmp")
            fresh.write_bytes(path.read_bytes())
            os.replace(fresh, target)
    size = sum(p.stat().st_size for p in args.output.iterdir())
    print(f"exported step {saved['state']['step']} to {args.output} ({size / 1e6:.2f} MB)")


def stage_samples(args: argparse.Namespace) -> None:
    """Print one unedited sample for each prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(args.output)
    model: Any = AutoModelForCausalLM.from_pretrained(args.output, dtype=torch.float32)
    for prompt in args.prompt or SAMPLE_PROMPTS:
        torch.manual_seed(args.seed)
        message = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            message, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**inputs, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=args.new_tokens)
        reply = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        print(f"**User:** {prompt}\n\n**Model:** {reply}\n")


def main(argv: list[str] | None = None) -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", choices=["data", "tokenizer", "train", "export", "samples"])
    parser.add_argument("--work", type=Path, default=Path("embedded-work"), help="folder of working files")
    parser.add_argument("--output", type=Path, default=MODEL_DIR, help="folder of the exported model")
    parser.add_argument("--total-steps", type=int, default=3000, help="may be changed when training is resumed")
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--muon-lr", type=float, default=MUON_LR)
    parser.add_argument("--adam-lr", type=float, default=ADAM_LR)
    parser.add_argument("--eager", action="store_true", help="do not use torch.compile (much slower)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--new-tokens", type=int, default=120)
    parser.add_argument("--prompt", action="append", help="prompt for samples (repeatable)")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    stages = {"data": stage_data, "tokenizer": stage_tokenizer, "train": stage_train}
    {**stages, "export": stage_export, "samples": stage_samples}[args.stage](args)


if __name__ == "__main__":
    main()
