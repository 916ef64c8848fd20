"""Runs batches on Ray."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import ray

from raflow import errors
from raflow.execute._alarms import Alarms
from raflow.execute._backend import (
    BackendEvent,
    CallsReturned,
    CallStarted,
    RunEnvironment,
    SlotsAsked,
    SlotsLeft,
)
from raflow.execute.ray._absent import nodes_alive
from raflow.execute.ray._connect import (
    Link,
    connect,
    disconnect,
    leave,
    probe,
    started_processes,
)
from raflow.execute.ray._leases import LEASE_SECONDS, Leases
from raflow.execute.ray._mail import Line
from raflow.execute.ray._mailroom import Mailroom, Word
from raflow.execute.ray._options import RemoteFunctions
from raflow.execute.ray._poll import Poll
from raflow.execute.ray._probes import Probes
from raflow.execute.ray._progress import Progress
from raflow.execute.ray._session import RaySession
from raflow.execute.ray._starts import START_SECONDS, HeldUp, Starts, StartWatch, Waiting
from raflow.execute.ray._tenures import Tenure, Tenures
from raflow.execute.ray._tools import Tools
from raflow.execute.ray._trials import ask, environment_story, reason_of, start_error, trouble
from raflow.model import Capacity, NodeCapacity, ProcessInfo

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
        lease_seconds: float = LEASE_SECONDS,
        start_seconds: float = START_SECONDS,
        stay: bool | None = None,
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
            lease_seconds: How long the process of a running batch may say nothing before it is
                ended and its batch is lost.
            start_seconds: How long a run waits if Ray cannot start any worker process.
            stay: Whether a process that has ended a batch stays for the next one. Default: on a
                local Ray that is started here. On a cluster an autoscaler may count what waits in
                Ray, where no more waits than can run if processes stay.

        Raises:
            BackendError: There is no Ray at the address, or none could be started.
        """
        self._link: Link = connect(address, home=home, num_cpus=num_cpus)
        self._grace = grace_seconds
        self._sessions: dict[int, RaySession] = {}
        self._story: str | None = None
        self._telling = threading.Lock()
        """Held where sessions are told that Ray is gone: then all know, before anything follows."""
        self._numbers = itertools.count()
        leases = Leases(lease_seconds)
        mailroom = Mailroom(
            self._link.host,
            started=self._started,
            returned=self._returned,
            slots=self._slots,
            leases=leases,
            tenure=self._word,
        )
        self._tools = Tools(
            poll=Poll(ended=self._ended, failed=self._failed, probe=self._probe, tend=self._tend),
            mailroom=mailroom,
            alarms=Alarms("raflow-alarms"),
            leases=leases,
            remote=RemoteFunctions(),
            progress=Progress(is_all_here=self._link.shares_files, is_own=self._link.local),
            tenures=Tenures(stay=self._link.local if stay is None else stay),
            probe=self._probe,
        )
        self._probes = Probes(
            self._link,
            gone=self._gone,
            nodes=nodes_alive,
            nodes_died=self._nodes_died,
            is_busy=lambda: self._tools.poll.is_busy,
        )
        self._start_seconds = start_seconds
        self._starts = StartWatch(
            Starts(start_seconds, ask=ask, total=ray.cluster_resources),
            batches=self._waiting,
            tell=self._held_up,
            is_there=lambda: self._probe() is None,
        )
        cpus = int(self.capacity().cpus)
        self.window = min(max(_MIN_WINDOW, _BATCHES_PER_CPU * cpus), _MAX_WINDOW)

    @property
    def is_gone(self) -> bool:
        """Whether this Ray has died."""
        return self._probe() is not None

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
        with self._telling:
            self._sessions[number] = session
            if self._story is not None:
                session.gone(self._story)
        return session

    def processes(self) -> tuple[ProcessInfo, ...]:
        """Return the processes of a Ray that was started here, its workers included."""
        return started_processes(self._link)

    def close(self) -> None:
        """End all sessions, and Ray if it was started or joined here."""
        for session in list(self._sessions.values()):
            session.close()
        self._starts.close()
        self._probes.close()
        self._tools.poll.close()
        self._tools.mailroom.close()
        self._tools.alarms.close()
        self._tools.progress.close()
        if self._story is None:
            disconnect(self._link)
        else:
            leave(self._link)

    def _probe(self) -> str | None:
        story = self._story or probe(self._link)
        if story is not None:
            self._gone(story)
        return self._story

    def _gone(self, story: str) -> None:
        with self._telling:
            if self._story is None:
                self._story = story
                for session in list(self._sessions.values()):
                    session.gone(story)

    def _nodes_died(self, alive: frozenset[str]) -> None:
        for session in list(self._sessions.values()):
            session.nodes_died(alive)

    def _tend(self) -> None:
        leases = self._tools.leases
        for (number, batch), _ in leases.dead():
            session = self._sessions.get(number)
            if session is not None:
                session.dead(batch)
        for (number, batch), speaker in leases.expired():
            session = self._sessions.get(number)
            if session is not None:
                session.silent(batch, speaker, leases.seconds)

    def _waiting(self) -> list[Waiting]:
        now = time.time()
        return [
            Waiting(
                session=number,
                batch=flight.spec.id,
                resources=flight.spec.resources,
                has_begun=flight.has_begun,
                waited=now - flight.sent_at,
            )
            for number, session in list(self._sessions.items())
            for flight in session.flights
            if flight.tenure is not None
        ]

    def _held_up(self, found: Sequence[HeldUp]) -> None:
        reasons: dict[int, str] = {}
        for held in found:
            if held.is_hopeless:
                self._give_up(held)
                continue
            for number in {one.session for one in held.batches}:
                session = self._sessions.get(number)
                told = "" if session is None else session.reason
                reasons[number] = told or reason_of(
                    held, trouble(self._link, held), self._start_seconds
                )
        for number, session in list(self._sessions.items()):
            session.held_up(reasons.get(number, ""))

    def _give_up(self, held: HeldUp) -> None:
        why = trouble(self._link, held)
        for number, session in list(self._sessions.items()):
            batches = [one.batch for one in held.batches if one.session == number]
            if batches and (held.runtime_env is None or why.is_general):
                session.cannot_start(start_error(held, why))
            elif batches:
                session.fail(batches, environment_story(held, why))

    def _forget(self, number: int) -> None:
        self._sessions.pop(number, None)

    def _started(self, number: int, event: CallStarted) -> bool:
        session = self._sessions.get(number)
        return session is not None and session.started(event)

    def _returned(self, number: int, event: CallsReturned) -> None:
        session = self._sessions.get(number)
        if session is not None:
            session.returned(event)

    def _slots(self, number: int, event: SlotsAsked | SlotsLeft) -> bool:
        session = self._sessions.get(number)
        return session is not None and session.slots_wanted(event)

    def _word(self, word: Word, line: Line) -> None:
        session = self._sessions.get(word.session)
        if session is not None:
            session.word(word, line)

    def _ended(self, tenure: Tenure, report: bytes) -> None:
        session = self._sessions.get(tenure.kind.session)
        if session is not None:
            session.ended(tenure, report)

    def _failed(self, tenure: Tenure, error: BaseException) -> None:
        session = self._sessions.get(tenure.kind.session)
        if session is not None:
            session.failed(tenure, error)


def _node(node: dict[str, Any]) -> NodeCapacity:
    return NodeCapacity(
        name=node["NodeManagerAddress"],
        amounts=dict(node["Resources"]),
        labels=dict(node.get("Labels") or {}),
    )
