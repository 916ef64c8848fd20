"""Reads what processes leave behind on their node, and clears up after them."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raflow.execute._offspring import end_marked
from raflow.execute._processes import Process, cpu_seconds, kill, process
from raflow.execute.ray import _cells
from raflow.execute.ray._cells import Remains
from raflow.execute.ray._leases import Speaker

_MAX_NODES: Final = 64
_MAX_SECONDS: Final = 6.0
_WATCH_SECONDS: Final = 1.0
_DEATH_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.02

_OPTIONS: Final[dict[str, Any]] = {"num_cpus": 0, "max_retries": 0, "enable_task_events": False}


class Vitals(NamedTuple):
    """How a process fares."""

    state: str
    """One letter of the kernel's: `T` was stopped."""
    is_busy: bool
    """Whether it uses the CPU for a good part of the time, or waits for its turn."""


class Traces(NamedTuple):
    """What the nodes know of a batch whose process has died."""

    remains: Remains | None
    """What is left of the process; None if it was not there, or never took the batch up."""
    died_otherwise: bool
    """Whether a process there has died with another batch, or between two."""


def look_after(
    token: str, session: int, batch: int, marks: Collection[str], since: float
) -> Traces:
    """Do on a node what is to be done after a batch has died there."""
    found = _cells.remains(token, session, batch)
    if found is None:
        return Traces(None, died_otherwise(token, session, batch))
    end_marked(marks, since=since)
    return Traces(found, died_otherwise=False)


def died_otherwise(token: str, session: int, batch: int) -> bool:
    """Tell whether a process of this machine has died without a batch; may wait a little.

    Ray may know of a death before the kernel shows it.
    """
    deadline = time.monotonic() + _DEATH_SECONDS
    while not (died := _cells.died_otherwise(token, session, batch)):
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    return died


def vitals(one: Process) -> Vitals | None:
    """Watch a process of this machine for a second; None if it is gone."""
    before = cpu_seconds(one)
    time.sleep(_WATCH_SECONDS)
    after, now = cpu_seconds(one), process(one.pid)
    if before is None or after is None or now is None:
        return None
    return Vitals(now.state, now.state == "R" or after - before > _WATCH_SECONDS / 4)


def put_down(one: Process, marks: Collection[str], since: float) -> None:
    """End a process of this machine that does not answer, and what its calls have started."""
    kill(one)
    end_marked(marks, since=since)


def end_left(marks: Collection[str], since: float) -> None:
    """End what carries one of the marks on this machine."""
    end_marked(marks, since=since)


_END_MARKED: Final[Any] = ray.remote(**_OPTIONS)(end_left)
_LOOK_AFTER: Final[Any] = ray.remote(**_OPTIONS)(look_after)
_VITALS: Final[Any] = ray.remote(**_OPTIONS)(vitals)
_PUT_DOWN: Final[Any] = ray.remote(**_OPTIONS)(put_down)

_log = logging.getLogger(__name__)


class Progress:
    """Reads the cells that worker processes leave behind in the memory of their node."""

    def __init__(self, *, is_all_here: bool, is_own: bool) -> None:
        """Prepare it.

        Args:
            is_all_here: Whether all worker processes are on this machine.
            is_own: Whether this process has started Ray itself.
        """
        self.is_all_here = is_all_here
        self._is_own = is_own
        self._node_id: str | None = None
        self.token = secrets.token_hex(8)
        """The name under which the processes of the backend keep their cells."""
        self._lock = threading.Lock()
        self._explained: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Remove what the processes of this machine have left."""
        _cells.sweep(self.token)

    @property
    def node_id(self) -> str:
        """The node of all worker processes, if there is only one; else empty."""
        if self._node_id is None:
            here = self.is_all_here and ray.is_initialized()
            self._node_id = str(ray.get_runtime_context().get_node_id()) if here else ""
        return self._node_id

    def here(self, session: int, batch: int) -> Remains | None:
        """Return what is known of a batch's process, dead or alive; None if it is not here."""
        return _cells.remains(self.token, session, batch)

    def was_not_taken_up(self, session: int, batch: int, asked: Traces | None) -> bool:
        """Tell whether a batch of which no process knows was given to one in its last moment.

        Args:
            session: Whose batch it was.
            batch: Its number.
            asked: What the nodes of a cluster have said; None: nobody was asked.
        """
        if asked is not None:
            return asked.died_otherwise
        # A process writes before it runs anything, and no other machine has processes of a Ray that
        # was started here.
        return self._is_own or (self.is_all_here and died_otherwise(self.token, session, batch))

    def running(self, session: int) -> Mapping[int, Sequence[int]]:
        """Return by batch which positions run on this machine, or ran when their process died."""
        return _cells.under_way(self.token, session)

    def is_starved(self, remains: Remains) -> bool:
        """Tell, once for each of them, whether the kernel has killed something there.

        The kernel only counts what it kills for want of memory: the process that has died just now
        is taken for the one.
        """
        if remains.oom_kills is None:
            return False
        place = (remains.host, remains.oom_counter)
        before, after = remains.oom_kills
        with self._lock:
            explained = max(before, self._explained.get(place, 0))
            self._explained[place] = min(explained + 1, after)
        return after > explained

    def vitals(self, speaker: Speaker) -> Vitals | None:
        """Look how a process fares that has fallen silent; None if nothing is to be learned."""
        if speaker.process.is_there:
            return vitals(speaker.process)
        found: Vitals | None = self._on_node(speaker.node_id, _VITALS, speaker.process)
        return found

    def put_down(self, speaker: Speaker, marks: Collection[str], since: float) -> None:
        """End a process that does not answer, and what its calls have started."""
        if speaker.process.is_there:
            put_down(speaker.process, marks, since)
        else:
            self._on_node(speaker.node_id, _PUT_DOWN, speaker.process, marks, since)

    def clear_up(self, nodes: Collection[str], marks: Collection[str], since: float) -> None:
        """End what carries one of the marks, and began after `since`, on some nodes."""
        asked = [_ask(node, _END_MARKED, list(marks), since) for node in nodes]
        with contextlib.suppress(Exception):  # what cannot be reached cannot be cleared up
            ray.wait(asked, num_returns=len(asked), timeout=_MAX_SECONDS)

    def _on_node(self, node_id: str, remote: Any, *arguments: Any) -> Any:
        asked = _ask(node_id, remote, *arguments)
        try:
            return ray.get(asked, timeout=_MAX_SECONDS)
        except Exception as error:
            # The node is dead, or cannot be reached: then nothing can be done there.
            _log.debug("A node does not answer: %r", error)
            return None
        finally:
            with contextlib.suppress(Exception):
                ray.cancel(asked, force=True)

    def elsewhere(self, session: int, batch: int, marks: Collection[str], since: float) -> Traces:
        """Ask the nodes of the cluster what is left of a batch's process; takes up to some seconds.

        The node that knows also ends what carries one of the marks and began after `since`.
        """
        try:
            return self._ask((session, batch, marks, since), time.monotonic() + _MAX_SECONDS)
        except Exception as error:
            # Whatever it is: the batch has to end, with or without an answer.
            _log.debug("The nodes do not say which call was running: %r", error)
            return Traces(None, died_otherwise=False)

    def _ask(self, about: tuple[Any, ...], deadline: float) -> Traces:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]][:_MAX_NODES]
        asked = [_ask(node, _LOOK_AFTER, self.token, *about) for node in nodes]
        idle = False
        try:
            while asked and (left := deadline - time.monotonic()) > 0:
                ready, asked = ray.wait(asked, num_returns=1, timeout=left)
                for answer in ready:
                    found = _answer(answer)
                    if found.remains is not None:
                        return found
                    idle = idle or found.died_otherwise
            return Traces(None, died_otherwise=idle and not asked)
        finally:
            for unanswered in asked:
                ray.cancel(unanswered, force=True)


def _ask(node_id: str, remote: Any, *arguments: Any) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return remote.options(scheduling_strategy=strategy).remote(*arguments)


def _answer(answer: Any) -> Traces:
    try:
        found: Traces = ray.get(answer)
    except ray.exceptions.RayError:
        return Traces(None, died_otherwise=False)  # that node died meanwhile
    return found
