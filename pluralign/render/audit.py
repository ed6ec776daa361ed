"""The audit: what a model will really be trained on, counted and checked before anything is paid for.

`Audit.breaches` are broken promises of the rendering contract (see `renderer`); `Audit.notes` are facts a person
should know. A record whose text spells a control token (`<|im_end|>`) is a note, since it is encoded as plain text; a
response that *ends* with one is a breach, since the model would be taught to spell it out before every end of turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from ..errors import RenderError
from ..records import Demonstration, Labelled, Messages, Preference, Ranked, Record, messages
from ..terms import Plan, Term, demonstration, reference_free_pair
from .audit_view import print_audit
from .findings import Audit, Example, Merge
from .renderer import Draft, Renderer, Row, Work
from .spans import show

__all__ = ["Audit", "audit", "default_plan", "print_audit"]

CHUNK = 256  # records tokenised together
EXAMPLES = 5  # merges kept to be shown
NAMES = {
    "w": "chosen",
    "l": "rejected",
    "y": "response",
    "w|l": "chosen after rejected",
    "l|w": "rejected after chosen",
    "l|l": "rejected after itself",
}


def default_plan(record: Record) -> Iterable[Term]:
    """Every response of a record once, read by the policy."""
    if isinstance(record, Preference):
        return reference_free_pair(record)
    if isinstance(record, Ranked):
        return [Term(f"y{i}", (record.prompt,), y) for i, y in enumerate(record.responses)]
    if isinstance(record, Demonstration | Labelled):
        return demonstration(record)
    raise TypeError(f"no plan for {type(record).__name__}")


def audit(
    records: Iterable[Record],
    renderer: Renderer,
    plan: Plan = default_plan,
    show_rows: int = 3,
    limit: int | None = None,
    where: Callable[[int, Record], str] | None = None,
) -> Audit:
    """Render `records` (at most `limit`) by `plan` and check every promise of the rendering contract.

    The first `show_rows` records are kept with the role of every token. `where(i, record)` names a record in the
    findings; without it a record is named by its `where`, else by its source and number.
    """
    title = getattr(records, "name", "row")
    out = Audit(
        template=renderer.template.name,
        max_length=renderer.max_length,
        uses_bos=_uses_bos(renderer),
        eos=renderer.eos,
        template_problems=_template_problems(renderer),
    )
    header = _header(renderer)
    for chunk in _chunks(islice(enumerate(records), limit)):
        names = [where(i, r) if where else _where(title, i, r) for i, r in chunk]
        rows: list[Row] = [
            ([t for t in plan(r) if isinstance(t, Term)], r.tools, name)
            for (_, r), name in zip(chunk, names, strict=True)
        ]
        good = []
        for row, work in zip(rows, renderer.work(rows), strict=True):
            out.rows += 1
            if isinstance(work, RenderError):
                out.failed.append((row[2], f"{work.reason} {work.remedy}".strip()))
                continue
            good.append(work)
            _count(out, renderer, work, header)
            if len(out.examples) < show_rows:
                shown = show(renderer, *row)
                out.examples.append(Example(row[2], {_name(t): s for t, s in zip(row[0], shown, strict=True)}))
        _count_merges(out, renderer, good)
    return out


# One record


def _count(out: Audit, renderer: Renderer, work: Work, header: str) -> None:
    draft, where = work.draft, work.draft.where
    out.terms += len(draft.terms)
    lost = dict.fromkeys(range(len(work.contexts)), 0)
    for i, rendered in enumerate(work.rendered):
        lost[draft.contexts[i]] = rendered.cut_context
    out.contexts_cut += sum(n > 0 for n in lost.values())
    out.tokens_cut += sum(lost.values())
    if any(r.cut_context or r.cut_target for r in work.rendered):
        out.rows_cut.append(where)
    for number, ids in enumerate(work.contexts):
        _count_context(out, renderer, draft, number, ids, header)
    for i in _distinct(draft):
        _count_target(out, renderer, work, i)
    if draft.veil:
        _count_spelled(out, renderer, draft)
    if _same_tokens(work):
        out.identical.append(where)


def _count_context(out: Audit, renderer: Renderer, draft: Draft, number: int, ids: list[int], header: str) -> None:
    bos, text = renderer.encoder.bos_id, renderer.encoder.to_text(draft.texts[number])
    run = next((n for n, i in enumerate(ids) if i != bos), len(ids))
    out.tokens += len(ids)
    out.bos[run] += 1
    out.later_bos += bos != renderer.encoder.eos_id and bos in ids[run:]
    out.after_assistant += draft.turns[number][-1].role == "assistant"
    if not draft.prompts[number].endswith(header):
        out.headless.append(draft.where)
    asked = [turn.content for turn in draft.turns[number] if turn.role in ("system", "user")]
    if not all((draft.veil.plain(content) if draft.veil else content).strip() in text for content in asked):
        out.left_out.append(draft.where)
    out.lengths.setdefault("prompt", []).append(len(ids))
    _check_decoding(out, renderer, ids, text, draft.where)


def _count_target(out: Audit, renderer: Renderer, work: Work, i: int) -> None:
    draft, rendered, (ids, _) = work.draft, work.rendered[i], work.targets[i]
    name, segments = _name(draft.terms[i]), draft.parts[i].segments
    label = f"{draft.where} ({name})"
    out.tokens += len(ids)
    out.lengths.setdefault(name, []).append(len(ids))
    out.closed += draft.parts[i].closed
    out.targets_cut += rendered.cut_target > 0
    out.tokens_cut += rendered.cut_target
    bos = renderer.encoder.bos_id
    if bos is not None and bos != renderer.encoder.eos_id and bos in ids:
        out.target_bos.append(label)
    ends = {*renderer.stop_ids, *renderer.tokenizer.convert_tokens_to_ids([s.end for s in segments if s.end])}
    scored = rendered.scored or [True] * len(rendered.target)
    count = sum(token in ends for token, own in zip(rendered.target, scored, strict=True) if own)
    expected = sum(bool(s.end) for s in segments) + _adds_end(renderer, draft, i)
    out.ends[count] += 1
    if count != expected and not rendered.cut_target:
        out.ends_wrong.append(label)
    text = "".join(renderer.encoder.to_text(draft.text(s.text)) for s in segments)
    _check_decoding(out, renderer, _written(renderer, work, i), text, label)
    answers = [turn.content for turn in draft.terms[i].target if turn.role == "assistant"]
    if not all(_answer(content) in text for content in answers):
        out.left_out.append(label)


def _answer(content: str) -> str:
    """A response without its reasoning, which templates treat in their own ways."""
    return content.rpartition("</think>")[2].strip()


def _count_spelled(out: Audit, renderer: Renderer, draft: Draft) -> None:
    controls = renderer.encoder.controls
    out.spelled_rows.append(draft.where)
    for content in {m.content for term in draft.terms for m in (*term.turns(), *term.target)}:
        out.spelled.update(controls.pattern.findall(content))
    answers = [m for term in draft.terms for m in term.target if m.role == "assistant"]
    if any(controls.ending.search(m.content.rstrip()) for m in answers):
        out.spelled_ends.append(draft.where)


def _same_tokens(work: Work) -> bool:
    """Whether two terms of one reader have become the same tokens."""
    terms = work.draft.terms
    seen = {(t.by, n, tuple(r.target)) for t, n, r in zip(terms, work.draft.contexts, work.rendered, strict=True)}
    return len(seen) < len(terms)


def _check_decoding(out: Audit, renderer: Renderer, ids: list[int], text: str, label: str) -> None:
    """Whether the ids, decoded, give the text back: exactly, up to the tokenizer's normalisation, or not."""
    tokenizer = renderer.tokenizer
    unknown = ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
    out.unknown += unknown
    decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    bos = str(tokenizer.bos_token)
    if text in (decoded, decoded.removeprefix(bos)):
        return
    if unknown or _squeezed(renderer, decoded, bos) == _squeezed(renderer, text, bos):
        out.normalised += 1
    else:
        out.undecodable.append(label)


def _squeezed(renderer: Renderer, text: str, bos: str) -> str:
    """Text without white space, after the tokenizer's own normaliser: SentencePiece moves spaces, Qwen composes."""
    text = text.removeprefix(bos)
    backend = getattr(renderer.tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    return "".join(text.replace("▁", " ").split())


# Boundaries


def _count_merges(out: Audit, renderer: Renderer, works: Sequence[Work]) -> None:
    """Encode prompt and response together, and see whether the ids are others than apart."""
    # an alternative is encoded by itself, as the response that it is: nothing to merge with
    cases = [
        (work, i) for work in works for i in _distinct(work.draft) if work.draft.inserts[work.draft.contexts[i]] is None
    ]
    texts = []
    for work, i in cases:
        context = work.draft.texts[work.draft.contexts[i]]
        rest = "".join(work.draft.text(s.text).text for s in work.draft.parts[i].segments)
        texts.append(context._replace(text=context.text + rest))
    for (work, i), joined in zip(cases, renderer.encoder.start(texts), strict=True):
        apart = work.contexts[work.draft.contexts[i]] + _written(renderer, work, i)
        joined = renderer.begin(joined)
        if joined == apart:
            continue
        out.merges += 1
        if len(out.merge_examples) < EXAMPLES:
            first = next((n for n, (a, b) in enumerate(zip(apart, joined, strict=False)) if a != b), 0)
            around = slice(max(first - 1, 0), first + 3)
            names = renderer.tokenizer.convert_ids_to_tokens
            label = f"{work.draft.where} ({_name(work.draft.terms[i])})"
            out.merge_examples.append(Merge(label, tuple(names(apart[around])), tuple(names(joined[around]))))


def _written(renderer: Renderer, work: Work, i: int) -> list[int]:
    """The target ids that stand for text: without an end of turn that the template does not print."""
    ids, _ = work.targets[i]
    return ids[:-1] if _adds_end(renderer, work.draft, i) else ids


def _adds_end(renderer: Renderer, draft: Draft, i: int) -> bool:
    """Whether the target ends with an EOS that is no part of its text."""
    return renderer.eos and draft.terms[i].ended and not draft.parts[i].segments[-1].end


# The template


def _uses_bos(renderer: Renderer) -> bool:
    try:
        return renderer.encoder.bos_id is not None and renderer.prompt("Jv4Kt")[0] == renderer.encoder.bos_id
    except RenderError:
        return renderer.encoder.adds_bos


def _header(renderer: Renderer) -> str:
    """What the template prints after the last turn of a prompt for the model to go on from."""
    try:
        bare, prompt = (renderer.template.write(messages("Jv4Kt"), (), wanted) for wanted in (False, True))
    except RenderError:
        return ""
    return prompt.removeprefix(bare) if prompt.startswith(bare) else ""


def _template_problems(renderer: Renderer) -> list[str]:
    probe = renderer.style.probe
    if probe is None:
        return ["the chat template cannot render one question and one answer"]
    if not probe.header and renderer.encoder.controls.pattern.search(probe.lead):
        return [
            "the chat template prints no generation header: the model is shown prompts without it, and the header "
            "counts as part of every response"
        ]
    return []


# Small helpers


def _distinct(draft: Draft) -> list[int]:
    """The terms of a record without those that repeat a context and target (the reference's, say)."""
    seen: list[tuple[int, Messages, tuple[str, ...], bool]] = []
    out = []
    for i, term in enumerate(draft.terms):
        own = draft.contexts[i], term.target, term.prefix, term.ended
        if own not in seen:
            seen.append(own)
            out.append(i)
    return out


def _name(term: Term) -> str:
    return NAMES.get(term.name, term.name)


def _chunks(items: Iterator[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _where(title: str, i: int, record: Record) -> str:
    return record.where or f"{record.source or title} {i + 1}"
