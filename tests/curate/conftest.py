"""The command line and a tiny model, shared with the tests of the command line."""

from __future__ import annotations

from tests.cli.conftest import cli, pairs_file, tiny_model  # noqa: F401 - fixtures
