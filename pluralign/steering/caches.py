"""A model's memory of what it read, whatever transformers calls it: `cache` since 5.24, `past_key_values` before."""

from __future__ import annotations

import inspect
from typing import Any

from ..scoring.forward import text_config, unwrap

__all__ = ["cache_of", "extendable", "keeps_keys", "taken_as"]

EXTENDABLE = {"DynamicLayer", "DynamicSlidingWindowLayer"}  # take several tokens at once, mask and all
RUNNING = "LinearAttentionLayer"  # one state for all that was read


def taken_as(model: Any) -> str | None:
    """The argument by which a model is handed its cache; None for models that have none of this kind."""
    known = inspect.signature(unwrap(model).forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in known), None)


def cache_of(output: Any) -> Any | None:
    """The cache that a model or generate() returned, if it did."""
    found = getattr(output, "cache", None)
    return found if found is not None else getattr(output, "past_key_values", None)


def extendable(cache: Any | None) -> bool:
    """Whether several tokens, padded ones among them, can follow what a cache holds."""
    layers = getattr(cache, "layers", ())
    return bool(layers) and all(type(layer).__name__ in EXTENDABLE for layer in layers)


def keeps_keys(model: Any) -> bool:
    """Whether any layer of a model keeps keys and values, rather than a running state alone."""
    if taken_as(model) is None:
        return False
    from transformers import DynamicCache

    layers = DynamicCache(config=text_config(model)).layers
    return not layers or any(type(layer).__name__ != RUNNING for layer in layers)
