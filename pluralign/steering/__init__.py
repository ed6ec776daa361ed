"""The trained policy at inference."""

from __future__ import annotations

from .generate import Options, generate

__all__ = ["Options", "generate"]
