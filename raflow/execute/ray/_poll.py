"""Waits for all batches in flight, on one thread.

Ray can also call back when an object is ready, but on the thread that handles all of the driver's
messages: with the interpreter's lock contended that is eight times as slow as asking now and then.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import ray

from raflow.execute._backend import BatchSpec
from raflow.execute.ray._losses import RayIsGone

_FEW: Final = 64
"""Up to so many batches the first to end is awaited; with more, asking at intervals is cheaper."""
_SHORTEST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.010
"""A batch that is added during a wait is seen after it: so waits are short while batches come."""
_INTERVAL_PER_BATCH: Final = 50e-6
"""Asking takes about 2.5 us for each batch in flight: so it takes a twentieth of the time."""
_MAX_INTERVAL: Final = 0.050
_PROBE_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class InFlight:
    """A batch that Ray has."""

    session: int
    spec: BatchSpec
    report: Any
    """ObjectRef of the report."""
    values: tuple[Any, ...]
    """ObjectRefs of the list of values, and of those that may be objects of their own."""
    cancelling: bool = False


class Poll:
    """Tells of each batch's end exactly once, unless it is dropped before."""

    def __init__(
        self,
        *,
        ended: Callable[[InFlight, bytes], None],
        failed: Callable[[InFlight, BaseException], None],
        probe: Callable[[], str | None],
    ) -> None:
        """Begin to wait.

        Args:
            ended: Told of a batch with its report.
            failed: Told of a batch for which Ray has an error.
            probe: Says why Ray is gone, or None while it lives.
        """
        self._ended = ended
        self._failed = failed
        self._probe = probe
        self._flights: dict[Any, InFlight] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._wait = _SHORTEST_WAIT
        self._thread = threading.Thread(target=self._run, name="raflow-poll", daemon=True)
        self._thread.start()

    def add(self, flight: InFlight) -> None:
        """Wait for a batch as well."""
        with self._changed:
            self._flights[flight.report] = flight
            self._wait = _SHORTEST_WAIT
            if len(self._flights) == 1:
                self._changed.notify()

    def drop(self, flight: InFlight) -> None:
        """Wait for it no more."""
        with self._changed:
            self._flights.pop(flight.report, None)

    def close(self) -> None:
        """Stop waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        probed = 0.0
        while (reports := self._in_flight()) is not None:
            try:
                if time.monotonic() - probed > _PROBE_SECONDS:
                    probed = time.monotonic()
                    gone = self._probe()
                    if gone is not None:
                        self._fail_all(RayIsGone(gone))
                        continue
                wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
                self._take(_ready(reports, wait))
            except Exception:
                # Whatever it is: if this thread ended, every run would wait for ever.
                _log.exception("Waiting for Ray failed; it is tried again")
                time.sleep(_PROBE_SECONDS)

    def _in_flight(self) -> list[Any] | None:
        """Wait until there is something to wait for; None once closed."""
        with self._changed:
            while not self._flights and not self._closed:
                self._changed.wait()
            return None if self._closed else list(self._flights)

    def _take(self, ready: list[Any]) -> None:
        try:
            reports = ray.get(ready)
        except Exception:
            # One error hides the others' reports.
            for ref in ready:
                self._take_one(ref)
            return
        for ref, report in zip(ready, reports, strict=True):
            flight = self._pop(ref)
            if flight is not None:
                self._ended(flight, report)

    def _take_one(self, ref: Any) -> None:
        try:
            report = ray.get(ref)
        except Exception as error:
            flight = self._pop(ref)
            if flight is not None:
                # Ray complains on the terminal about errors that nobody has looked at.
                for value in flight.values:
                    with contextlib.suppress(Exception):
                        ray.get(value, timeout=0)
                self._failed(flight, error)
        else:
            flight = self._pop(ref)
            if flight is not None:
                self._ended(flight, report)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            flights = list(self._flights.values())
            self._flights.clear()
        for flight in flights:
            self._failed(flight, error)

    def _pop(self, ref: Any) -> InFlight | None:
        with self._changed:
            return self._flights.pop(ref, None)


def _ready(reports: list[Any], wait: float) -> list[Any]:
    few = len(reports) <= _FEW
    ready, _ = ray.wait(
        reports,
        num_returns=1 if few else len(reports),
        timeout=wait if few else min(_MAX_INTERVAL, len(reports) * _INTERVAL_PER_BATCH),
        fetch_local=False,
    )
    if few and ready and len(reports) > 1:
        ready, _ = ray.wait(reports, num_returns=len(reports), timeout=0, fetch_local=False)
    found: list[Any] = ready
    return found
