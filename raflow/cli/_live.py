"""The progress of a run on a terminal: one line per task, one bar per map, log lines above."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table
from rich.text import Text

from raflow.cli import _console, _format
from raflow.cli._log_lines import log_text, unseen
from raflow.cli._progress import Progress, Row
from raflow.model import PALETTE, FlowRun, LogLine, NodeKind, StateType
from raflow.runtime import Observer

_REFRESHES_PER_SECOND: Final = 8
_OTHER_LINES: Final = 6
_BAR_ORDER: Final = (
    StateType.COMPLETED,
    StateType.SKIPPED,
    StateType.FAILED,
    StateType.CRASHED,
    StateType.CANCELLED,
    StateType.RUNNING,
    StateType.CANCELLING,
    StateType.SCHEDULED,
)


class LiveProgress(Observer):
    """Draws a `Progress` while it is entered."""

    def __init__(
        self,
        console: Console,
        *,
        progress: Progress,
        clock: Callable[[], float] = time.time,
        passed_on: Collection[str] = (),
    ) -> None:
        """Draw on a terminal.

        Args:
            console: The terminal.
            progress: What is drawn; it must hear of each event before this does.
            clock: Returns seconds since the Unix epoch.
            passed_on: Sources of lines of the body that come to the terminal anyway.
        """
        self._console = console
        self._passed_on = passed_on
        self._progress = progress
        self._clock = clock
        self._begun = clock()
        self._live = Live(
            get_renderable=self.draw,
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
            # Else what the body prints would end here instead of in the file that it is meant for.
            redirect_stdout="stdout" in passed_on,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def log_written(
        self,
        flow_run_id: str,  # noqa: ARG002 - an observer takes what it is told
        label: str,
        lines: Sequence[LogLine],
    ) -> None:
        """See `Observer`."""
        shown = [log_text(line, label) for line in unseen(lines, label, self._passed_on)]
        if shown:
            self._live.console.print(Text("\n").join(shown), soft_wrap=True)

    def draw(self) -> RenderableType:
        """Return the picture of this moment."""
        now = self._clock()
        run = self._progress.flow_run
        if run is None:
            return Text(f"Starting … {_format.duration(now - self._begun)}", style="dim")
        elapsed = _format.duration((run.ended_at or now) - run.created_at)
        parts: list[RenderableType] = [_header(run, elapsed), Text()]
        rows = self._progress.rows()
        if rows:
            size = self._console.size
            parts.append(draw_rows(rows, now, width=size.width, room=size.height - _OTHER_LINES))
            parts += [Text(), _totals(rows)]
        return Group(*parts)


def _header(run: FlowRun, elapsed: str) -> Table:
    title = Text.assemble(_console.badge(run.state.type), " ", (run.flow, "bold"))
    title.append(f"  {run.name}", style="dim")
    if run.state.type is StateType.CANCELLING:
        title.append(f"  cancelling: {run.state.message or run.state.reason}", style="bold")
    elif run.state.type in {StateType.PAUSED, StateType.SCHEDULED}:
        title.append(f"  {run.state.name.value}: {run.state.reason}", style="bold")
    elif run.state.reason:
        title.append(f"  {run.state.reason}", style="bold")
    elif run.state.type is StateType.RUNNING and run.state.message:
        title.append(f"  {run.state.message}", style="dim")
    header = Table.grid(expand=True, padding=(0, 1))
    header.add_column(no_wrap=True, overflow="ellipsis")
    header.add_column(justify="right", no_wrap=True)
    header.add_row(title, elapsed)
    return header


def _totals(rows: Sequence[Row]) -> Text:
    counts: Counter[StateType] = Counter()
    for row in rows:
        counts.update(row.counts)
    text = _console.counts_text((kind, counts[kind]) for kind in PALETTE)
    submitted = sum(row.submitted for row in rows)
    return text.append(f"  ({submitted:,} submitted)" if submitted else "", style="dim")


def draw_rows(rows: Sequence[Row], now: float, *, width: int, room: int) -> Table:
    """Return a line for each row, the ones that are done left out where there is no room."""
    shown, hidden = _fit(rows, max(room, 3))
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=width // 4)
    grid.add_column(width=max(10, width // 4))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True, style="dim", min_width=6)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in shown:
        grid.add_row(*_cells(row, now))
    if hidden:
        grid.add_row("", Text(f"… {_format.count(hidden, 'more task')}", style="dim"))
    return grid


def _cells(row: Row, now: float) -> Iterator[RenderableType]:
    yield _console.badge(row.state)
    yield Text("  " * row.depth + row.label)
    many = row.kind is NodeKind.MAP or (row.expected or 0) > 1
    yield StateBar(row) if many else Text()
    total = "?" if row.expected is None else f"{row.expected:,}"
    yield f"{row.done:,}/{total}" if many else ""
    end = row.ended_at if row.is_done and row.ended_at is not None else now
    yield "" if row.started_at is None else _format.duration(end - row.started_at)
    yield _notes(row)


def _notes(row: Row) -> Text:
    failed = row.counts[StateType.FAILED] + row.counts[StateType.CRASHED]
    notes = [
        (f"{failed:,} failed", f"bold {PALETTE[StateType.FAILED].fill}") if failed else None,
        (_format.count(row.retries, "retry", "retries"), "bold") if row.retries else None,
        (row.waits[1], "dim") if row.waits else None,
    ]
    return Text(" · ").join(Text(text, style=style) for text, style in filter(None, notes))


def _fit(rows: Sequence[Row], room: int) -> tuple[list[Row], int]:
    """Choose the rows to show; keep their order, and let the finished go first."""
    if len(rows) <= room:
        return list(rows), 0
    ranked = sorted(range(len(rows)), key=lambda n: (_rank(rows[n]), n))
    kept = sorted(ranked[: room - 1])
    return [rows[n] for n in kept], len(rows) - len(kept)


def _rank(row: Row) -> int:
    if row.is_done:
        return 2 if row.state in {StateType.COMPLETED, StateType.SKIPPED} else 0
    return 3 if row.state is StateType.PENDING and not row.done else 1


class StateBar:
    """A bar whose parts are coloured by the states of the task runs."""

    def __init__(self, row: Row) -> None:
        """Draw the counts of a row, against how many are expected."""
        self._counts = dict(row.counts)
        self._total = max(row.expected or 0, sum(self._counts.values()), 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as wide as there is room."""
        width = max(options.max_width, 1)
        bar = Text(no_wrap=True)
        seen = 0
        for kind in _BAR_ORDER:
            begin = seen * width // self._total
            seen += self._counts.get(kind, 0)
            cells = seen * width // self._total - begin
            # The shape tells what is done where there are no colours.
            sign = "━" if kind.is_final else "╌"
            bar.append(sign * cells, style=Style(color=PALETTE[kind].fill))
        bar.append("─" * (width - len(bar)), style="dim")
        yield bar

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Take what there is."""
        return Measurement(8, options.max_width)
