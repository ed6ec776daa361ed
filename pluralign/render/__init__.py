"""Rendering: records and terms to token ids with exact spans. The only room that calls a tokenizer to encode."""

from __future__ import annotations

from .renderer import Rendered, Renderer
from .spans import Shown, Span
from .template import NAMES as TEMPLATES

__all__ = ["TEMPLATES", "Rendered", "Renderer", "Shown", "Span"]
