"""Where the commands print: people read tables on the terminal, programs read JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, Final

from rich.box import Box
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from raflow.model import PALETTE, State, StateName, StateType

_PIPED_WIDTH: Final = 200
_BOX: Final = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")


def out() -> Console:
    """Return the console for what was asked for."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for progress and errors."""
    return _console(stderr=True)


def emit_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def emit_json_line(value: object) -> None:
    """Print a value as one line of a stream."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def badge(kind: StateType) -> Text:
    """Return the sign of a state type, on its colour."""
    look = PALETTE[kind]
    return Text(f" {look.icon} ", style=Style(color=look.ink, bgcolor=look.fill))


def state_text(state: State | StateName) -> Text:
    """Return the sign and the name of a state."""
    name = state if isinstance(state, StateName) else state.name
    return Text.assemble(badge(name.type), " ", name.value)


def counts_text(counts: Iterable[tuple[StateType, int]]) -> Text:
    """Return how many runs are in which type of state."""
    shown = [(kind, number) for kind, number in counts if number]
    return Text("  ").join(
        Text.assemble(badge(kind), f" {number:,} {kind.value.lower()}") for kind, number in shown
    )


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the first column is the one that is cut where there is no room.

    Args:
        columns: The headers.
        right: Headers of the columns that hold numbers.
    """
    made = Table(box=_BOX, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    numbers = set(right)
    for header in columns:
        made.add_column(
            Text(header, style="bold"),
            justify="right" if header in numbers else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return made


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Return names and values in two columns; values of None and empty texts are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            grid.add_row(name, Text(value) if isinstance(value, str) else value)
    return grid


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # A pipe has no width: a program should not get texts that were cut for a terminal.
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, width=_PIPED_WIDTH if piped else None)
