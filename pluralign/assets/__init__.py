# SPDX-License-Identifier: Apache-2.0
"""Package data: the embedded default model and a small slice of real preference pairs."""

from __future__ import annotations

from pathlib import Path

ASSETS_DIR = Path(__file__).resolve().parent
MODEL_DIR = ASSETS_DIR / "model"
PAIRS_DIR = ASSETS_DIR / "pairs"

__all__ = ["ASSETS_DIR", "MODEL_DIR", "PAIRS_DIR"]
