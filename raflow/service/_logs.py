"""The log of a flow run: pages, and what a text or a level is found in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from raflow import errors
from raflow.model import LogLine, LogSegment, TaskRunKey
from raflow.store import Store

_SEARCH_SECONDS: Final = 2.0
"""A search through a long log ends after so long, and tells where to go on."""


class Position(NamedTuple):
    """Where a line is: which segment of the run's log, and which line of that."""

    segment: int
    line: int

    def __str__(self) -> str:
        return f"{self.segment}.{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedLine:
    """A line of the log, whose it is, and where."""

    line: LogLine
    key: TaskRunKey | None
    """None: the flow's body."""
    attempt: int
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which lines are wanted; by default all."""

    key: TaskRunKey | None = None
    """Of this task run; `TaskRunKey(-1)` for the flow's body."""
    attempt: int | None = None
    level: int = 0
    """The lowest level, as `logging` numbers them."""
    text: str = ""
    """What the line must contain; case does not matter."""
    since: float | None = None
    until: float | None = None

    def takes(self, line: LogLine) -> bool:
        """Whether a line is wanted."""
        return (
            line.level >= self.level
            and (self.since is None or line.at >= self.since)
            and (self.until is None or line.at <= self.until)
            and self.text.casefold() in line.text.casefold()
        )

    def may_be_in(self, segment: LogSegment) -> bool:
        """Whether a segment can hold lines that are wanted, by what is known without reading it."""
        return (
            segment.level >= self.level
            and (self.since is None or segment.last_at >= self.since)
            and (self.until is None or segment.first_at <= self.until)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A part of a log, in the order in which it was recorded."""

    lines: tuple[PlacedLine, ...]
    next: Position | None
    """The last line that was looked at: go on behind it. None: nothing was."""
    prev: Position | None
    """The first line that was looked at. None: nothing was."""
    at_end: bool
    """Whether the log ends behind `next`, for now."""
    total_lines: int
    """Lines of the log, wanted or not."""
    partial: bool = False
    """The search took too long: go on from `next`, or back from `prev`."""


def parse_position(text: str) -> Position:
    """Read a position.

    Raises:
        CursorError: The text is none.
    """
    segment, dot, line = text.partition(".")
    if not (dot and segment.isdecimal() and line.isdecimal() and len(text) < 24):
        raise errors.CursorError(
            f"{text!r} is no position in a log. Take `next` or `prev` of a page."
        )
    return Position(int(segment), int(line))


def page(
    store: Store,
    flow_run_id: str,
    which: LogFilter,
    *,
    after: Position | None = None,
    before: Position | None = None,
    limit: int = 1000,
) -> LogPage:
    """Return a page of a log: the lines behind `after`, or the last ones before `before`."""
    segments = store.log_segments(flow_run_id, key=which.key, attempt=which.attempt)
    wanted = [segment for segment in segments if which.may_be_in(segment)]
    total = sum(segment.lines for segment in segments)
    reader = _Reader(store, which, limit)
    if before is None:
        return reader.forwards(wanted, after or Position(-1, -1), total)
    return reader.backwards(wanted, before, total)


class _Reader:
    def __init__(self, store: Store, which: LogFilter, limit: int) -> None:
        self._store = store
        self._which = which
        self._limit = limit
        self._deadline = time.monotonic() + _SEARCH_SECONDS

    def forwards(self, segments: Sequence[LogSegment], after: Position, total: int) -> LogPage:
        lines: list[PlacedLine] = []
        end = after
        for segment in segments:
            if segment.number < after.segment:
                continue
            for placed in self._wanted(segment):
                if placed.position <= after:
                    continue
                if len(lines) == self._limit:
                    return _page(lines, end=lines[-1].position, total=total, at_end=False)
                lines.append(placed)
            end = max(end, Position(segment.number, max(segment.lines - 1, 0)))
            if self._too_late() and segment is not segments[-1]:
                return _page(lines, end=end, total=total, at_end=False, partial=True)
        return _page(lines, end=end, total=total, at_end=True)

    def backwards(self, segments: Sequence[LogSegment], before: Position, total: int) -> LogPage:
        lines: list[PlacedLine] = []
        begin = before
        late = False
        for segment in reversed(segments):
            if segment.number > before.segment:
                continue
            found = [placed for placed in self._wanted(segment) if placed.position < before]
            lines += reversed(found)
            begin = min(begin, Position(segment.number, 0))
            late = self._too_late()
            if len(lines) >= self._limit or late:
                break
        if len(lines) > self._limit:
            begin = lines[self._limit - 1].position
        kept = lines[: self._limit][::-1]
        end = kept[-1].position if kept else before
        return _page(kept, begin=begin, end=end, total=total, at_end=False, partial=late)

    def _wanted(self, segment: LogSegment) -> Iterator[PlacedLine]:
        for number, line in enumerate(self._store.read_log(segment)):
            if self._which.takes(line):
                yield PlacedLine(
                    line=line,
                    key=segment.key,
                    attempt=segment.attempt,
                    position=Position(segment.number, number),
                )

    def _too_late(self) -> bool:
        return time.monotonic() > self._deadline


def _page(
    lines: Sequence[PlacedLine],
    *,
    end: Position,
    total: int,
    at_end: bool,
    begin: Position | None = None,
    partial: bool = False,
) -> LogPage:
    first = lines[0].position if begin is None and lines else begin
    return LogPage(
        lines=tuple(lines),
        next=end if end.segment >= 0 else None,
        prev=first,
        at_end=at_end,
        total_lines=total,
        partial=partial,
    )


def raw(store: Store, flow_run_id: str, levels: Mapping[int, str]) -> Iterator[bytes]:
    """Yield the whole log as text, a segment at a time.

    Args:
        store: Has it.
        flow_run_id: Whose it is.
        levels: Names of levels.

    Raises:
        StoreError: The first segment cannot be read; a later one that cannot says so in its place.
    """
    for place, segment in enumerate(store.log_segments(flow_run_id)):
        try:
            lines = store.read_log(segment)
        except errors.StoreError as error:
            if not place:
                raise
            yield f"[{error.message}]\n".encode("utf-8", "backslashreplace")
            continue
        whose = "" if segment.key is None else f" {segment.key.node}:{segment.key.map_index}"
        yield "".join(_shown(line, levels, whose) for line in lines).encode(
            "utf-8", "backslashreplace"
        )


def _shown(line: LogLine, levels: Mapping[int, str], whose: str) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.at))
    return f"{at}Z {levels.get(line.level, line.level)}{whose} {line.text}\n"
