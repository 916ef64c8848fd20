"""Named places where a test can have this process die, stop, wait or fail.

`RAFLOW_CRASH=recorder.after_commit:2:SIGKILL` kills the process that reaches the place
`recorder.after_commit` for the second time. Without that variable `crash_point` does nothing.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

Reached: TypeAlias = Callable[[str], None]

CRASH_POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run.before_record": "a flow run is made, and nothing of it is on record",
        "run.after_record": "the flow run is on record, or handed to the recorder, and not begun",
        "run.before_cancelling": "a cancel was heard, and nothing was done about it",
        "run.before_final_state": "everything has ended; the final state is not on record",
        "run.after_final_state": "the final state is on record; nobody has been told",
        "resume.before_taking": "a run can be resumed, and is not taken over",
        "resume.after_taking": "a run is taken over, and nothing is done for it",
        "lease.before_renewal": "a lease is due, and not renewed",
        "lease.after_renewal": "a lease is renewed, and what is asked of the run is known",
        "request.before_taking": "a request was read, and nothing was done about it",
        "request.before_answer": "what was asked was done, and nobody has been told",
        "pause.before_state": "a pause was heard, and nothing was done about it",
        "suspend.before_rest": "that the run is to be suspended was heard; calls of it run",
        "suspend.before_state": "nothing runs any more; that the run is suspended is not on record",
        "suspend.after_state": "the run is on record as suspended, and its lease not given back",
        "driver.before_send": "a batch is made up, and not handed to the backend",
        "driver.after_send": "a batch was handed to the backend, which is not noted yet",
        "driver.before_report": "a batch has reported, and nothing of it is noted",
        "driver.after_report": "what a batch has reported was handed to the recorder",
        "driver.before_subflow": "a child run is due, and not begun",
        "recorder.before_commit": "a group of records is made up, and nothing of it written",
        "recorder.after_commit": "a group of records is on disk; nobody has been told",
        "recorder.before_log": "log lines have arrived, and are not written",
        "store.before_commit": "the statements of a transaction were carried out, not committed",
        "store.after_commit": "a transaction is committed; its writer does not know",
        "spool.before_write": "the service is away, and a batch not on disk",
        "spool.after_write": "a batch waits on disk for the service",
        "spool.before_remove": "a batch is on record, and still on disk",
        "slots.after_grant": "a call has got its slots, and does not know",
        "slots.before_release": "a call needs its slots no more, and has them",
        "cache.after_claim": "the key of a value is claimed, and the value not computed",
        "cache.before_keep": "a value is computed, and not in the cache",
        "cache.after_keep": "a value is in the cache, and its key still claimed",
        "input.after_asking": "a question is on record; nobody waits for the answer",
        "input.before_default": "the time for an answer is over; the default is not on record",
        "order.before_commit": "runs are ordered, and nothing of that committed",
        "order.after_commit": "runs are ordered; whoever wanted them does not know",
        "claim.before_commit": "runs are handed to a worker, and nothing of that committed",
        "claim.after_commit": "runs are handed to a worker, which does not know",
        "reap.before_put_back": "a worker has lost a run, and nothing is done about it",
        "reap.after_put_back": "a run that a worker has lost waits for another",
        "schedules.before_edit": "schedules are changed, and nothing of that committed",
        "schedules.after_edit": "schedules are changed; whoever wanted that does not know",
        "scheduler.before_claim": "slots may have come; nobody has looked for them",
        "scheduler.after_claim": "schedules are locked whose slots have come; nothing is decided",
        "scheduler.before_commit": "slots are decided and runs ordered; nothing is committed",
        "scheduler.after_commit": "slots are decided and runs ordered; no worker was told",
        "backfill.before_commit": "a backfill, or runs of it, are written; nothing is committed",
        "backfill.after_commit": "a backfill, or runs of it, are on record; nobody was told",
        "worker.before_batch": "a batch has arrived at a process; none of its calls has begun",
        "worker.before_kept": "a call has returned a value, which is not kept",
        "worker.after_kept": "the value of a call is kept; nobody knows that the call has ended",
        "worker.before_report": "all calls of a batch have ended; nobody knows",
        "hooks.before_call": "a hook is due, and not called",
        "hooks.after_call": "a hook has returned",
        "reaper.before_end": "a run without a process is taken over; nothing of its end is done",
        "reaper.before_final_state": "its hooks were called; its end is not on record",
    }
)
"""Every crash point, and what is true there."""


class CrashRule(NamedTuple):
    """What happens at a crash point, and when."""

    point: str
    nth: int
    """Which time it is reached, from 1."""
    onwards: bool
    """Whether it happens at each later time too."""
    act: Reached

    @classmethod
    def parse(cls, text: str) -> CrashRule:
        """Read `POINT:NTH:ACTION`.

        NTH is a number, or a number and `+`: from that time on. ACTION is the name of a signal,
        `exit` or `exit=CODE`, `raise` or `raise=DOTTED.NAME` of an exception, or `sleep=SECONDS`.

        Raises:
            ValueError: It says something else, or there is no such point.
        """
        point, nth, action = [*text.split(":"), "", ""][:3]
        if point not in CRASH_POINTS or not nth.rstrip("+").isdecimal():
            raise ValueError(
                f"{text!r} is not POINT:NTH:ACTION with one of the points {', '.join(CRASH_POINTS)}"
            )
        return cls(point, int(nth.rstrip("+")), nth.endswith("+"), _action(action))

    def applies(self, nth: int) -> bool:
        """Whether it happens at this time."""
        return nth >= self.nth if self.onwards else nth == self.nth


def crashing(rules: str, counts: str = "") -> Reached:
    """Return what `crash_point` does.

    Args:
        rules: Several rules, separated by commas; see `CrashRule.parse`. Empty: nothing happens.
        counts: A folder where processes count together: a file for each point, which grows by one
            byte whenever the point is reached. Empty: each process counts for itself.

    Raises:
        ValueError: A rule cannot be read.
    """
    if not rules:
        return _go_on
    known = [CrashRule.parse(rule) for rule in rules.split(",")]
    own: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    def reached(point: str) -> None:
        nth = _count(Path(counts, point)) if counts else next(own[point])
        for rule in known:
            if rule.point == point and rule.applies(nth):
                rule.act(point)

    return reached


def _go_on(point: str) -> None:
    """Do nothing: no test wants anything of this process."""


def _count(path: Path) -> int:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, b".")
        return os.lseek(file, 0, os.SEEK_CUR)
    finally:
        os.close(file)


def _action(text: str) -> Reached:
    name, _, value = text.partition("=")
    if name in signal.Signals.__members__:
        number = signal.Signals[name]
        return lambda _: os.kill(os.getpid(), number)
    if name == "exit":
        code = int(value or 1)
        return lambda _: os._exit(code)
    if name == "sleep":
        seconds = float(value)
        return lambda _: time.sleep(seconds)
    if name == "raise":
        return lambda point: _raise(value or "builtins.RuntimeError", point)
    raise ValueError(
        f"{text!r} is no action: write the name of a signal, exit, exit=CODE, raise, "
        "raise=DOTTED.NAME or sleep=SECONDS"
    )


def _raise(name: str, point: str) -> None:
    module, _, kind = name.rpartition(".")
    error: type[BaseException] = getattr(importlib.import_module(module), kind)
    raise error(f"crash point {point!r} was reached")


crash_point: Final[Reached] = crashing(
    os.environ.get("RAFLOW_CRASH", ""), os.environ.get("RAFLOW_CRASH_COUNTS", "")
)
"""Say that a crash point was reached; see the module. Decided once, when this is imported."""
