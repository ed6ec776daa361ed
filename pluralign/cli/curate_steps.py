"""The settings of curation steps, from the options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import SettingsError
from .console import note, quiet_libraries

__all__ = ["SETTINGS", "VALIDATION", "listing"]

VALIDATION = 1000


def _picked(given: dict[str, Any], **names: str) -> dict[str, Any]:
    """Settings of a step from the options that were given: ours=theirs."""
    return {ours: given[theirs] for ours, theirs in names.items() if theirs in given}


def _length(given: dict[str, Any]) -> dict[str, Any]:
    settings = _picked(given, longest="max_tokens", shortest="min_tokens")
    if "model" not in given:
        note("lengths are counted in words; --model NAME counts tokens")
        return settings
    quiet_libraries()
    from ..curate import token_counter
    from ..policy import load_tokenizer

    tokenizer, _ = load_tokenizer(given["model"])
    return {**settings, "counter": token_counter(tokenizer), "unit": f"tokens of {given['model']}"}


def _safety(given: dict[str, Any]) -> dict[str, Any]:
    from ..curate import by_rules, guard_endpoint
    from ..endpoints import is_address

    named = given.get("safety", "rules")
    settings = {**_picked(given, on="safety_on", unparsed="unparsed"), "name": named}
    is_url = is_address(named)
    if "guard_model" in given and not is_url:
        raise SettingsError("--guard-model names the classifier of an endpoint, and --safety is no URL.")
    if named == "rules":
        return {**settings, "classify": by_rules}
    if is_url:
        return {**settings, "classify": guard_endpoint(named, model=given.get("guard_model"))}
    quiet_libraries()
    from ..curate import load_guard
    from ..policy import EMBEDDED

    return {**settings, "classify": load_guard(str(EMBEDDED) if named == "embedded" else named)}


def _score(given: dict[str, Any]) -> dict[str, Any]:
    from ..curate import judge_endpoint, load_reward_models, measures

    scorers = []
    if "judge" in given:
        if not given.get("rubric"):
            raise SettingsError("--judge needs at least one --rubric NAME or NAME=TEXT.")
        rubrics = {name.strip(): text.strip() for name, _, text in (r.partition("=") for r in given["rubric"])}
        scorers += judge_endpoint(given["judge"], rubrics, model=given.get("judge_model"))
    elif "rubric" in given or "judge_model" in given:
        raise SettingsError("--rubric and --judge-model are for a judge.", remedy="Give its URL with --judge.")
    if "measure" in given:
        scorers.append(measures(listing(given["measure"])))
    if given.get("scorer"):
        quiet_libraries()
        scorers += load_reward_models(given["scorer"], **_picked(given, layout="scorer_layout"))
    if given.get("implicit"):
        scorers += _implicit(given)
    if not scorers:
        raise SettingsError("the step score needs --scorer, --judge, --measure or --implicit.")
    from ..scoring.reference import cache_folder

    return {"scorers": scorers, "store": given.get("scores") or cache_folder() / "scores"}


def _implicit(given: dict[str, Any]) -> list[Any]:
    quiet_libraries()
    from ..judging.implicit import implicit_scorer
    from ..policy import Policy

    before = Policy.load(given["implicit_reference"]) if "implicit_reference" in given else None
    named = [spec.partition("=") for spec in given["implicit"]]
    for name, _, run in named:
        if not name or not run:
            raise SettingsError(f'--implicit takes NAME=RUN, not "{name}{run}".')
    return [implicit_scorer(Policy.load(run), name.strip(), reference=before) for name, _, run in named]


def _control(given: dict[str, Any]) -> dict[str, Any]:
    """The quotas of controlled pairs: "3000:helpfulness=4,honesty=any", or a bare count for pairs without a target."""
    from ..curate import Quota

    if not given.get("quota"):
        return {}
    quotas = []
    names: dict[str, None] = {}
    for spec in given["quota"]:
        count, _, asked = spec.partition(":")
        pairs = [pair.partition("=") for pair in listing(asked)]
        names |= dict.fromkeys(name.strip() for name, _, _ in pairs)
        try:
            target = {name.strip(): float(value) for name, _, value in pairs if value.strip() != "any"}
            free = tuple(name.strip() for name, _, value in pairs if value.strip() == "any")
            quotas.append(Quota(int(count), target, free))
        except ValueError:
            raise SettingsError(f'--quota "{spec}" is not COUNT:NAME=RATING,NAME=any.') from None
    if not names:
        raise SettingsError("no --quota names an attribute.", remedy='For example --quota "3000:helpfulness=4".')
    return {"quotas": quotas, "names": tuple(names), **_picked(given, seed="seed")}


def _density(given: dict[str, Any]) -> dict[str, Any]:
    quiet_libraries()
    from ..judging.density import prompt_densities
    from ..policy import Policy

    name = given.get("embed", "embedded")
    return {"weigh": prompt_densities(Policy.load(name)), "by": f"last hidden states of {name}"}


def _reorder(given: dict[str, Any]) -> dict[str, Any]:
    names = {"attributes": listing(given["order_by"])} if "order_by" in given else {}
    return {**names, **_picked(given, scales="scales"), "ranges": given["ranges"]}


def listing(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


SETTINGS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "exact_duplicates": lambda given: _picked(given, normalise="normalise", across_annotators="across_annotators"),
    "near_duplicates": lambda given: _picked(
        given, threshold="near", on="near_on", ngram="ngram", across_annotators="across_annotators"
    ),
    "length": _length,
    "safety": _safety,
    "quality": lambda given: _picked(
        given, least="confidence", field="confidence_field", from_margin="from_margin", missing="missing"
    ),
    "score": _score,
    "reorder": _reorder,
    "control": _control,
    "density": _density,
    "hold_out": lambda given: {"records": VALIDATION, **_picked(given, records="validation", seed="seed")},
}
