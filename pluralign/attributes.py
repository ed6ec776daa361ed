"""Attribute scores: their scales, and how they stand in a prompt. Imports nothing of ours but the errors.

A response may have scores on several named attributes (helpfulness, verbosity, ...). A `ScoreForm` is what a policy
that was trained with them keeps: which attributes, in which order, on which scale, in which words. Scores that are
*shown* are on the form's own scale: with normal="range" 0 is the lowest and 1 the highest of an attribute.

    sga      x + " Your response must satisfy the following scores: helpfulness: 0.75, verbosity: 0.20."   (SGA, B.2)
    ric      x + " <rm1_score> 0.5 <rm2_score> -1.2"          (Rewards-in-Context; numbered in the form's order)
    cpo      "<helpfulness: 5> <honesty: 3> " + x             (controllable preference optimisation)
    steerlm  after the assistant's header: "helpfulness:4,verbosity:1" and a line break
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import SettingsError, nearest

__all__ = ["NORMALS", "WORDINGS", "Place", "Scale", "ScoreForm", "fit_scales"]

Place = Literal["after", "before", "answer"]  # of the last user turn, before it, or after the assistant's header
Normal = Literal["range", "z", "none"]
NORMALS = ("range", "z", "none")
NAME = re.compile(r"[^\s:,<>\d](?:[^:,<>\n]*[^\s:,<>])?")  # what a wording can be read back from
NUMBER = r"-?\d+(?:\.\d+)?"


@dataclass(frozen=True, slots=True)
class Scale:
    """An attribute and two points of its scale: `low` becomes 0 and `high` becomes 1, linearly, without clipping."""

    name: str
    low: float = 0.0
    high: float = 1.0

    def unit(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def raw(self, unit: float) -> float:
        return self.low + unit * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Wording:
    """Where scores stand, how they are written, and how many decimals a number has."""

    place: Place
    decimals: int
    before: str
    item: str  # {name}, {number} (1, 2, ...) and {value}
    between: str
    after: str


WORDINGS: dict[str, Wording] = {
    "sga": Wording("after", 2, " Your response must satisfy the following scores: ", "{name}: {value}", ", ", "."),
    "ric": Wording("after", 1, " ", "<rm{number}_score> {value}", " ", ""),
    "cpo": Wording("before", 0, "", "<{name}: {value}>", " ", " "),
    "steerlm": Wording("answer", 0, "", "{name}:{value}", ",", "\n"),
}


@dataclass(frozen=True, slots=True)
class ScoreForm:
    """Which attributes, on which scales, in which words. Raises SettingsError for a form that cannot be."""

    scales: tuple[Scale, ...]
    wording: str = "sga"
    normal: Normal = "range"

    def __post_init__(self) -> None:
        if self.wording not in WORDINGS:
            known = ", ".join(WORDINGS)
            raise SettingsError(
                f'unknown wording of scores "{self.wording}" (known: {known}).{nearest(self.wording, WORDINGS)}'
            )
        for scale in self.scales:
            if not NAME.fullmatch(scale.name):
                raise SettingsError(
                    f'the attribute name "{scale.name}" cannot stand in a prompt.',
                    remedy="Names begin with a letter and hold no colon, comma, angle bracket or line break.",
                )
            if not (math.isfinite(scale.low) and math.isfinite(scale.high) and scale.low != scale.high):
                raise SettingsError(
                    f'the scale of attribute "{scale.name}" goes from {scale.low:g} to {scale.high:g}.',
                    remedy="Give two different numbers in scores.ranges, or leave the attribute out.",
                )
        if len(set(self.names)) < len(self.names) or not self.names:
            raise SettingsError(f"attributes must be given once each, not {list(self.names)}.")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(scale.name for scale in self.scales)

    @property
    def place(self) -> Place:
        return WORDINGS[self.wording].place

    def unit(self, values: Mapping[str, float | None]) -> tuple[float, ...]:
        """Values in the data's units on the form's scale, in its order; NaN where one is missing."""
        out = []
        for scale in self.scales:
            value = values.get(scale.name)
            unit = math.nan if value is None or value != value else scale.unit(float(value))
            out.append(min(max(unit, 0.0), 1.0) if self.normal == "range" else unit)
        return tuple(out)

    def text(self, shown: Sequence[float] | Mapping[str, float]) -> str:
        """Shown scores (by name, or in the form's order) in the form's words; NaN and absent ones are left out."""
        how = WORDINGS[self.wording]
        if isinstance(shown, Mapping):
            self.check(shown)
            shown = [shown.get(name, math.nan) for name in self.names]
        items = [
            how.item.format(name=name, number=i, value=_decimal(value, how.decimals))
            for i, (name, value) in enumerate(zip(self.names, shown, strict=True), start=1)
            if value == value
        ]
        return how.before + how.between.join(items) + how.after if items else ""

    def read(self, text: str) -> dict[str, float]:
        """The scores that `text` wrote somewhere in a text, to its decimals; the last place counts."""
        how = WORDINGS[self.wording]
        items = {
            how.item.format(name=re.escape(name), number=i, value=f"(?P<v{i}>{NUMBER})"): (name, f"v{i}")
            for i, name in enumerate(self.names, start=1)
        }
        each = "|".join(items)
        one = "|".join(re.sub(r"\(\?P<v\d+>", "(?:", item) for item in items)
        whole = f"{re.escape(how.before)}(?:{one})(?:{re.escape(how.between)}(?:{one}))*{re.escape(how.after)}"
        written = [match[0] for match in re.finditer(whole, text)]
        found: dict[str, float] = {}
        for match in re.finditer(each, written[-1] if written else ""):
            found |= {name: float(match[group]) for name, group in items.values() if match[group] is not None}
        return found

    def check(self, given: Mapping[str, Any]) -> dict[str, float]:
        """Scores that a person asks for. Raises SettingsError for an unknown attribute and for no number in range."""
        out = {}
        for name, value in given.items():
            if name not in self.names:
                raise SettingsError(
                    f'unknown attribute "{name}" (known: {", ".join(self.names)}).{nearest(name, self.names)}'
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SettingsError(f'attribute "{name}" must be a number, not {value!r}.')
            if self.normal == "range" and not 0 <= value <= 1:
                raise SettingsError(f'attribute "{name}" must lie between 0 and 1, not {value:g}.')
            out[name] = float(value)
        return out

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that `from_dict` reads back."""
        return {"scales": [asdict(s) for s in self.scales], "wording": self.wording, "normal": self.normal}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> ScoreForm:
        return cls(tuple(Scale(**s) for s in kept["scales"]), kept["wording"], kept["normal"])


def _decimal(value: float, places: int) -> str:
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no "-0.0"


def fit_scales(
    rows: Iterable[Mapping[str, Sequence[float | None]]],
    names: Sequence[str] = (),
    *,
    normal: Normal = "range",
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Scale, ...]:
    """The scales of attributes from data: `rows` hold, by attribute, the scores of one or more responses.

    `names`: which attributes, in this order (empty: all that occur, by name). normal="range" takes `ranges` where one
    is known and else the lowest and highest score seen; "z" takes mean and mean + standard deviation; "none" takes
    scores as they are. Raises SettingsError for an attribute that no row has, or whose scores are all equal.
    """
    if normal not in NORMALS:
        raise SettingsError(
            f'unknown scores.normal "{normal}" (known: {", ".join(NORMALS)}).{nearest(normal, NORMALS)}'
        )
    seen: dict[str, list[float]] = {}  # count, sum, sum of squares, lowest, highest
    for row in rows:
        for name, values in row.items():
            numbers = [float(v) for v in values if v is not None and v == v]
            if numbers:
                _count(seen.setdefault(name, [0.0, 0.0, 0.0, math.inf, -math.inf]), numbers)
    absent = [name for name in names if name not in seen]
    if absent or not seen:
        what = f'attribute "{absent[0]}"' if absent else "attribute scores"
        there = f" They have: {', '.join(sorted(seen))}." if seen else ""
        hint = nearest(absent[0], seen) if absent else ""
        raise SettingsError(
            f"the data have no {what}.{there}{hint}", remedy="`pluralign curate --steps score` adds attribute scores."
        )
    known_ranges = ranges or {}
    return tuple(_scale(name, seen[name], normal, known_ranges.get(name)) for name in (names or sorted(seen)))


def _count(state: list[float], values: Sequence[float]) -> None:
    state[0] += len(values)
    state[1] += sum(values)
    state[2] += sum(v * v for v in values)
    state[3], state[4] = min(state[3], *values), max(state[4], *values)


def _scale(name: str, state: Sequence[float], normal: Normal, known: tuple[float, float] | None) -> Scale:
    count, total, squares, low, high = state
    if normal == "none":
        return Scale(name)
    if normal == "range" and known is not None:
        return Scale(name, float(known[0]), float(known[1]))
    if low == high:
        raise SettingsError(
            f'attribute "{name}" is {low:g} in every row, so that it has no scale.',
            remedy=f"Set scores.ranges={{{name}: [LOW, HIGH]}}, or leave it out of scores.attributes.",
        )
    if normal == "range":
        return Scale(name, low, high)
    mean = total / count
    return Scale(name, mean, mean + math.sqrt(max(squares / count - mean * mean, 0.0)))
