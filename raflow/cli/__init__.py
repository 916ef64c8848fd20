"""The command line: `raflow`."""

from __future__ import annotations

from raflow.cli._app import main

__all__ = ["main"]
