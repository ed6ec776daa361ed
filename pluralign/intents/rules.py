"""The knowledge pipeline without a language model: crude, English, and labelled "rules" wherever its results go.

Elements are capitalised runs, quotations, numbers and runs of content words. Candidates of an element are the titles
nearest to it in the knowledge base. Sub-questions come from templates, and the core intent is the kind of request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .bases import KnowledgeBase
from .prompts import occurs

__all__ = ["FUNCTION_WORDS", "beliefs_by_rules", "calibrated_by_rules", "core_by_rules", "elements", "request_kind"]

MOST = 5
CANDIDATES = 10
AROUND = 50  # passages about the whole question, among which a candidate has to be

_FUNCTION = """
a about above across after again against ago all almost along already also although always am among an and another
any anyone anything are around as at away back be because been before being below between both but by came can
cannot come could did do does doing done down during each either else enough etc even ever every everyone everything
few first for from further get gets getting give given gives go goes going got had has have having he her here hers
herself him himself his how however i if in into instead is it its itself just last least less let like likely lot
made make makes making many may maybe me might mine more most much must my myself near need needs neither never new
next no nobody none nor not nothing now of off often on once one only onto or other others our ours ourselves out
over own per perhaps please quite rather really same say see seem seems several shall she should since so some
somebody someone something sometimes soon still such take tell than that the their theirs them themselves then there
these they thing things this those though through thus to together too toward towards under unless until up upon us
use used uses using very via want wants was way we well went were what whatever when whenever where wherever whether
which while who whoever whole whom whose why will with within without would yes yet you your yours yourself
yourselves i'm it's don't doesn't didn't can't won't isn't aren't i've i'd i'll you're that's what's who's let's
there's s t m re ve ll d
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
_VERB = """
add affect agree answer appear apply ask asked avoid became become began begin believe belong born bring brought
build built buy call called cause caused change choose compare compose consider contain contains convert create
created define describe design detail develop died discuss draft draw eat edit estimate evaluate explain express
fall feel felt find fix follow found gave generate grow guess happen happened have help hold identify implement
improve include included increase know known lead leave left list live lived located look lose lost mean means meant
meet mention move named occur offer outline own pay perform play played prefer prepare prevent produce produced
provide put read reason recommend reduce remain rephrase respond rewrite said sell serve show signed solve speak
spend start started state stop suggest summarise summarize talk teach tell think thought translate travel treat try
turn understand visit wait walk wear win won work worked works write writes written wrote
sing sings sang sung grew took took sat ran run fly flew swam spoke stood broke chose fell rose shot sent spent taught
threw caught fought hit cut shut hurt cost beat drove rode shook stole swore tore woke
"""
_VERBS = frozenset(_VERB.split())
_QUOTED = re.compile(r"[\"“]([^\"“”\n]{2,60})[\"”]")
_TOKEN = re.compile(r"[^\W_]+(?:['’\-.][^\W_]+)*|[^\w\s]")
_MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.?"
_NUMBER = re.compile(
    rf"\b\d{{1,2}} {_MONTH}(?: \d{{4}})?(?!\w)|\b{_MONTH} \d{{1,2}}(?:, \d{{4}})?\b|\b{_MONTH} \d{{4}}\b"
    r"|\b\d[\d,.:/]*\d(?:st|nd|rd|th|s|%)?(?!\w)|\b\d%?(?!\w)",
    re.IGNORECASE,
)
_SUBJECTS = frozenset(("who", "what", "which", "that", "it", "he", "she", "this"))
_VAGUE = frozenset(("name", "kind", "type", "sort", "way", "number", "amount", "part", "example"))
_KINDS = (
    ("translate", r"\btranslat(?:e|ion)\b", "have a text translated"),
    ("summary", r"\bsummar(?:y|i[sz]e|ies)\b|\btl;?dr\b", "have a text summarised"),
    ("code", r"\b(?:python|javascript|java|sql|html|c\+\+|regex|algorithm|script|function|code|program)\b",
     "get code written or explained"),
    ("rewrite", r"\b(?:rewrite|rephrase|paraphrase|proofread|edit|improve) (?:the|this|my|these)\b",
     "have a text rewritten"),
    ("write", r"^(?:please |can you |could you )?(?:write|draft|compose|create|generate)\b", "have a text written"),
    ("compare", r"\b(?:compare|comparison|difference between|differ|versus|vs\.?)\b", "compare things"),
    ("recommend", r"\b(?:recommend|suggest|should i|best|ideas? for|advice|tips)\b", "get a recommendation"),
    ("how", r"\bhow (?:to|do|can|could|should|would) (?:i|we|you|one)?\b|\bsteps?\b", "learn how to do something"),
    ("why", r"\bwhy\b|\bwhat (?:causes|caused)\b|\breasons?\b|\bcaused?\b", "understand a cause"),
    ("opinion", r"\b(?:do you think|your opinion|your view|agree or disagree|is it (?:right|wrong|ok|okay))\b",
     "weigh an opinion"),
    ("support", r"\bi (?:feel|am|'m) (?:so |very |really )?(?:sad|lonely|anxious|depressed|scared|worried|angry)\b",
     "get support"),
    ("fact", r"^(?:in |at |on |for |to |from )?(?:who|whom|whose|when|where|which|what (?:year|date|is the name))\b|"
     r"\bhow (?:many|much|old|long|far|tall|big)\b", "find a fact"),
    ("explain", r"\b(?:explain|what (?:is|are|was|were)|define|describe|meaning of|tell me about)\b",
     "understand a topic"),
)  # fmt: skip
KINDS = tuple((name, re.compile(pattern, re.IGNORECASE), intent) for name, pattern, intent in _KINDS)
OTHER = ("other", "get an answer")


def request_kind(question: str) -> tuple[str, str]:
    """(kind, intent in words) of the first pattern that a question has; ("other", ...) where it has none."""
    text = question.strip().replace("’", "'")
    return next(((name, intent) for name, pattern, intent in KINDS if pattern.search(text)), OTHER)


def elements(question: str) -> tuple[str, ...]:
    """Up to 5 distinct elements, as written: quotations and capitalised runs, numbers and dates, then other runs of
    content words, longer ones first; in the order in which they stand. Nothing where a question has no content word."""
    names = [(m.start(1), m[1].strip()) for m in _QUOTED.finditer(question)]
    runs = _runs(question)
    numbers = [(m.start(), m[0].strip(" ,.:/")) for m in _NUMBER.finditer(question)]
    dates = [(at, text) for at, text in numbers if " " in text]  # before names: "May" is one, too
    names = [*dates, *names, *((at, run) for at, run, capital in runs if capital)]
    rest = sorted(((at, run) for at, run, capital in runs if not capital), key=lambda r: (-len(r[1].split()), r[0]))
    chosen: list[tuple[int, str]] = []
    for at, text in (*names, *numbers, *rest):
        inside = any(a <= at < a + len(t) or at <= a < at + len(text) for a, t in chosen)
        again = any(t.casefold() == text.casefold() for _, t in chosen)
        if occurs(text, question) and not inside and not again and len(chosen) < MOST:
            chosen.append((at, text))
    return tuple(text for _, text in sorted(chosen))


def _runs(text: str) -> list[tuple[int, str, bool]]:
    """(place, words, whether they are a name) of runs without function words, verbs or marks between them.

    A capital at the start of a sentence makes a name only of what is no known word of another kind.
    """
    out: list[tuple[int, str, bool]] = []
    run: list[re.Match[str]] = []
    capital = False

    def close() -> None:
        if run:
            out.append((run[0].start(), text[run[0].start() : run[-1].end()], capital))
        run.clear()

    start, before = True, ""  # of a sentence; the word before
    for token in _TOKEN.finditer(text):
        word = token[0]
        low = word.lower().replace("’", "'")
        if not word[0].isalnum():
            close()
            start = word in '.!?:;"“'
            continue
        plain = low.removesuffix("'s")
        function = low in FUNCTION_WORDS or plain in FUNCTION_WORDS or plain in _VAGUE
        is_name = word[0].isupper() and len(word) > 1 and not (start and (low in _VERBS or function))
        acts = before in _SUBJECTS and low.endswith("s") and low[:-1] in _VERBS  # "who sells"
        before = low
        if word[0].isdigit() or (not is_name and (function or acts or plain in _VERBS or _like_verb(plain))):
            close()
        else:
            if run and (is_name != capital or text[run[-1].end() : token.start()] != " "):
                close()
            capital = is_name
            run.append(token)
        start = False
    close()
    return [(at, re.sub(r"['’]s\Z", "", run_), name) for at, run_, name in out if len(run_) > 1]


def _like_verb(word: str) -> bool:
    """An adverb, or a known verb with an ending."""
    if word.endswith("ly") and len(word) > 4:
        return True
    for end in ("ed", "d", "ing"):
        if word.endswith(end) and (word.removesuffix(end) in _VERBS or word.removesuffix(end) + "e" in _VERBS):
            return True
    return False


def beliefs_by_rules(dimensions: Sequence[str], base: KnowledgeBase) -> dict[str, tuple[str, ...]]:
    """For each element up to 10 titles of the passages nearest to it, its own name apart."""
    found = base.search(list(dimensions), 4 * CANDIDATES)
    out = {}
    for name, passages in zip(dimensions, found, strict=True):
        titles = {p.title.casefold(): p.title for p in passages if p.title and p.title.casefold() != name.casefold()}
        out[name] = tuple(list(titles.values())[:CANDIDATES])
    return out


def calibrated_by_rules(
    question: str, beliefs: dict[str, tuple[str, ...]], base: KnowledgeBase
) -> dict[str, tuple[str, ...]]:
    """The candidates that are also among the 50 passages nearest to the whole question; others are off its topic."""
    near = {p.title for p in base.search([question], AROUND)[0]}
    return {name: tuple(title for title in many if title in near) for name, many in beliefs.items()}


def core_by_rules(question: str, dimensions: Sequence[str]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """(sub-questions, intent, no further ones): what each element is, how the first two are related, what is wanted."""
    _, intent = request_kind(question)
    steps = [f"What is known about {name}?" for name in dimensions[:3]]
    if len(dimensions) > 1:
        steps.append(f"How are {dimensions[0]} and {dimensions[1]} related?")
    steps.append(f"Which answer serves someone who wants to {intent}?")
    return tuple(steps), intent, ()
