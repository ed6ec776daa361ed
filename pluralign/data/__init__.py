"""The data room: rows of any public format become typed, validated records, and no row is lost silently."""

from __future__ import annotations

from .conversions import as_kind, pairs_from_ranked
from .format_types import Format, Options, Skip
from .formats import FORMATS
from .formats_native import from_row
from .operations import convert, fingerprint, inspect, prompt_hash, split
from .sources import Counts, Loaded, load

__all__ = [
    "FORMATS",
    "Counts",
    "Format",
    "Loaded",
    "Options",
    "Skip",
    "as_kind",
    "convert",
    "fingerprint",
    "from_row",
    "inspect",
    "load",
    "pairs_from_ranked",
    "prompt_hash",
    "split",
]
