"""What the calls of a batch have left so far, by position, and the report that is made of it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from raflow import errors
from raflow._util import crash_point
from raflow.execute._attempt import Ending, Site, failed, not_kept, unserializable
from raflow.execute._context import CallContext, new_context
from raflow.execute._inputs import NotThereError
from raflow.execute._work import Work
from raflow.model import (
    PLAIN_TYPES,
    UNKNOWN_TRUTH,
    BatchReport,
    CallReport,
    Outcome,
    ResultInfo,
    ResultPolicy,
    encode_log,
)

OWN_BYTES: Final = 100 * 1024
"""Larger values become objects of their own."""
LONG_TEXT: Final = 4096
"""Longer texts are described one by one."""
READ_SECONDS: Final = 0.001
"""After how long the use of the CPU is read again."""


class _Told(NamedTuple):
    """A call that needs a report of its own."""

    work: Work
    context: CallContext
    ending: Ending
    logs: bytes
    peak_memory: int


class Tally:
    """Takes in what each call leaves. Positions that nothing is said of have not begun."""

    def __init__(self, size: int, site: Site, own_values: int) -> None:
        """Begin a batch of so many calls."""
        self.size = size
        self.started = array("d", bytes(8 * size))
        self.ended = array("d", bytes(8 * size))
        self.values: list[object] = [None] * size
        """Entries; None for calls without a value and for those with an object of their own."""
        self.own: list[object] = []
        self.own_left = own_values if site.size is not None else 0
        self._owned: dict[int, int] = {}
        self._site = site
        self._told: dict[int, _Told] = {}
        self._results: dict[int, ResultInfo] = {}
        self._odd_bytes = 0.0
        self.read_at = 0.0
        """When the use of the CPU was last read."""
        self._readings: list[tuple[int, float]] = []
        self._cpu = 0.0

    # --- taking in ------------------------------------------------------------------------------

    def entry(self, position: int) -> object:
        """Return the entry of a call that has completed.

        Raises:
            NotThereError: It has not.
        """
        told = self._told.get(position)
        if not self.ended[position] or (told and told.ending.outcome is not Outcome.COMPLETED):
            raise NotThereError
        own = self._owned.get(position)
        return self.values[position] if own is None else self.own[own - 1]

    def keep(
        self,
        position: int,
        value: object,
        work: Work,
        *,
        last: bool,
        claim: Callable[[], None] | None = None,
    ) -> Ending:
        """Take a value, as what its call ended with; says so if it cannot be kept.

        Args:
            position: Of the call.
            value: What it returned.
            work: The job it belongs to.
            last: Whether nothing else will run before the values leave the process.
            claim: Called once the value's own code has run, before anything is changed; what it
                raises passes. Default: nothing is called.
        """
        packed = self._packed(position, value, work, last=last)
        if claim is not None:
            claim()
        if isinstance(packed, Ending):
            return packed
        entry, info = packed
        size = self._size_of(entry, info)
        self._odd_bytes += size
        if size > OWN_BYTES and self.own_left:
            self.own_left -= 1
            self.own.append(entry)
            self._owned[position] = len(self.own)
        else:
            self.values[position] = entry
        return Ending(outcome=Outcome.COMPLETED, result=info)

    def _packed(
        self, position: int, value: object, work: Work, *, last: bool
    ) -> tuple[object, ResultInfo] | Ending:
        """Make the entry of a value, and keep it: all that runs code of the value's class."""
        who = work.who(position - work.base)
        try:
            entry = self._entry_of(value, last=last or self.own_left == 1)
        except BaseException as error:
            self._site.heed(error)
            return failed(unserializable(value, error, who.task), who)
        crash_point("worker.before_kept")
        try:
            info = self._describe(value, work, position)
        except errors.RaflowError as error:
            return failed(not_kept(error, who.task), who)
        except Exception as error:
            return failed(error, who)
        except BaseException as error:
            self._site.heed(error)
            return failed(unserializable(value, error, who.task), who)
        crash_point("worker.after_kept")
        return entry, info

    def result(self, position: int, info: ResultInfo) -> None:
        """Note what is known of the value of a call that simply completed."""
        self._results[position] = info

    def tell(self, position: int, work: Work, context: CallContext, ending: Ending) -> None:
        """Take the ending of a call that needs a report of its own."""
        logs = b"" if context.sink is None else encode_log(context.sink.close())
        self._told[position] = _Told(work, context, ending, logs, self._site.meter.peak())

    def begin(self) -> None:
        """Begin to measure, on the thread that runs the calls from now on."""
        crash_point("worker.before_batch")
        self.read_at = time.time()
        self._cpu = self._site.meter.cpu()

    def read(self, now: float, stop: int) -> None:
        """Read what the calls before the position `stop` have used since the last reading."""
        self.read_at = now
        cpu = self._site.meter.cpu()
        self._readings.append((stop, cpu - self._cpu))
        self._cpu = cpu

    def _entry_of(self, value: object, *, last: bool) -> object:
        return value if is_plain(value) else self._site.freeze(value, last)

    def _size_of(self, entry: object, info: ResultInfo) -> int:
        measure = self._site.size
        return info.size if measure is None or is_plain(entry) else measure(entry)

    def _describe(self, value: object, work: Work, position: int) -> ResultInfo:
        offset = position - work.base
        return self._site.environment.keeper.keep(
            value,
            work.settings.result,
            run=work.job.run(offset),
            attempt=work.job.attempt(offset),
        )

    # --- reporting ------------------------------------------------------------------------------

    def report(self, batch: int, works: Sequence[Work], unstarted: Sequence[int]) -> BatchReport:
        """Tell what happened to the batch."""
        crash_point("worker.before_report")
        for position in unstarted:
            self.started[position] = self.ended[position] = 0.0
        plain, column = self._keep_plain(works, set(unstarted))
        cpu = self._cpu_seconds()
        return BatchReport(
            batch=batch,
            place=self._site.place,
            started_at=self.started,
            ended_at=self.ended,
            cpu_seconds=cpu,
            peak_memory=self._site.meter.peak(),
            unstarted=unstarted,
            told={position: self._report_of(position, cpu[position]) for position in self._told},
            plain=plain,
            results=self._results,
            truths=self._truths(column, unstarted),
            own=self._owned,
            mean_bytes=self._mean_bytes(plain, len(unstarted)),
        )

    def _keep_plain(
        self, works: Sequence[Work], unstarted: Collection[int]
    ) -> tuple[bytes, Sequence[object]]:
        """Describe values of `PLAIN_TYPES` together; also return them, None at other positions."""
        column: list[object] = self.values
        if self._told or self._results:
            column = [
                None if p in self._told or p in self._results else value
                for p, value in enumerate(column)
            ]
        if len(unstarted) + len(self._told) + len(self._results) >= self.size:
            return b"", column
        policies = {work.settings.result for work in works}
        keeper = self._site.environment.keeper
        data = keeper.keep_plain(column, min(policies, key=hash)) if len(policies) == 1 else None
        return (data, column) if data else self._keep_apart(works, unstarted)

    def _keep_apart(
        self, works: Sequence[Work], unstarted: Collection[int]
    ) -> tuple[bytes, Sequence[object]]:
        """Describe together what can be described so, and the rest one by one."""
        keeper = self._site.environment.keeper
        column: list[object] = [None] * self.size
        shared: ResultPolicy | None = None
        for work in works:
            policy = work.settings.result
            for position in range(work.base, work.base + work.size):
                if position in unstarted or position in self._told or position in self._results:
                    continue
                value = self.values[position]
                if keeper.keep_plain((value,), policy) is None:
                    self._keep_late(position, value, work)
                else:
                    column[position], shared = value, policy
        if shared is None:
            return b"", column
        data = keeper.keep_plain(column, shared)
        assert data is not None, "values that can be kept each can be kept together"
        return data, column

    def _keep_late(self, position: int, value: object, work: Work) -> None:
        ending = self.keep(position, value, work, last=True)
        if ending.result is not None:
            self._results[position] = ending.result
        else:
            self.values[position] = None
            offset = position - work.base
            self.tell(position, work, new_context(work, offset), ending)

    def _cpu_seconds(self) -> array[float]:
        """Share what was used between two readings among the calls of that time."""
        self._readings.append((self.size, 0.0))
        seconds = array("d")
        begin = 0
        for end, used in self._readings:
            spans = [
                stop - start
                for start, stop in zip(self.started[begin:end], self.ended[begin:end], strict=True)
            ]
            if min(spans, default=0.0) < 0.0:
                spans = self._without_steps_back(begin, spans)
            total = sum(spans)
            share = used / total if total > 0 else 0.0
            seconds.extend([span * share for span in spans])
            begin = end
        return seconds

    def _without_steps_back(self, begin: int, spans: list[float]) -> list[float]:
        """Repair what a clock has done that was set back."""
        for position, span in enumerate(spans, start=begin):
            if span < 0.0:
                self.ended[position] = self.started[position]
        return [max(0.0, span) for span in spans]

    def _truths(self, column: Sequence[object], unstarted: Sequence[int]) -> bytes:
        truths = bytearray(map(bool, column))
        for position in unstarted:
            truths[position] = UNKNOWN_TRUTH
        for position, info in self._results.items():
            truths[position] = UNKNOWN_TRUTH if info.truth is None else info.truth
        for position, told in self._told.items():
            result = told.ending.result
            known = result is not None and result.truth is not None
            truths[position] = result.truth if known else UNKNOWN_TRUTH  # type: ignore[union-attr, assignment]  # known
        return bytes(truths)

    def _mean_bytes(self, plain: bytes, unstarted: int) -> float:
        count = self.size - unstarted - sum(t.ending.result is None for t in self._told.values())
        return (len(plain) + self._odd_bytes) / count if count else 0.0

    def _report_of(self, position: int, cpu_seconds: float) -> CallReport:
        work, context, ending, logs, peak_memory = self._told[position]
        offset = position - work.base
        place = self._site.place
        return CallReport(
            run=work.job.run(offset),
            attempt=work.job.attempt(offset),
            outcome=ending.outcome,
            started_at=self.started[position],
            ended_at=self.ended[position],
            cpu_seconds=cpu_seconds,
            peak_memory=peak_memory,
            pid=place.pid,
            host=place.host,
            node_id=place.node_id,
            message=ending.message,
            error=ending.error,
            retriable=ending.retriable,
            result=ending.result,
            label=context.name,
            logs=logs,
            lost_inputs=ending.lost_inputs,
        )


def is_plain(value: object) -> bool:
    """Tell whether a value is described together with others."""
    kind = type(value)
    return kind in PLAIN_TYPES and not (kind is str and len(value) > LONG_TEXT)  # type: ignore[arg-type]  # a str
