"""Where the commands print: people read tables on the terminal, programs read JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.box import Box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table
from rich.text import Text

from raflow.model import PALETTE, State, StateName, StateType

_PIPED_WIDTH: Final = 200
_NARROWEST: Final = 16
"""Cells that the first column of a table keeps, if it needs them, before others are left out."""
_WIDE: Final = 10_000
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


def as_json(value: object) -> str:
    """Return a value as JSON in one line, for people."""
    return json.dumps(value, ensure_ascii=False)


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


def table(*columns: str, right: Iterable[str] = (), less: Sequence[str] = ()) -> Table:
    """Return an empty table; the first column is the one that is cut where there is no room.

    Args:
        columns: The headers.
        right: Headers of the columns that hold numbers.
        less: Headers of columns that are left out where there is no room, the first one first.
    """
    made = _Table(less)
    numbers = set(right)
    for header in columns:
        made.add_column(
            Text(header, style="bold"),
            justify="right" if header in numbers else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return made


class _Table(Table):
    """A table that leaves columns out rather than cutting all of them."""

    def __init__(self, less: Sequence[str]) -> None:
        super().__init__(box=_BOX, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        self._less = list(less)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, rest = self._widths(console)
        while self._less and min(first, _NARROWEST) + rest > options.max_width:
            out = self._less.pop(0)
            self.columns = [column for column in self.columns if str(column.header) != out]
            for index, column in enumerate(self.columns):
                column._index = index
            first, rest = self._widths(console)
        if first + rest > options.max_width:
            self.columns[0].max_width = max(_NARROWEST, options.max_width - rest)
        yield from super().__rich_console__(console, options)

    def _widths(self, console: Console) -> tuple[int, int]:
        """Return how wide the first column is if nothing is cut, and all the others."""
        wide = console.options.update_width(_WIDE)
        whole = Measurement.get(console, wide, self).maximum
        column = self.columns[0]
        cells = [column.header, *column.cells]
        first = max(Measurement.get(console, wide, cell).maximum for cell in cells)
        return first, whole - first


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
