"""Waits for all Ray tasks in flight, on one thread.

Ray can also call back when an object is ready, but on the thread that handles all of the driver's
messages: with the interpreter's lock contended that is eight times as slow as asking now and then.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import ray

from raflow.execute.ray._losses import RayIsGone
from raflow.execute.ray._tenures import Tenure

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


class Poll:
    """Tells of the end of each Ray task exactly once, unless it is dropped before."""

    def __init__(
        self,
        *,
        ended: Callable[[Tenure, bytes], None],
        failed: Callable[[Tenure, BaseException], None],
        probe: Callable[[], str | None],
        tend: Callable[[], None],
    ) -> None:
        """Begin to wait.

        Args:
            ended: Told of a Ray task with the report of its last batch.
            failed: Told of one for which Ray has an error.
            probe: Says why Ray is gone, or None while it lives.
            tend: Called every half second as long as one is in flight.
        """
        self._ended = ended
        self._failed = failed
        self._probe = probe
        self._tend = tend
        self._tenures: dict[Any, Tenure] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._wait = _SHORTEST_WAIT
        self._thread = threading.Thread(target=self._run, name="raflow-poll", daemon=True)
        self._thread.start()

    def add(self, tenure: Tenure) -> None:
        """Wait for a Ray task as well."""
        with self._changed:
            self._tenures[tenure.report] = tenure
            self._wait = _SHORTEST_WAIT
            if len(self._tenures) == 1:
                self._changed.notify()

    def drop(self, tenure: Tenure) -> None:
        """Wait for it no more."""
        with self._changed:
            self._tenures.pop(tenure.report, None)

    @property
    def is_busy(self) -> bool:
        """Whether anything is in flight."""
        return bool(self._tenures)

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
                    self._tend()
                wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
                self._take(_ready(reports, wait))
            except Exception:
                # Whatever it is: if this thread ended, every run would wait for ever.
                _log.exception("Waiting for Ray failed; it is tried again")
                time.sleep(_PROBE_SECONDS)

    def _in_flight(self) -> list[Any] | None:
        """Wait until there is something to wait for; None once closed."""
        with self._changed:
            while not self._tenures and not self._closed:
                self._changed.wait()
            return None if self._closed else list(self._tenures)

    def _take(self, ready: list[Any]) -> None:
        try:
            reports = ray.get(ready)
        except Exception:
            # One error hides the others' reports.
            for ref in ready:
                self._take_one(ref)
            return
        for ref, report in zip(ready, reports, strict=True):
            tenure = self._pop(ref)
            if tenure is not None:
                self._ended(tenure, report)

    def _take_one(self, ref: Any) -> None:
        try:
            report = ray.get(ref)
        except Exception as error:
            tenure = self._pop(ref)
            if tenure is not None:
                # Ray complains on the terminal about errors that nobody has looked at.
                for value in tenure.values:
                    with contextlib.suppress(Exception):
                        ray.get(value, timeout=0)
                self._failed(tenure, error)
        else:
            tenure = self._pop(ref)
            if tenure is not None:
                self._ended(tenure, report)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            tenures = list(self._tenures.values())
            self._tenures.clear()
        for tenure in tenures:
            self._failed(tenure, error)

    def _pop(self, ref: Any) -> Tenure | None:
        with self._changed:
            return self._tenures.pop(ref, None)


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
