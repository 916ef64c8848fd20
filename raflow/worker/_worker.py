"""The loop of a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pydantic

from raflow import config, errors
from raflow._util import new_id, version_of
from raflow.model import Claim, Poll, WorkerInfo
from raflow.worker import _messages, _runners
from raflow.worker._ports import Work
from raflow.worker._runners import Key, Runner, heard

_LOG: Final = logging.getLogger("raflow.worker")
_LOOK_SECONDS: Final = 0.05
_SEEN_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 600.0
"""A runner without a run is ended after so long."""
_MOST_RUNS: Final = 500
"""A runner is replaced after so many runs."""
_SUSPEND_SECONDS: Final = 10.0
"""How long a run may take to be suspended before its runner is killed."""


_DOES: Final = {"run": "begins", "resume": "goes on", "end": "is brought to its end"}


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Go on if something cannot be told to the store: the leases that run out will tell it."""
    try:
        yield
    except errors.RaflowError as error:
        _LOG.warning("cannot %s: %s", what, error)


def _named(claim: Claim) -> str:
    """Return the name of a flow run, as a line of the log begins with it."""
    run = claim.flow_run
    also = "" if run.name == run.short_name else f" ({run.short_name})"
    return f"flow run {run.name}{also}"


class Worker:
    """Takes runs of a pool as long as it has runners for them.

    One thread does all: `run` returns once the worker has been asked to `drain` and is empty.
    """

    def __init__(
        self,
        work: Work,
        settings: config.Settings,
        *,
        pool: str = "default",
        runners: int = 0,
        name: str = "",
        drain_seconds: float = 60.0,
    ) -> None:
        """Prepare it; `run` starts.

        Args:
            work: Where runs come from.
            settings: Those of the runners.
            pool: The pool whose runs it takes.
            runners: How many runs at the same time. Default: as many as there are CPUs.
            name: For people. Default: that of the host.
            drain_seconds: How long runs may go on once it drains. Then they are suspended, and
                another worker goes on with them.
        """
        self._work = work
        # The token of a worker is none of the flows' business.
        hidden = {"reap": False, "api_token": pydantic.SecretStr("")}
        self._settings = settings.model_copy(update=hidden)
        self._limit = runners or os.cpu_count() or 1
        self._drain_seconds = drain_seconds
        self._runners: list[Runner] = []
        self._leaving: list[Runner] = []
        """Those that have said their last, and have not ended."""
        self._token = ""
        self._seen_at = 0.0
        self._drains_at: float | None = None
        self._ends_at_once = False
        self._has_told = False
        self._moved: set[str] = set()
        host = socket.gethostname()
        self.info: Final = WorkerInfo(
            id=new_id(),
            name=name or host,
            pool=pool,
            host=host,
            pid=os.getpid(),
            versions={
                "python": platform.python_version(),
                "raflow": version_of("raflow"),
                "ray": version_of("ray"),
            },
            ray_address=settings.ray_address,
            started_at=time.time(),
            runners=self._limit,
        )

    def drain(self) -> None:
        """Take no more runs, and end; asked twice, end those at once that go on.

        Another worker goes on with these. May be called by a signal handler.
        """
        if self._drains_at is None:
            self._drains_at = time.monotonic() + self._drain_seconds
        else:
            self._ends_at_once = True

    @property
    def ends_at_once(self) -> bool:
        """Whether it was asked twice to end."""
        return self._ends_at_once

    def run(self) -> None:
        """Work until the worker has drained."""
        _LOG.info(
            "worker %r takes runs of pool %r, %s at the same time",
            self.info.name,
            self.info.pool,
            self._limit,
        )
        try:
            while self._drains_at is None or self._busy():
                self._listen()
                self._be_seen()
                if self._drains_at is None:
                    self._take()
                else:
                    self._tell_drain()
                    self._hand_over(self._drains_at)
                self._thin_out()
        finally:
            for runner in self._idle():
                runner.stop()
            for runner in (*self._leaving, *self._runners):
                if runner.claim is None:
                    runner.bury()
            with _telling("leave"):
                self._work.leave(self.info.id)

    def _tell_drain(self) -> None:
        if self._has_told:
            return
        self._has_told = True
        if number := len(self._busy()):
            _LOG.info(
                "takes no more runs, and ends when what is under way is over (runs: %s); after "
                "%.0f s it is suspended, for another worker to go on. Asked once more, it ends "
                "all at once",
                number,
                self._drain_seconds,
            )
        else:
            _LOG.info("takes no more runs, and ends")

    def _busy(self) -> list[Runner]:
        return [runner for runner in self._runners if runner.claim is not None]

    # --- Runners ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        for runner in heard(self._runners, seconds=_LOOK_SECONDS):
            said = runner.hear()
            if said is None:
                self._gone(runner)
                continue
            for message in said:
                self._said(runner, message)

    def _said(self, runner: Runner, message: _messages.FromRunner) -> None:
        match message:
            case _messages.Ready():
                _LOG.info("runner %s is ready after %.1f s", runner.pid, message.seconds)
            case _messages.Useless():
                runner.is_stopping = True
                self._refuse(runner, message.message, permanent=message.permanent)
            case _messages.Refused():
                self._refuse(runner, message.message, permanent=message.permanent)
            case _messages.Ended():
                self._ended(runner, message)

    def _ended(self, runner: Runner, message: _messages.Ended) -> None:
        run, claim = message.flow_run_id, runner.claim
        if claim is not None:
            seconds = time.monotonic() - runner.busy_since
            _LOG.info("%s: %s after %.1f s", _named(claim), message.state, seconds)
        self._moved.discard(run)
        self._free(runner)

    def _refuse(self, runner: Runner, why: str, *, permanent: bool) -> None:
        claim = runner.claim
        self._free(runner)
        if claim is not None:
            self._give_back(claim, why, permanent=permanent)

    def _gone(self, runner: Runner) -> None:
        self._runners.remove(runner)
        claim = runner.claim
        if claim is None:
            self._leaving.append(runner)
        else:
            why = f"its {runner.bury()}"
            if runner.was_killed and self._drains_at is not None:
                why = f"its worker was told to end{' at once' if self._ends_at_once else ''}"
            elif runner.was_killed and runner.is_stuck:
                why = f"its code did not load within {_runners.LOAD_SECONDS:.0f} s"
            _LOG.warning("%s: %s", _named(claim), why)
            with _telling("put a flow run back"):
                self._work.died(claim.flow_run.id, claim.incarnation, message=why)

    @staticmethod
    def _free(runner: Runner) -> None:
        runner.claim = None
        runner.idle_since = time.monotonic()

    def _thin_out(self) -> None:
        """End runners that nobody has needed for long, that have had many runs, or that hang."""
        now = time.monotonic()
        self._leaving = [runner for runner in self._leaving if not runner.has_left()]
        for runner in self._runners:
            if runner.is_stuck:
                runner.kill()
            elif runner.claim is None and not runner.is_stopping:
                old = now - runner.idle_since > _IDLE_SECONDS or runner.runs >= _MOST_RUNS
                if old or self._drains_at is not None:
                    runner.stop()

    # --- Runs -------------------------------------------------------------------------------------

    def _be_seen(self) -> None:
        if time.monotonic() - self._seen_at < _SEEN_SECONDS:
            return
        self._seen_at = time.monotonic()
        try:
            told = self._work.seen(self._ask(0))
        except errors.StoreError as error:
            _LOG.warning("%s", error)
            return
        if told.drain and self._drains_at is None:
            self.drain()

    def _ask(self, most: int) -> Poll:
        self._token = self._token or secrets.token_hex(8)
        busy = [runner.claim.flow_run.id for runner in self._runners if runner.claim is not None]
        draining = self._drains_at is not None
        info = replace(self.info, busy=len(busy), draining=draining)
        return Poll(info=info, most=most, claim=self._token, waiting=tuple(busy))

    def _take(self) -> None:
        most = self._limit - len(self._busy())
        if most <= 0:
            return
        try:
            polled = self._work.poll(self._ask(most))
        except errors.NotFoundError:
            return  # nobody has made the pool yet: `seen` does
        except errors.StoreError as error:
            _LOG.warning("%s", error)
            return
        if not polled.claims:
            return
        self._token = ""
        for claim in polled.claims:
            self._start(claim)

    def _start(self, claim: Claim) -> None:
        try:
            version = self._work.version(claim)
            # Only a new process looks at the files, all of them.
            runner = self._runner_for(Key.of(version)) or self._new_runner(
                Runner(version, self._work.folder(version), self._settings)
            )
        except errors.RaflowError as error:
            permanent = isinstance(error, errors.NotFoundError | errors.BundleMissingError)
            self._give_back(claim, str(error), permanent=permanent)
            return
        except OSError as error:
            self._give_back(claim, f"no process can be started: {error}")
            return
        runner.do(claim)
        origin = claim.flow_run.origin
        assert origin is not None
        what = f"deployment {origin.deployment!r}, version {origin.version}"
        _LOG.info("%s %s in process %s: %s", _named(claim), _DOES[claim.work], runner.pid, what)

    def _runner_for(self, key: Key) -> Runner | None:
        return next((runner for runner in self._idle() if runner.key == key), None)

    def _new_runner(self, runner: Runner) -> Runner:
        """Add a runner; if there are too many then, the one that has rested longest ends."""
        idle = sorted(self._idle(), key=lambda one: one.idle_since)
        for one in idle[: max(0, len(self._runners) + 1 - self._limit)]:
            one.stop()
        self._runners.append(runner)
        return runner

    def _idle(self) -> list[Runner]:
        return [one for one in self._runners if one.claim is None and not one.is_stopping]

    def _give_back(self, claim: Claim, why: str, *, permanent: bool = False) -> None:
        run, incarnation = claim.flow_run.id, claim.incarnation
        _LOG.warning("%s is given back: %s", _named(claim), why)
        with _telling("give a flow run back"):
            if not self._work.give_back(run, incarnation, message=why, permanent=permanent):
                # It had begun: as if its process had died.
                self._work.died(run, incarnation, message=why)

    def _hand_over(self, at: float) -> None:
        """Have runs that go on for too long suspended, and then killed."""
        now = time.monotonic()
        for runner in self._busy():
            claim = runner.claim
            assert claim is not None
            run = claim.flow_run.id
            if self._ends_at_once or now >= at + _SUSPEND_SECONDS:
                runner.kill()
            elif now >= at and run not in self._moved:
                self._moved.add(run)
                with _telling("suspend a flow run"):
                    self._work.move(run, by=f"worker {self.info.name}", message="the worker ends")
