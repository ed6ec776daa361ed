"""What came of a run: one self-contained HTML page, and runs side by side."""

from __future__ import annotations

from .compare import Comparison, compare, comparison_table
from .page import report
from .runs import Run, read_run

__all__ = ["Comparison", "Run", "compare", "comparison_table", "read_run", "report"]
