# SPDX-License-Identifier: Apache-2.0
"""Data preparation for the embedded default model.

Two products come out of this module, both deterministic functions of the data folder:

* the preference pairs shipped in ``pluralign/assets/pairs`` (:func:`build_pairs`);
* the training corpus of the embedded model (:func:`build_documents`): permissively licensed English
  dialogue and prose, without any prompt of the held-out pairs and without any prompt that stands in a
  benchmark question set.

Every row that is left out is counted under a reason; the counts are part of the returned report.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Message = dict[str, str]
Record = dict[str, Any]

CONTAINMENT_CHARS = 60  # prompts at least this long are also matched by containment
WINDOW = 50  # length of the character windows that index long benchmark prompts

JUST_EVAL = "just_eval/system_outputs.jsonl.gz"
ARENA = "benchmark_questions/arena_bench_v1_question.jsonl.gz"
# Benchmark question sets: file -> fields that hold questions.
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "benchmark_questions/alpaca_eval_gpt4_turbo_baseline.jsonl.gz": ("instruction",),
    JUST_EVAL: ("instruction",),
    ARENA: ("turns",),
    "benchmark_questions/arena_hard_v0.1_question.jsonl.gz": ("prompt",),
    "benchmark_questions/arena_hard_v2.0_question.jsonl.gz": ("prompt",),
    "benchmark_questions/flask_evaluation.jsonl.gz": ("instruction",),
    "benchmark_questions/mt_bench_question.jsonl.gz": ("turns",),
    "benchmark_questions/vicuna_question.jsonl.gz": ("turns",),
    "benchmark_questions/safetybench_zh_subset.jsonl.gz": ("question",),
    "truthful_fact_qa/truthfulqa_817.jsonl.gz": ("Question",),
    "truthful_fact_qa/simpleqa_4326.jsonl.gz": ("problem",),
    "truthful_fact_qa/boolq_dev.jsonl.gz": ("question",),
    "truthful_fact_qa/halueval_general.jsonl.gz": ("user_query",),
    "truthful_fact_qa/halueval_qa_one-turn.jsonl.gz": ("question",),
    "truthful_fact_qa/halueval_qa_multi-turn.jsonl.gz": ("question",),
    "llmbar/*.jsonl.gz": ("input",),
    "judgebench/gpt4o_pairs.jsonl.gz": ("question",),
    "rmb/*.jsonl.gz": ("conversation_input",),
    "auto_j/pairwise_human_1392.jsonl.gz": ("prompt",),
    "auto_j/critique_test_232.jsonl.gz": ("prompt",),
    "auto_j/scenario_*.jsonl.gz": ("instruction",),
    "hhh_prometheus/hhh_alignment_221.jsonl.gz": ("chosen_instruction", "rejected_instruction"),
    "pandalm/testset_v1.jsonl.gz": ("instruction",),
    "prefeval/*.jsonl.gz": ("question", "implicit_query", "conversation"),
    "mkqa_nq/nq_open*.jsonl.gz": ("question",),
    "mkqa_nq/test_mkqa.jsonl.gz": ("query",),
    "qa_feedback/dev_feedback.jsonl.gz": ("question",),
    "search_arena_diffs/*_qa.jsonl.gz": ("question",),
    "search_arena_diffs/search_arena_vs_simpleqa.jsonl.gz": ("text",),
    "passages/*_questions.jsonl.gz": ("question",),
    "webgpt/webgpt_test.jsonl.gz": ("text",),
    "hh_derived/themis_webgpt_test.jsonl.gz": ("question",),
    "dsp_domain/dsp.jsonl.gz": ("query",),
    "ultrafeedback_slice/*.jsonl.gz": ("prompt",),
    "text_dialogue/lima.jsonl.gz": ("instruction",),
    "text_dialogue/tulu_human_eval_instances.jsonl.gz": ("prompt",),
}
# just_eval groups that are benchmark, non-commercial or red-teaming prompt sets: the prompt is never used.
JUST_EVAL_ANSWER_ONLY = {"lima"}
RED_TEAMING = {"hh-rlhf/red-team-attempts", "MaliciousInstruct"}

# Slurs, explicit and violent terms (rot13): dialogues with one of them stay out of the corpus.
_STEMS = (
    "avttre avttn snttbg ergneq phag chffl shpx fuvg pbpxfhpx juber fyhg ovgpu encr encvfg encvat cbea crqbcu zbyrfg "
    "znfgheong betnfz qvyqb cravf intvan oybjwbo xvxr gbjryurnq jrgonpx frkhny zheqre "
    "fhvpvqr anmv uvgyre obzo cbvfba jrncba greebevfg"
)
_WORDS = "snt fcvp puvax genaal pbpx qvpx nany nahf gvgf encrq fgno xvyy xvyyf xvyyrq xvyyvat frk frkl ahqr anxrq"
OFFENSIVE = re.compile(
    r"\b(?:(?:{})\w*|(?:{})\b)".format(*("|".join(codecs.decode(s, "rot13").split()) for s in (_STEMS, _WORDS))),
    re.IGNORECASE,
)


def shared_dir() -> Path:
    """Folder of the source data sets (environment variable PLURALIGN_SHARED, default ../shared/data)."""
    return Path(os.environ.get("PLURALIGN_SHARED", "../shared/data"))


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the records of a gzip-compressed JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)


def normalise(text: str) -> str:
    """Lower-case, drop punctuation, collapse whitespace."""
    return " ".join(re.sub(r"[^\w\s]|_", " ", text.lower()).split())


def bucket(text: str, salt: str = "") -> int:
    """A stable 32-bit number from the sha1 of the normalised text."""
    return int(hashlib.sha1((salt + normalise(text)).encode("utf-8")).hexdigest()[:8], 16)


# --------------------------------------------------------------------------------------- preference pairs
_MARKER = re.compile(r"\b(?:Human|Assistant) ?:")
_LEFTOVER = re.compile(r"\n\s*(?:Human|Assistant):?\s*$")  # a cut-off speaker marker at the end of a turn


def parse_transcript(text: str) -> list[Message] | None:
    """Split an HH transcript into messages; None unless speakers alternate and the assistant speaks last.

    A cut-off speaker marker at the end of a turn is removed; a marker inside a turn makes the row unparseable.
    """
    parts = re.split(r"\n\n(Human|Assistant):", text)
    if parts[0].strip() or len(parts) < 5:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[1::2], parts[2::2], strict=True)
    messages = [{"role": roles[r], "content": _LEFTOVER.sub("", c).strip()} for r, c in turns]
    expected = ["user", "assistant"] * (len(messages) // 2)
    if [m["role"] for m in messages] != expected:
        return None
    if any(not m["content"] for m in messages[:-1]) or any(_MARKER.search(m["content"]) for m in messages):
        return None
    return messages


def is_heldout_prompt(first_turn: str) -> bool:
    """The split rule of the shipped pairs: one fifth of the first human turns by sha1."""
    return bucket(first_turn) % 5 == 0


def build_pairs(data: Path, index: BenchmarkIndex) -> tuple[dict[str, list[Record]], Record]:
    """Preference pairs of HH-RLHF helpful, split by first human turn."""
    splits: dict[str, list[Record]] = {"train": [], "heldout": []}
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    total = 0
    for row in read_jsonl(data / "hh_rlhf/helpful.jsonl.gz"):
        total += 1
        a, b = row["text"] if row["score"][0] >= row["score"][1] else reversed(row["text"])
        chosen, rejected = parse_transcript(a), parse_transcript(b)
        if chosen is None or rejected is None:
            dropped["transcript cannot be parsed"] += 1
        elif not chosen[-1]["content"] or not rejected[-1]["content"]:
            dropped["empty response"] += 1
        elif chosen[:-1] != rejected[:-1]:
            dropped["shared prefix is not a whole number of turns"] += 1
        elif chosen[-1] == rejected[-1]:
            dropped["chosen equals rejected"] += 1
        elif index.matches(chosen[0]["content"]):
            dropped["first turn stands in a benchmark question set"] += 1
        else:
            record = {
                "prompt": chosen[:-1],
                "chosen": chosen[-1:],
                "rejected": rejected[-1:],
                "source": "hh-rlhf/helpful",
            }
            key = json.dumps(record, sort_keys=True)
            if key in seen:
                dropped["exact duplicate"] += 1
                continue
            seen.add(key)
            splits["heldout" if is_heldout_prompt(chosen[0]["content"]) else "train"].append(record)
    firsts = {s: {normalise(r["prompt"][0]["content"]) for r in rows} for s, rows in splits.items()}
    assert not firsts["train"] & firsts["heldout"]
    report = {
        "rows read": total,
        "dropped": dict(dropped),
        "kept": {s: len(rows) for s, rows in splits.items()},
        "first turns": {s: len(v) for s, v in firsts.items()},
    }
    return splits, report


def write_jsonl_gz(path: Path, rows: Iterable[Record]) -> None:
    """Write JSON lines with a fixed gzip header, so that equal rows give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))


# ------------------------------------------------------------------------------------- benchmark exclusion
class BenchmarkIndex:
    """Exact and containment look-up of prompts against the benchmark prompts (one set may be left out)."""

    def __init__(self, benchmarks: dict[str, set[str]], without: str = "") -> None:
        self.exact = {p for name, found in benchmarks.items() if name != without for p in found if p}
        longs = sorted(p for p in self.exact if len(p) >= CONTAINMENT_CHARS)
        self.blob = "\n".join(longs)
        self.known: dict[str, bool] = {}
        self.windows: dict[str, list[str]] = {}
        for prompt in longs:
            self.windows.setdefault(prompt[:WINDOW], []).append(prompt)

    def contains_benchmark(self, text: str) -> bool:
        """True when a long benchmark prompt stands inside ``text``."""
        norm = normalise(text)
        starts = [0] + [i + 1 for i, c in enumerate(norm) if c == " "]
        return any(
            norm.startswith(p, i) for i in starts if (hits := self.windows.get(norm[i : i + WINDOW])) for p in hits
        )

    def matches(self, prompt: str) -> bool:
        """True for an equal prompt, or for containment either way between long prompts."""
        norm = normalise(prompt)
        if norm not in self.known:
            long = len(norm) >= CONTAINMENT_CHARS
            self.known[norm] = norm in self.exact or (long and (norm in self.blob or self.contains_benchmark(norm)))
        return self.known[norm]


def _strings(value: Any) -> Iterator[str]:
    """All user-side strings in a field: plain text, lists of turns, or message lists."""
    if isinstance(value, str):
        yield from re.split(r"#+ ?(?:Human|Assistant|The instruction to evaluate|Response[^:]*):", value)
        yield value
    elif isinstance(value, dict):
        if value.get("role", "user") == "user":
            for item in value.values():
                yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def load_benchmarks(data: Path) -> dict[str, set[str]]:
    """Normalised prompts of every benchmark question set, by file pattern."""
    found: dict[str, set[str]] = {}
    for pattern, fields in BENCHMARKS.items():
        prompts = found.setdefault(pattern, set())
        for path in sorted(data.glob(pattern)):
            for row in read_jsonl(path):
                for field in fields:
                    prompts.update(normalise(text) for text in _strings(row.get(field)))
    return found


# ------------------------------------------------------------------------------------------ text filters
_TYPOGRAPHIC = re.compile("[\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u2022\u00b0\u00e0-\u00ff\u00a3\u20ac]")
_CODE = re.compile(
    r"```|</?(?:div|html|p|a|br|span|script|td|tr)\b|^\s*(?:def|import|from|class|#include|function|public|SELECT|var|"
    r"const|let|return)\b.*[;:({]?$|[{};]\s*$|\\(?:frac|begin|text|sum|int|left)|=>|==|<\||\|\s*-{3}",
    re.MULTILINE,
)


_COMMON = frozenset(re.findall(r"\w+", "the a an to of and is in you that it for i are be on with as was this"))


def text_problem(text: str, minimum: int = 40) -> str | None:
    """The reason for which a text is not natural English prose, or None."""
    if len(text) < minimum:
        return "too short"
    plain = _TYPOGRAPHIC.sub("x", text)
    if sum(ord(c) > 126 for c in plain) > 0.01 * len(plain) + 1:
        return "not mostly English or ASCII"
    words = re.findall(r"[a-z']+", text.lower())
    if len(words) > 20 and sum(w in _COMMON for w in words) < 0.12 * len(words):
        return "not mostly English or ASCII"
    letters = sum(c.isalpha() or c.isspace() for c in plain)
    if letters < 0.8 * len(plain):
        return "few letters"
    if len(_CODE.findall(text)) > len(text) / 1000:
        return "code or markup"
    if len(words) > 30 and len(set(words)) < 0.22 * min(len(words), 300):
        return "repetitive"
    return None


# ---------------------------------------------------------------------------------------------- documents
class Collector:
    """Gathers documents, applies the filters and counts every row that is left out."""

    def __init__(self, index: BenchmarkIndex, compared: set[str]) -> None:
        self.index, self.compared = index, compared
        self.documents: list[Record] = []
        self.seen: set[str] = set()
        self.counts: dict[str, Counter[str]] = {}

    def _add(self, source: str, body: Record, text: str, group: str, problem: str | None) -> None:
        counts = self.counts.setdefault(source, Counter())
        counts["read"] += 1
        digest = hashlib.sha1(normalise(text).encode("utf-8")).hexdigest()
        if problem is None and digest in self.seen:
            problem = "exact duplicate"
        if problem is not None:
            counts["dropped: " + problem] += 1
            return
        self.seen.add(digest)
        counts["kept"] += 1
        split = "valid" if bucket(group, "valid:") % (50 if "messages" in body else 100) == 0 else "train"
        self.documents.append({"source": source, "split": split, **body})

    def chat(self, source: str, messages: list[Message] | None, absent: str = "transcript cannot be parsed") -> None:
        """Offer a dialogue; `absent` says why there is none."""
        if messages is None:
            self._add(source, {}, "", "", absent)
            return
        users = [m["content"] for m in messages if m["role"] == "user"]
        text = "\n".join(m["content"] for m in messages)
        problem = None
        if any(not m["content"] for m in messages):
            problem = "empty turn"
        elif normalise(users[0]) in self.compared:
            problem = "first turn is in the preference pairs"
        elif any(self.index.matches(u) for u in users if u == users[0] or len(u) >= 30):
            problem = "prompt stands in a benchmark question set"
        elif OFFENSIVE.search(text):
            problem = "offensive or violent vocabulary"
        elif _MARKER.search(text):
            problem = "speaker marker inside a turn"
        else:
            problem = text_problem(text)
        self._add(source, {"messages": messages}, text, users[0], problem)

    def text(self, source: str, text: str, group: str, problem: str | None = None) -> None:
        """Offer a plain document."""
        text = text.strip()
        if problem is None:
            problem = text_problem(text, 120)
        if problem is None and self.index.contains_benchmark(text):
            problem = "contains a benchmark prompt"
        if problem is None and len(OFFENSIVE.findall(text)) > 2:
            problem = "offensive or violent vocabulary"
        self._add(source, {"text": text}, text, group, problem)


def build_documents(data: Path, benchmarks: dict[str, set[str]]) -> tuple[list[Record], Record]:
    """The training corpus: documents with source and split, and a report of what was left out."""
    index = BenchmarkIndex(benchmarks)
    compared: set[str] = set()  # first turns of the preference pairs, on either side of their split
    out = Collector(index, compared)
    for row in read_jsonl(data / "hh_rlhf/helpful.jsonl.gz"):
        parsed = parse_transcript(row["text"][0])
        if parsed and not is_heldout_prompt(parsed[0]["content"]):
            # what the pairs compare is never learnt here, or a policy would prefer what it remembers
            out.chat("hh-rlhf/helpful", parsed[:-2] or None, "only the compared response")
    for row in read_jsonl(data / "hh_rlhf/helpful.jsonl.gz"):
        parsed = parse_transcript(row["text"][0])
        if parsed:
            compared.add(normalise(parsed[0]["content"]))
    for row in read_jsonl(data / "hh_rlhf/harmless_base.jsonl.gz"):
        out.chat("hh-rlhf/harmless", parse_transcript(row["chosen"]))
    pairs = {
        "test": ("instruction", "gold_response"),
        "val_sft": ("instruction", "response"),
        "val_conditional_pref": ("i_chosen", "r_chosen"),
    }
    for name, (ask, answer) in pairs.items():
        for row in read_jsonl(data / f"hh_derived/dove_anthropic_helpful_{name}.jsonl.gz"):
            out.chat("dove/helpful", _single(row[ask], row[answer]))
    for name in ("train", "test"):
        for row in read_jsonl(data / f"hh_derived/themis_hh_{name}.jsonl.gz"):
            out.chat("themis/hh", _single(row["question"], row["pos_answer"]["answer"]))
    for row in read_jsonl(data / "tulu3_samples/sft_sample.jsonl.gz"):
        out.chat("tulu3-samples", [{"role": m["role"], "content": m["content"].strip()} for m in row["messages"]])
    for row in read_jsonl(data / "tulu3_samples/preference_sample.jsonl.gz"):
        out.chat("tulu3-samples", [{"role": m["role"], "content": m["content"].strip()} for m in row["chosen"]])

    rest = BenchmarkIndex(benchmarks, without=JUST_EVAL)
    for row in read_jsonl(data / JUST_EVAL):
        prompt, answer = row["instruction"], row["output"].strip()
        if row["dataset"] in RED_TEAMING:
            out.text("just-eval answers", answer, prompt, "red-teaming prompt")
        elif rest.matches(prompt):
            out.text("just-eval answers", answer, prompt, "prompt stands in a benchmark question set")
        elif row["dataset"] in JUST_EVAL_ANSWER_ONLY:
            bad = "repeats its prompt" if normalise(prompt) in normalise(answer) else None
            out.text("just-eval answers", answer, prompt, bad)
        else:
            out.text("just-eval answers", answer, prompt, "prompt of another collection")
    rest = BenchmarkIndex(benchmarks, without=ARENA)
    questions = {r["question_id"]: r["turns"] for r in read_jsonl(data / ARENA)}
    for row in read_jsonl(data / "text_dialogue/arena_bench_v1_answers.jsonl.gz"):
        turns = questions.get(row["question_id"])
        for choice in row["choices"][:1]:
            for i, answer in enumerate(choice["turns"]):
                bad = None
                if turns is None or any(rest.matches(t) for t in turns):
                    bad = "question stands in another benchmark"
                elif normalise(turns[min(i, len(turns) - 1)]) in normalise(answer):
                    bad = "repeats its prompt"
                out.text("arena-bench answers", answer, row["question_id"], bad)

    for name in ("2wikimultihopqa", "musique_train", "hotpotqa_train"):
        for row in read_jsonl(data / f"passages/{name}_corpus.jsonl.gz"):
            body = row["text"]
            if isinstance(body, list):  # HotpotQA keeps a list of sentences
                body = "".join(body)
            out.text("wikipedia passages", f"{row['title']}\n{body}", row["title"])
    for row in read_jsonl(data / "hanna/llm_stories.jsonl.gz"):
        story = row["Story"] or ""
        out.text("hanna stories", story, row["Prompt"], "chat markers" if re.search(r"Human:|###", story) else None)
    for row in read_jsonl(data / "llamafactory_demo/c4_demo.jsonl.gz"):
        out.text("c4 demo", row["text"], row["text"][:80])
    with gzip.open(data / "llamafactory_demo/wiki_demo.txt.gz", "rt", encoding="utf-8") as handle:
        for article in handle:
            for i, part in enumerate(_paragraphs(article)):
                out.text("wikipedia articles", part, f"{article[:40]}{i}")
    report = {"first turns of pairs": len(compared), "benchmark prompts": len(index.exact), "sources": out.counts}
    return out.documents, report


def _single(prompt: str, answer: str) -> list[Message]:
    """A one-turn dialogue."""
    return [{"role": "user", "content": prompt.strip()}, {"role": "assistant", "content": answer.strip()}]


def _paragraphs(article: str, size: int = 1500) -> Iterator[str]:
    """Cut a long article into pieces of about ``size`` characters at sentence ends."""
    piece = ""
    for sentence in re.split(r"(?<=[.!?])\s+", article.strip()):
        piece += sentence + " "
        if len(piece) >= size:
            yield piece
            piece = ""
    if piece:
        yield piece
