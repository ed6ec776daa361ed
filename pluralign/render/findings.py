"""What an audit found: counts, broken promises (`breaches`) and facts worth knowing (`notes`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .spans import Shown

__all__ = ["Audit", "Example", "Merge", "summary"]


@dataclass(frozen=True, slots=True)
class Merge:
    """A boundary that the tokenizer would have merged across: tokens around it apart, and joined."""

    where: str
    apart: tuple[str, ...]
    joined: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One record as a person looks at it: its terms by name."""

    where: str
    shown: dict[str, Shown]


@dataclass
class Audit:
    """Counts and findings. `lengths` holds tokens before truncation: "prompt" and one entry per kind of response."""

    template: str
    max_length: int
    uses_bos: bool
    eos: bool
    rows: int = 0
    terms: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    merges: int = 0
    merge_examples: list[Merge] = field(default_factory=list)
    bos: Counter[int] = field(default_factory=Counter)
    later_bos: int = 0
    target_bos: list[str] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)
    ends_wrong: list[str] = field(default_factory=list)
    spelled: Counter[str] = field(default_factory=Counter)
    spelled_rows: list[str] = field(default_factory=list)
    spelled_ends: list[str] = field(default_factory=list)
    contexts_cut: int = 0
    targets_cut: int = 0
    rows_cut: list[str] = field(default_factory=list)
    tokens: int = 0
    tokens_cut: int = 0
    identical: list[str] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    normalised: int = 0
    unknown: int = 0
    headless: list[str] = field(default_factory=list)
    closed: int = 0
    after_assistant: int = 0
    template_problems: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.breaches

    @property
    def breaches(self) -> list[str]:
        """One line for each promise that this data, template and tokenizer do not keep."""
        wrong_bos = sum(n for count, n in self.bos.items() if count != int(self.uses_bos))
        found: list[tuple[object, str]] = [
            (not self.rows, "there are no rows"),
            *((True, problem) for problem in self.template_problems),
            (self.failed, f"{_n(self.failed, 'row')} cannot be rendered: {_kinds(self.failed)}"),
            (wrong_bos, f"{wrong_bos:,} prompts begin with a wrong number of BOS tokens ({_histogram(self.bos)})"),
            (self.target_bos, f"{_n(self.target_bos, 'response')} with a BOS inside: {_some(self.target_bos)}"),
            (
                self.ends_wrong,
                f"{_n(self.ends_wrong, 'response')} with a wrong number of ends: {_some(self.ends_wrong)}",
            ),
            (
                self.spelled_ends,
                f"{_n(self.spelled_ends, 'row')} with a response that ends with the characters of a control token: "
                f"{_some(self.spelled_ends)}. Strip them, the end of turn is added for you",
            ),
            (
                self.identical,
                f"{_n(self.identical, 'row')} whose responses are the same tokens once rendered and truncated, so "
                f"that they say nothing: {_some(self.identical)}",
            ),
            (
                self.left_out,
                f"{_n(self.left_out, 'prompt or response', 'prompts or responses')} whose text the template leaves "
                f"out or rewrites: {_some(self.left_out)}",
            ),
            (
                self.undecodable,
                f"{_n(self.undecodable, 'text')} not given back when decoded: {_some(self.undecodable)}",
            ),
            (
                self.headless,
                f"{_n(self.headless, 'prompt')} not ending with the generation header: {_some(self.headless)}",
            ),
        ]
        return [f"{line.rstrip('.')}." for wrong, line in found if wrong]

    @property
    def notes(self) -> list[str]:
        """One line for each thing worth knowing that breaks no promise."""
        share = self.tokens_cut / max(self.tokens, 1)
        found: list[tuple[object, str]] = [
            (
                self.rows_cut,
                f"truncation to {self.max_length:,} tokens touches {_n(self.rows_cut, 'row')}: "
                f"{_many(self.contexts_cut, 'prompt')} lost the beginning, {_many(self.targets_cut, 'response')} the "
                f"end ({self.tokens_cut:,} tokens, {share:.1%})",
            ),
            (
                self.merges,
                f"{_many(self.merges, 'boundary', 'boundaries')} that the tokenizer would merge across if prompt and "
                "response were encoded together; they are encoded apart, as at inference",
            ),
            (
                self.spelled_rows,
                f"{_n(self.spelled_rows, 'row')} with the characters of control tokens ({_counts(self.spelled)}), "
                f"encoded as plain text: {_some(self.spelled_rows)}",
            ),
            (
                self.closed,
                f"{_many(self.closed, 'response')} close the reasoning block that the generation prompt opens",
            ),
            (self.later_bos, f"the template prints BOS again inside {_many(self.later_bos, 'prompt')}"),
            (self.after_assistant, f"{_many(self.after_assistant, 'prompt')} ending with an assistant turn"),
            (self.normalised, f"{_many(self.normalised, 'text')} changed by the tokenizer's own normalisation"),
            (self.unknown, f"{_many(self.unknown, 'token')} unknown to the tokenizer"),
        ]
        return [f"{line}." for there, line in found if there]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready counts, findings and lengths (without the examples' tokens)."""
        return {
            "ok": self.ok,
            "breaches": self.breaches,
            "notes": self.notes,
            "template": self.template,
            "max_length": self.max_length,
            "rows": self.rows,
            "terms": self.terms,
            "failed": [{"where": where, "reason": reason} for where, reason in self.failed],
            "boundary_merges": {
                "count": self.merges,
                "examples": [
                    {"where": m.where, "apart": list(m.apart), "joined": list(m.joined)} for m in self.merge_examples
                ],
            },
            "bos_per_prompt": {str(k): n for k, n in sorted(self.bos.items())},
            "ends_per_response": {str(k): n for k, n in sorted(self.ends.items())},
            "control_tokens_spelled": dict(self.spelled),
            "truncation": {
                "rows": len(self.rows_cut),
                "contexts": self.contexts_cut,
                "targets": self.targets_cut,
                "tokens": self.tokens_cut,
                "tokens_before": self.tokens,
            },
            "identical_after_rendering": self.identical,
            "lengths": {name: summary(values) for name, values in self.lengths.items()},
        }


def summary(values: Sequence[int]) -> dict[str, float]:
    """Count, mean, median, 95th percentile, smallest and largest of some lengths."""
    ordered = sorted(values)
    n = len(ordered)
    return {
        "n": n,
        "mean": sum(ordered) / n,
        "median": ordered[n // 2],
        "p95": ordered[min(int(0.95 * n), n - 1)],
        "min": ordered[0],
        "max": ordered[-1],
    }


def _many(n: int, noun: str, plural: str = "") -> str:
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _n(items: Sequence[Any], noun: str, plural: str = "") -> str:
    return _many(len(items), noun, plural)


def _some(items: Sequence[str], limit: int = 3) -> str:
    more = ", ..." if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _counts(counter: Counter[str], limit: int = 4) -> str:
    return ", ".join(f"{token} {n:,}x" for token, n in counter.most_common(limit))


def _histogram(counter: Counter[int]) -> str:
    return ", ".join(f"{k}: {n:,}" for k, n in sorted(counter.items()))


def _kinds(failed: Sequence[tuple[str, str]]) -> str:
    reasons: dict[str, list[str]] = {}
    for where, reason in failed:
        reasons.setdefault(reason.rstrip("."), []).append(where)
    kinds = sorted(reasons.items(), key=lambda kind: -len(kind[1]))
    more = f"; and {len(kinds) - 3:,} more reasons" if len(kinds) > 3 else ""
    return "; ".join(f"{reason} ({_some(where)})" for reason, where in kinds[:3]) + more
