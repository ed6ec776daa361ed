"""The trained policy at inference."""

from __future__ import annotations

from .generate import answer, generate
from .requests import Answer, Options, Request

__all__ = ["Answer", "Options", "Request", "answer", "generate"]
