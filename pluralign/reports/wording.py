"""How numbers, times and settings are written on a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..judging.statistics import Estimate, format_p

__all__ = ["details", "duration", "flatten", "magnitude", "moment", "short", "show", "spaced", "words"]


def short(estimate: Estimate) -> str:
    """An estimate for a page: with the typographic minus."""
    return estimate.short().replace("-", "−")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys; an empty mapping stays as a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def show(value: Any) -> str:
    """A setting as text: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def details(e: Estimate, *, with_n: bool = True) -> str:
    """What belongs beside a value: sample size, what is missing, the level where it is unusual, the p-value."""
    found = [f"n = {e.n:,}"] if with_n and e.n else []
    if e.missing:
        found.append(f"{e.missing:,} missing")
    if e.has_interval and e.level != 0.95:
        found.append(f"{e.level * 100:g} %")
    if not e.has_interval and not math.isnan(e.value):
        found.append("no interval")
    if e.p_value is not None:
        found.append(f"p {format_p(e.p_value)}")
    return ", ".join(found)


def words(name: str) -> str:
    return {"kl": "KL", "chosen_logp": "chosen log-prob", "rejected_logp": "rejected log-prob"}.get(
        name, name.replace("_", " ")
    )


def spaced(text: str) -> str:
    """`n = 22` must not break over two lines."""
    return text.replace(" = ", "\u00a0=\u00a0")


def moment(iso: str | None) -> str:
    """`2025-03-04 05:06 UTC`; a text that is no ISO time stays as it is."""
    try:
        moment = datetime.fromisoformat(iso or "")
    except ValueError:
        return iso or ""
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment:%Y-%m-%d %H:%M}{zone}"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def magnitude(n: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if n >= size:
            return f"{n / (1e3 if name == 'k' else size):.3g} {name}"
    return f"{n:,.0f}"
