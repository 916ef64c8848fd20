"""Runners: processes that each have one version of code, and work on one flow run at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, NamedTuple

from raflow import config
from raflow.model import Claim, DeploymentVersion
from raflow.worker import _messages

_MODULE: Final = "raflow.worker._runner_main"
_TOKEN: Final = "RAFLOW_API_TOKEN"  # noqa: S105  # a name
LOAD_SECONDS: Final = 300.0
"""So long a process may take to load its code and to reach where it runs."""
_LEAVE_SECONDS: Final = 10.0
"""So long a process may take to end that has nothing more to say: threads of a flow may hold it."""


class Key(NamedTuple):
    """What two runs must have in common to be worked on by the same runner."""

    bundle: str
    entrypoint: str
    fingerprint: str
    environment: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, version: DeploymentVersion) -> Key:
        """Return that of a run of this version."""
        environment = tuple(sorted(version.spec.environment.items()))
        return cls(version.bundle, version.spec.entrypoint, version.fingerprint, environment)


class Runner:
    """A process that works on flow runs, as its worker sees it."""

    def __init__(self, version: DeploymentVersion, folder: Path, settings: config.Settings) -> None:
        """Start it: it loads the code.

        Raises:
            OSError: No process can be started, or what it prints cannot be kept.
        """
        self.key: Final = Key.of(version)
        self.claim: Claim | None = None
        """The run that it has."""
        self.is_stopping = False
        self.was_killed = False
        """Whether its worker has ended it."""
        self.idle_since = time.monotonic()
        self.busy_since = self.idle_since
        """Since when it has its run."""
        self.runs = 0
        """How many it has had."""
        self._is_ready = False
        self._began_at = self.idle_since
        self._left_at: float | None = None
        logs = settings.home / "runners"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = multiprocessing.Pipe()
        self.connection: Final[Connection[Any, Any]] = ours
        with theirs, (logs / f"{self.key.bundle[:12]}.log").open("ab") as log:
            self._process = subprocess.Popen(
                # Where it is says nothing of what it imports but the code of the user.
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                cwd=folder,
                env={name: text for name, text in os.environ.items() if name != _TOKEN},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # What a terminal sends to the worker is not for it.
                start_new_session=True,
            )
        load = _messages.Load(folder=str(folder), version=version, settings=settings)
        self._say(load)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def do(self, claim: Claim) -> None:
        """Have it work on a run, once it has loaded its code."""
        self.claim = claim
        self.busy_since = time.monotonic()
        self.runs += 1
        if self._is_ready:
            self._say(_messages.Do(claim=claim))

    def stop(self) -> None:
        """Have it end once the run that it has is over."""
        self.is_stopping = True
        self._say(_messages.Stop())

    def kill(self) -> None:
        """End it now."""
        self.was_killed = True
        self._process.kill()

    def hear(self) -> Sequence[_messages.FromRunner] | None:
        """Return what it has said; None: it is gone."""
        said: list[_messages.FromRunner] = []
        try:
            while self.connection.poll():
                said.append(_messages.hear(self.connection))
                if isinstance(said[-1], _messages.Ready):
                    self._begin()
        except (EOFError, OSError):
            return said or None
        except (ValueError, TypeError, KeyError):
            # Code of users is in that process, too, and has said something in its place.
            self.kill()
            return said or None
        return said

    def _begin(self) -> None:
        """Tell it what it has to do: before it listens, a long message would hold up the worker."""
        self._is_ready = True
        if self.claim is not None:
            self._say(_messages.Do(claim=self.claim))

    @property
    def is_stuck(self) -> bool:
        """Whether it has not loaded its code for so long that it never will."""
        return not self._is_ready and time.monotonic() - self._began_at > LOAD_SECONDS

    def has_left(self) -> bool:
        """Whether the process has ended that has closed its connection; in time it is made to."""
        now = time.monotonic()
        if self._left_at is None:
            self._left_at = now
            self.connection.close()
        elif now - self._left_at > _LEAVE_SECONDS:
            self.kill()
        return self._process.poll() is not None

    def bury(self) -> str:
        """Wait for the end of the process, which is gone or about to be; say how it ended."""
        self.connection.close()
        try:
            status = self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"process {self.pid} {how}"

    def _say(self, message: _messages.ToRunner) -> None:
        with contextlib.suppress(OSError):  # it is gone, which is heard
            self.connection.send(message)


def heard(runners: Iterable[Runner], *, seconds: float) -> list[Runner]:
    """Return runners that have said something, or are gone; waits for one at most so long."""
    by_connection = {runner.connection: runner for runner in runners}
    if not by_connection:
        time.sleep(seconds)
        return []
    return [by_connection[ready] for ready in wait(list(by_connection), seconds)]  # type: ignore[index]
