"""Takes what a call prints and logs, and keeps the calls of concurrent threads apart."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol, TextIO

from raflow.model import LogLine

MAX_BYTES: Final = 10_000_000
"""How much text of one attempt is kept."""

_LINE_COST: Final = 32
"""Bytes that a line takes besides its text: an endless stream of empty lines must end as well."""
_MADE: Final = 256
_LEVELS: Final = {"stdout": logging.INFO, "stderr": logging.WARNING}


class Sink:
    """The log lines of one attempt, up to a limit."""

    def __init__(self, *, prints: bool, level: int, limit: int = MAX_BYTES) -> None:
        """Make an empty one.

        Args:
            prints: Whether what is printed is kept, besides what is logged.
            level: Lowest level of log records that are kept.
            limit: Bytes of text after which lines are counted only.
        """
        self.prints = prints
        self.level = level
        self._limit = limit
        self._lines: list[LogLine] = []
        self._partial: dict[str, tuple[float, list[str]]] = {}
        self._size = 0
        self._dropped = 0
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may print while a line is being added

    @property
    def has_text(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self._lines or self._partial or self._dropped)

    def find(self) -> Sink | None:
        """Return this sink: it takes what everybody writes."""
        return self

    def log(self, record: logging.LogRecord, text: str) -> None:
        """Add a log record."""
        with self._lock:
            self._add(LogLine(record.created, record.levelno, record.name, text))

    def write(self, source: str, text: str) -> None:
        """Add what was printed to `stdout` or `stderr`; a line ends where the text says so."""
        with self._lock:
            *complete, rest = text.split("\n")
            for piece in complete:
                self._end_line(source, piece)
            if rest and self._take(len(rest)):
                self._partial.setdefault(source, (time.time(), []))[1].append(rest)

    def close(self) -> list[LogLine]:
        """Return the lines; what is printed afterwards is lost."""
        with self._lock:
            for source in list(self._partial):
                self._end_line(source, "")
            self._closed = True
            if self._dropped:
                text = (
                    f"The log of this attempt was truncated: it has room for "
                    f"{self._limit / 1e6:g} MB, and {self._dropped / 1e6:.3g} MB more were written."
                )
                self._lines.append(LogLine(time.time(), logging.WARNING, "raflow", text))
            return self._lines

    def _end_line(self, source: str, piece: str) -> None:
        at, pieces = self._partial.pop(source, (0.0, []))
        self._size -= sum(map(len, pieces))
        # A progress bar redraws its line after a carriage return; the last drawing is what counts.
        text = "".join([*pieces, piece]).removesuffix("\r").rpartition("\r")[2]
        self._add(LogLine(at or time.time(), _LEVELS[source], source, text))

    def _add(self, line: LogLine) -> None:
        if self._take(len(line.text) + _LINE_COST):
            self._lines.append(line._replace(text=_encodable(line.text)))

    def _take(self, size: int) -> bool:
        # Once a line was dropped nothing more is kept, so that the log has no holes.
        if self._closed:
            return False
        if self._dropped or self._size + size > self._limit:
            self._dropped += size
            return False
        self._size += size
        return True


class Sinks(Protocol):
    """Knows the sink of whoever writes."""

    def find(self) -> Sink | None:
        """Return the sink of the code that calls this; None: what it writes is not kept."""


class Capture:
    """Puts the process's output through to the sink of whichever call writes.

    The output still goes where it went before. Nested and concurrent use is counted: the first
    entry installs, the last exit restores.
    """

    def __init__(self, level: int) -> None:
        """Prepare it.

        Args:
            level: Log records from this level on reach the sinks, even if the root logger's own
                level is higher.
        """
        self._level = level

    def __enter__(self) -> Capture:
        _installation.add(self._level)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _installation.remove(self._level)


class Sinking:
    """Makes a sink, or what knows the sinks, the one that the current context writes to.

    Args:
        sinks: A sink, or the sinks of the calls of a batch.
        whole_process: Threads that the code starts write there as well. Only for a process that
            runs one batch at a time.
    """

    __slots__ = ("_sinks", "_token", "_whole_process")

    def __init__(self, sinks: Sinks, *, whole_process: bool) -> None:
        self._sinks = sinks
        self._whole_process = whole_process

    def __enter__(self) -> None:
        _installation.ensure()
        self._token = _current.set(self._sinks)
        if self._whole_process:
            _installation.fallback = self._sinks

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _installation.fallback = None
        _current.reset(self._token)


def ensure_captured() -> None:
    """Put raflow's streams in place again if user code has replaced them for good."""
    _installation.ensure()


_current: ContextVar[Sinks | None] = ContextVar("raflow_sinks", default=None)


def _find() -> Sink | None:
    sinks = _current.get() or _installation.fallback
    return sinks.find() if sinks is not None else None


class _Tee:
    """Stands for `sys.stdout` or `sys.stderr`; everything but writing is the original's."""

    def __init__(self, source: str, original: TextIO) -> None:
        self.source = source
        self.original = original

    def write(self, text: str) -> int:
        sink = _find()
        if sink is None or not sink.prints:
            return self.original.write(text)
        sink.write(self.source, text)
        # The terminal may be gone; the log has the text.
        with contextlib.suppress(OSError, ValueError):
            self.original.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Leave the stream open: it belongs to the process, and the calls after this one print."""
        with contextlib.suppress(OSError, ValueError):
            self.original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


class _LogTap(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sink = _find()
        if sink is not None and record.levelno >= sink.level:
            sink.log(record, self.format(record))


class _Installation:
    """The process-wide part, shared by all captures."""

    def __init__(self) -> None:
        self.fallback: Sinks | None = None
        self._lock = threading.Lock()
        self._levels: list[int] = []
        self._tees: dict[str, _Tee] = {}
        # print() does not hold on to sys.stdout (CPython issue 130163): a tee that was freed while
        # a task left behind is printing would crash the process. So tees live on, to be used again.
        self._made: deque[_Tee] = deque(maxlen=_MADE)
        self._tap = _LogTap()
        self._root_level = logging.NOTSET

    def add(self, level: int) -> None:
        with self._lock:
            if not self._levels:
                self._install()
            self._levels.append(level)
            self._set_root_level()

    def remove(self, level: int) -> None:
        with self._lock:
            self._levels.remove(level)
            if self._levels:
                self._set_root_level()
            else:
                self._restore()

    def ensure(self) -> None:
        """Put the tees in place again if someone (pytest, a progress bar) has taken their place."""
        if sys.stdout is not self._tees.get("stdout") or sys.stderr is not self._tees.get("stderr"):
            with self._lock:
                if self._levels:
                    self._place_tees()

    def _place_tees(self) -> None:
        for name in _LEVELS:
            stream = getattr(sys, name)
            if stream is None and name in self._tees:
                setattr(sys, name, self._tees[name])
            elif not isinstance(stream, _Tee):
                self._tees[name] = self._tee_for(name, stream)
                setattr(sys, name, self._tees[name])

    def _tee_for(self, name: str, stream: TextIO) -> _Tee:
        for tee in self._made:
            if tee.original is stream and tee.source == name:
                return tee
        self._made.append(_Tee(name, stream))
        return self._made[-1]

    def _install(self) -> None:
        self._place_tees()
        root = logging.getLogger()
        self._root_level = root.level
        root.addHandler(self._tap)

    def _set_root_level(self) -> None:
        logging.getLogger().setLevel(min(self._root_level, *self._levels))

    def _restore(self) -> None:
        for name, tee in self._tees.items():
            # Whoever replaced the stream in the meantime may put ours back: it then just passes on.
            if getattr(sys, name) is tee:
                setattr(sys, name, tee.original)
        self._tees.clear()
        root = logging.getLogger()
        root.removeHandler(self._tap)
        root.setLevel(self._root_level)


_installation = _Installation()


def _encodable(text: str) -> str:
    # Undecodable bytes in file names and the like come as surrogates, which no encoder takes.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
