"""Do the policies rank what people preferred above what they rejected? Judged by the policies' own log-probabilities.

For every pair: the log-prob of both responses under each policy, per token and summed; against a reference, the
log-ratios that the DPO family calls implicit rewards. Every figure has an interval, and pairs that share a first user
turn count as one cluster. The scores of every pair are kept, so that two evaluations can be compared pair by pair.

Every policy, a reference too, is read as it is deployed: one that senses scores or infers intents (SGA, A-IPO) sees
what it finds for the prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecordError, RenderError, SettingsError
from ..records import Preference
from ..scoring.forward import text_config, unwrap
from ..scoring.layout import Scored
from ..scoring.logprobs import token_kl
from ..steering.beside import beside, said_beside
from ..terms import Scores, Term, reference_free_pair
from .scores import Pair, pair_id, short_hash
from .statistics import Estimate, mean_interval, paired_difference, share_interval

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["JUDGE", "PreferenceEvaluation", "evaluate_preferences"]

JUDGE = "the policies' own log-probabilities"
KL_ROWS = 64
NAN = math.nan


@dataclass
class PreferenceEvaluation:
    """`evaluation` as evaluation.json holds it, `scores` as the lines of scores.jsonl."""

    evaluation: dict[str, Any]
    scores: list[dict[str, Any]]
    failed: dict[str, int] = field(default_factory=dict)  # why pairs could not be scored, and how many

    def estimate(self, model: str, name: str) -> Estimate:
        """One figure, by model and name. Raises KeyError where it was not measured."""
        row = next(row for row in self.evaluation["rows"] if row["model"] == model)
        return Estimate.from_dict(row[name])

    def write(self, folder: str | Path) -> Path:
        """evaluation.json and scores.jsonl in a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(self.evaluation, indent=1, ensure_ascii=False) + "\n")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.scores)
        (folder / "scores.jsonl").write_text("".join(lines))
        return folder / "evaluation.json"


def evaluate_preferences(
    policies: Mapping[str, Policy],
    records: Iterable[Preference],
    *,
    reference: Policy | Mapping[str, Policy] | None = None,
    limit: int | None = None,
    token_budget: int = 8192,
    kl_rows: int = KL_ROWS,
    on: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> PreferenceEvaluation:
    """Every policy on the same pairs, each through its own renderer; differences are against the first one.

    Per model: `accuracy` (share of pairs whose chosen response is strictly likelier per token) with `ties` apart,
    `accuracy_sum` (the same with summed log-probs), the lengths of both responses in tokens; against a reference
    `implicit_accuracy`, `margin` and `chosen_drift` (nats) and `kl` (nats a token of KL(reference || policy) on the
    chosen responses of `kl_rows` pairs). The reference is one for all, or one for each policy by its name; a policy
    is not held against itself. `progress(model, done, total)`.
    Raises SettingsError where there is nothing to do, RecordError where a record is no pair.
    """
    if not policies:
        raise SettingsError("there is no policy to evaluate.")
    pairs = list(islice(records, limit))
    if not pairs:
        raise RecordError("there are no pairs to evaluate on.")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Preference):
            raise RecordError(f"a {type(pair).__name__.lower()} record is no pair.", where=_where(pair, i))
    every, against = _references(policies, reference)
    failed: dict[str, int] = {}
    cut = 0
    read: dict[str, list[Pair | None]] = {}
    sequences: dict[str, list[tuple[Scored, Scored] | None]] = {}
    for name, policy in every.items():
        sequences[name], lost = _render(policy, pairs, failed)
        cut = max(cut, lost)
        read[name] = _score(policy, sequences[name], token_budget, _counter(progress, name, len(pairs)))
    kls = {}
    for name, ref in against.items():
        sides = (every[name], sequences[name]), (every[ref], sequences[ref])
        kls[name] = _kl(*sides, token_budget, kl_rows)
    table = _Table(list(policies), against, pairs, read, kls)
    evaluation: dict[str, Any] = {"on": on or f"{len(pairs):,} pairs", "judge": JUDGE, "rows": table.rows()}
    told = {name: words for name, policy in every.items() if (words := said_beside(policy))}
    if told:
        evaluation["beside"] = told
    if cut:
        evaluation["truncated"] = cut
    groups = sorted({pair.group for pair in pairs if pair.group is not None})
    if groups:
        evaluation["groups"] = {g: table.rows([i for i, p in enumerate(pairs) if p.group == g]) for g in groups}
    return PreferenceEvaluation(evaluation, table.lines(), failed)


def _references(
    policies: Mapping[str, Policy], reference: Policy | Mapping[str, Policy] | None
) -> tuple[dict[str, Policy], dict[str, str]]:
    """(every policy to be read by name, the name of the reference of each policy that has one)."""
    every = dict(policies)
    wanted = (
        reference if isinstance(reference, Mapping) else {} if reference is None else dict.fromkeys(every, reference)
    )
    against = {}
    for name, policy in wanted.items():
        found = next((known for known, p in every.items() if p is policy), None)
        if found is None:
            found = "reference" if len(set(map(id, wanted.values()))) == 1 else f"reference of {name}"
            if found in every:
                raise SettingsError(f'a policy is called "{found}" beside one.', remedy="Give it another name.")
            every[found] = policy
        if found != name:
            against[name] = found
    return every, against


def _counter(progress: Callable[[str, int, int], None] | None, name: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(name, done, total)

    return count


def _where(record: Any, i: int) -> str:
    return str(getattr(record, "meta", {}).get("where") or f"pair {i + 1}")


# Scores


def _render(
    policy: Policy, pairs: Sequence[Preference], failed: dict[str, int]
) -> tuple[list[tuple[Scored, Scored] | None], int]:
    """(chosen, rejected) of every pair, None where it cannot be rendered; and how many pairs were truncated."""
    out: list[tuple[Scored, Scored] | None] = []
    cut = 0
    shown = beside(policy, pairs)
    rows = [
        (_terms(pair, more), pair.tools, _where(pair, i))
        for i, (pair, more) in enumerate(zip(pairs, shown, strict=True))
    ]
    for rendered in policy.renderer.try_batch(rows):
        if isinstance(rendered, RenderError):
            failed[rendered.reason] = failed.get(rendered.reason, 0) + 1
            out.append(None)
            continue
        chosen, rejected = (Scored(r.context, r.target, r.scored) for r in rendered)
        cut += any(r.cut_context or r.cut_target for r in rendered)
        out.append((chosen, rejected))
    return out, cut


def _terms(pair: Preference, shown: Scores | None) -> list[Term]:
    terms = list(reference_free_pair(pair))
    return terms if shown is None else [replace(t, context=(*t.context, shown)) for t in terms]


def _score(
    policy: Policy,
    sequences: Sequence[tuple[Scored, Scored] | None],
    token_budget: int,
    count: Callable[[int], None],
) -> list[Pair | None]:
    """One reading a pair, the prompt computed once for both responses."""
    flat = [s for pair in sequences if pair is not None for s in pair]
    groups = [[i, i + 1] for i in range(0, len(flat), 2)]
    readings = iter(policy.score(flat, groups=groups, token_budget=token_budget, progress=count) if flat else [])
    out: list[Pair | None] = []
    for pair in sequences:
        if pair is None:
            out.append(None)
            continue
        w, l = next(readings), next(readings)
        out.append(Pair(float(w.sum[0]), float(l.sum[0]), int(w.length[0]), int(l.length[0])))
    return out


def _kl(
    policy: tuple[Policy, Sequence[tuple[Scored, Scored] | None]],
    reference: tuple[Policy, Sequence[tuple[Scored, Scored] | None]],
    token_budget: int,
    rows: int,
) -> list[float] | str:
    """Mean KL(reference || policy) a token on the chosen responses of some pairs, or why it cannot be had."""
    both = [
        (a[0], b[0])
        for a, b in zip(policy[1], reference[1], strict=True)
        if a is not None and b is not None and a[0].target == b[0].target
    ]
    heads = [unwrap(side[0].model).get_output_embeddings() for side in (policy, reference)]
    if not both:
        return "not measured: the two tokenise differently"
    if any(not hasattr(h, "weight") or getattr(h, "bias", None) is not None for h in heads):
        return "not measured: an output layer that is not one matrix"
    if heads[0].weight.shape[0] != heads[1].weight.shape[0]:
        return "not measured: vocabularies of different size"
    step = max(1, len(both) // rows) if rows else 1  # evenly over the data, the same pairs every time
    chosen = both[::step][:rows]
    softcap = getattr(text_config(policy[0].model), "final_logit_softcapping", None)
    states = [
        [r.predict_hidden for r in side[0].score([c[k] for c in chosen], reads=("kl",), token_budget=token_budget)]
        for k, side in enumerate((policy, reference))
    ]
    weights = [h.weight.detach().float().cpu() for h in heads]
    out = []
    for own, ref in zip(*states, strict=True):
        assert own is not None
        assert ref is not None
        out.append(float(token_kl((ref, weights[1]), (own, weights[0]), softcap=softcap).mean()))
    return out


# Figures


@dataclass
class _Table:
    """Everything that was read, ready to be summed up over all pairs or a part of them."""

    models: list[str]
    against: Mapping[str, str]  # model -> its reference
    pairs: Sequence[Preference]
    read: Mapping[str, Sequence[Pair | None]]
    kls: Mapping[str, list[float] | str]

    def __post_init__(self) -> None:
        turns = [next((m for m in pair.prompt if m.role == "user"), pair.prompt[0]) for pair in self.pairs]
        self.clusters = [turn.content.strip() for turn in turns]

    def rows(self, part: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """One row a model, over the pairs of `part` (all of them by default)."""
        at = list(range(len(self.pairs))) if part is None else list(part)
        return [self._row(model, at, whole=part is None) for model in self.models]

    def _row(self, model: str, at: Sequence[int], *, whole: bool) -> dict[str, Any]:
        own = self._columns(model, at)
        row: dict[str, Any] = {"model": model}
        for name, values in own.items():
            row[name] = self._estimate(name, values, at).as_dict()
        if whole and isinstance(found := self.kls.get(model), list) and found:
            row["kl"] = mean_interval(found).as_dict()
        elif whole and isinstance(found, str):
            row["kl_remark"] = found
        if model != self.models[0]:
            first = self._columns(self.models[0], at)
            for name in ("accuracy", "implicit_accuracy", "margin"):
                if name in own and name in first:
                    gap = paired_difference(own[name], first[name], clusters=self._labels(at))
                    row[f"{name}_difference"] = gap.as_dict()
        if model in self.against and len(set(self.against.values())) > 1:
            row["reference"] = self.against[model]
        return row

    def _columns(self, model: str, at: Sequence[int]) -> dict[str, list[float]]:
        """Per-pair values by name, NaN where a pair was not scored."""
        own = [self.read[model][i] for i in at]
        columns = {
            "accuracy": [NAN if p is None else float(p.gap_per_token > 0) for p in own],
            "ties": [NAN if p is None else float(p.gap_per_token == 0) for p in own],
            "accuracy_sum": [NAN if p is None else float(p.gap > 0) for p in own],
        }
        if model in self.against:
            ref = [self.read[self.against[model]][i] for i in at]
            both = list(zip(own, ref, strict=True))
            margins = [NAN if p is None or r is None else p.gap - r.gap for p, r in both]
            columns["implicit_accuracy"] = [NAN if math.isnan(m) else float(m > 0) for m in margins]
            columns["margin"] = margins
            columns["chosen_drift"] = [NAN if p is None or r is None else p.chosen - r.chosen for p, r in both]
        columns["chosen_length"] = [NAN if p is None else float(p.chosen_tokens) for p in own]
        columns["rejected_length"] = [NAN if p is None else float(p.rejected_tokens) for p in own]
        return columns

    def _estimate(self, name: str, values: Sequence[float], at: Sequence[int]) -> Estimate:
        share = name == "ties" or "accuracy" in name
        labels = self._labels(at)
        return (
            share_interval(values)
            if share and labels is None
            else _within(mean_interval(values, clusters=labels), share)
        )

    def _labels(self, at: Sequence[int]) -> list[str] | None:
        """Cluster labels, None where every pair has a first turn of its own."""
        labels = [self.clusters[i] for i in at]
        return labels if len(set(labels)) < len(labels) else None

    def lines(self) -> list[dict[str, Any]]:
        """scores.jsonl: one line a pair, the readings of every model (the reference among them)."""
        out = []
        for i, pair in enumerate(self.pairs):
            scores = {}
            for name, read in self.read.items():
                p = read[i]
                scores[name] = None if p is None else [p.chosen, p.rejected, p.chosen_tokens, p.rejected_tokens]
            group = {} if pair.group is None else {"group": pair.group}
            out.append({"id": pair_id(pair), "cluster": short_hash(self.clusters[i]), **group, "scores": scores})
        return out


def _within(e: Estimate, share: bool) -> Estimate:
    """A share's interval ends at 0 and 1."""
    if not share or not e.has_interval:
        return e
    return Estimate(e.value, max(0.0, e.low), min(1.0, e.high), e.n, e.level, e.method, e.missing)
