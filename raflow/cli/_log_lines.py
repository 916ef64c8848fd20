"""Log lines as people read them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence

from rich.text import Text

from raflow.cli import _format
from raflow.model import LogLine

_STYLES = ((logging.ERROR, "bold red"), (logging.WARNING, "yellow"), (logging.DEBUG, ""))


def log_text(line: LogLine, label: str) -> Text:
    """Return a line with its time, level and origin.

    Args:
        line: The line.
        label: The name of the task run; empty for the body of the flow.
    """
    style = next((style for level, style in _STYLES if line.level >= level), "dim")
    level = "" if line.source == "stdout" else f"{level_name(line.level):<8}"
    text = Text.assemble(
        (f"{_format.clock(line.at)} ", "dim"),
        (f"{label} " if label else "", "cyan"),
        (level, style),
    )
    # What a task prints may hold colours of its own.
    body = Text.from_ansi(line.text)
    body.style = style if line.level >= logging.WARNING else ""
    return text.append_text(body)


def unseen(lines: Sequence[LogLine], label: str, passed_on: Collection[str]) -> Iterator[LogLine]:
    """Return the lines that are not seen anyway.

    Args:
        lines: What was written.
        label: The name of the task run; empty for the body of the flow.
        passed_on: Sources of which the lines of the body are shown here as the body writes them.
    """
    return (line for line in lines if label or line.source not in passed_on)


def level_name(level: int) -> str:
    """Return the name of the level that a number belongs to."""
    for number in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO):
        if level >= number:
            return logging.getLevelName(number)
    return "DEBUG"
