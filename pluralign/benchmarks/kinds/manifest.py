"""The manifest of an evaluation: all that decides its numbers, so that it can be repeated and be told from others."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ...errors import SettingsError

__all__ = ["MANIFEST", "changed", "file_digests", "read_manifest", "versions", "write_manifest"]

MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "scikit-learn", "openai", "lm-eval")
DECISIVE = ("benchmark", "questions", "systems", "judge", "settings", "seed", "attributes", "against", "reference")


def versions() -> dict[str, str]:
    """Of Python, of this package and of those that have a part in the numbers; what is not installed is left out."""
    from ... import __version__

    out = {"python": platform.python_version(), "pluralign": __version__}
    for name in PACKAGES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of the stored files that figures are made of."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.jsonl"))
        if not path.name.startswith(".")
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """manifest.json in an evaluation's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
    return path


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises SettingsError where there is none that can be read."""
    path = Path(folder) / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{folder}: no evaluation in this folder (no {MANIFEST}).") from None
    except (ValueError, OSError) as error:
        raise SettingsError(f"{path}: cannot be read ({type(error).__name__}).") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: is no manifest.")
    return found


def changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What decides the numbers and is not the same in both."""
    return [name for name in DECISIVE if one.get(name) != other.get(name)]
