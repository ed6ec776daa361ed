"""Judges by a word of the command line.

openai:gpt-4.1, http://host/v1#model   a language model: pairs in both orders, ratings from 1 to 10
reward:MODEL[:INDEX]                   a sequence classifier of transformers: a folder or a hub name
rating:RUN[#ATTRIBUTE]                 a policy with a rating head (recipe `attribute_model`)
local                                  a small reward model that is trained here, once, without a network
embedding[:ENCODER]                    nearer to the reference answer, or to the question
rule:longer                            a rule of `rules.RULES`
panel:A,B,C                            most of several judges
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..endpoints import Budget, Endpoint, is_address
from ..errors import SettingsError, nearest

__all__ = ["KINDS", "make_judge"]

KINDS = ("openai", "http", "reward", "rating", "local", "embedding", "rule", "panel")


def make_judge(
    text: str,
    *,
    style: str = "pair",
    criteria: str = "",
    budget: Budget | None = None,
    cache: Path | None = None,
    workers: int = 8,
    timeout: float = 120,
    progress: Callable[[str, int, int], None] | None = None,
) -> Any:
    """The judge that a word names: a `PairJudge` (`compare`), and where it can rate (`rate`) a `RatingJudge`, too.

    `style` is how a language model compares (`wording.PAIR_STYLES`), `criteria` what it rates; `budget` and `cache` are
    its endpoint's, shared by all of a panel. `progress` hears of work that has to be done first (training `local`).

    Raises SettingsError for a word that names none and for one that cannot be loaded.
    """
    options: dict[str, Any] = {
        "style": style, "criteria": criteria, "budget": budget, "cache": cache, "workers": workers, "timeout": timeout,
        "progress": progress,
    }  # fmt: skip
    if is_address(text):
        return _language(text, options)
    kind, colon, rest = text.partition(":")
    if kind == "local" and not colon:
        from .bradley_terry import local_judge

        return local_judge(progress=progress)
    if kind == "embedding":
        return _embedding(rest or "auto", cache)
    if kind not in KINDS or not rest:
        raise SettingsError(
            f'"{text}" names no judge.{nearest(kind, KINDS)}',
            remedy="Known: local, openai:MODEL, URL[#MODEL], reward:MODEL, rating:RUN, rule:longer, embedding, "
            "panel:A,B.",
        )
    if kind == "reward":
        return _reward(rest)
    if kind == "rating":
        return _rating(rest)
    if kind == "rule":
        from .rules import rule_judge

        return rule_judge(rest)
    return _panel(rest, options)


def _language(text: str, options: dict[str, Any]) -> Any:
    from .language import LanguageJudge, pair_style

    style = pair_style(options["style"])
    endpoint = Endpoint.open(text, workers=options["workers"], timeout=options["timeout"], budget=options["budget"],
                             cache=options["cache"])  # fmt: skip
    return LanguageJudge(endpoint, style, options["criteria"])


def _embedding(name: str, cache: Path | None) -> Any:
    from ..encoders import encoder
    from .scored import embedding_judge

    return embedding_judge(encoder(name, cache=cache))


def _reward(text: str) -> Any:
    from ..curate.scorers import load_reward_models
    from .scored import scorer_judge

    (scorer,) = load_reward_models([f"reward={text}"], dtype="float32")
    return scorer_judge(scorer, name=f"reward:{text}")


def _rating(text: str) -> Any:
    from ..policy import Policy
    from .answers import rating_scorer
    from .scored import scorer_judge

    name, _, attribute = text.partition("#")
    return scorer_judge(rating_scorer(Policy.load(name)), attribute or None, name=f"rating:{text}")


def _panel(text: str, options: dict[str, Any]) -> Any:
    from .panel import Panel

    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(word.startswith("panel:") for word in words):
        raise SettingsError("a panel holds judges, and no panels.")
    return Panel(tuple(make_judge(word, **options) for word in words))
