"""Runs batches on Ray."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ray

from raflow import errors
from raflow.execute._alarms import Alarms
from raflow.execute._backend import BackendEvent, CallsReturned, CallStarted, RunEnvironment
from raflow.execute.ray._connect import Link, connect, disconnect, probe
from raflow.execute.ray._mailroom import Mailroom
from raflow.execute.ray._options import RemoteFunctions
from raflow.execute.ray._poll import InFlight, Poll
from raflow.execute.ray._progress import Progress
from raflow.execute.ray._session import RaySession, Tools
from raflow.model import Capacity, NodeCapacity

_MIN_WINDOW: Final = 256
_MAX_WINDOW: Final = 2048
_BATCHES_PER_CPU: Final = 8


class RayBackend:
    """Runs task runs on the Ray of this process, of a cluster, or of this machine.

    Values stay in Ray's object store. Every batch runs in a worker process of Ray's, on its main
    thread, so that code can be interrupted by signals; what cannot be interrupted is ended together
    with its process.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        *,
        home: Path,
        num_cpus: int | None = None,
        grace_seconds: float = 5.0,
    ) -> None:
        """Connect; starts a local Ray if there is none to use.

        Args:
            address: `host:port` of a cluster's head, `auto`, or `local` for a new local Ray.
                Default: the Ray that this process is connected with; else the variable
                `RAY_ADDRESS`; else the Ray that this user has started on this machine with `ray
                start`; else a new local Ray.
            home: Where the private token of a local Ray is kept.
            num_cpus: CPUs of a local Ray, which is then always a new one. Default: all of this
                machine.
            grace_seconds: How long a task may take to stop after its time limit before its process
                is ended.

        Raises:
            BackendError: There is no Ray at the address, or none could be started.
        """
        self._link: Link = connect(address, home=home, num_cpus=num_cpus)
        self._grace = grace_seconds
        self._sessions: dict[int, RaySession] = {}
        self._numbers = itertools.count()
        mailroom = Mailroom(self._link.host, started=self._started, returned=self._returned)
        self._tools = Tools(
            poll=Poll(ended=self._ended, failed=self._failed, probe=self._probe),
            mailroom=mailroom,
            alarms=Alarms("raflow-alarms"),
            remote=RemoteFunctions(),
            progress=Progress(is_all_here=self._link.shares_files),
            probe=self._probe,
        )
        cpus = int(self.capacity().cpus)
        self.window = min(max(_MIN_WINDOW, _BATCHES_PER_CPU * cpus), _MAX_WINDOW)

    def capacity(self) -> Capacity:
        """Return the live nodes of the cluster.

        Raises:
            BackendError: The cluster does not answer.
        """
        try:
            nodes = ray.nodes()
        except Exception as error:
            raise errors.BackendError(f"Ray does not say which nodes it has: {error}") from error
        remedy = (
            "Run on a cluster that has it, by ray_address or RAFLOW_RAY_ADDRESS."
            if self._link.local
            else "Add a node that has it to the Ray cluster."
        )
        return Capacity(nodes=tuple(_node(node) for node in nodes if node["Alive"]), remedy=remedy)

    def open(self, environment: RunEnvironment, post: Callable[[BackendEvent], None]) -> RaySession:
        """Begin a flow run."""
        number = next(self._numbers)
        session = RaySession(
            number,
            environment,
            post,
            self._tools,
            grace=self._grace,
            same_machine=self._link.shares_files,
            closed=self._forget,
        )
        self._sessions[number] = session
        return session

    def close(self) -> None:
        """End all sessions, and Ray if it was started or joined here."""
        for session in list(self._sessions.values()):
            session.close()
        self._tools.poll.close()
        self._tools.mailroom.close()
        self._tools.alarms.close()
        self._tools.progress.close()
        disconnect(self._link)

    def _probe(self) -> str | None:
        return probe(self._link)

    def _forget(self, number: int) -> None:
        self._sessions.pop(number, None)

    def _started(self, number: int, event: CallStarted) -> bool:
        session = self._sessions.get(number)
        return session is not None and session.started(event)

    def _returned(self, number: int, event: CallsReturned) -> None:
        session = self._sessions.get(number)
        if session is not None:
            session.returned(event)

    def _ended(self, flight: InFlight, report: bytes) -> None:
        session = self._sessions.get(flight.session)
        if session is not None:
            session.ended(flight, report)

    def _failed(self, flight: InFlight, error: BaseException) -> None:
        session = self._sessions.get(flight.session)
        if session is not None:
            session.failed(flight, error)


def _node(node: dict[str, Any]) -> NodeCapacity:
    return NodeCapacity(
        name=node["NodeManagerAddress"],
        amounts=dict(node["Resources"]),
        labels=dict(node.get("Labels") or {}),
    )
