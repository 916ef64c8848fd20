"""Whether the process of a flow run is still there, as far as this one can see."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from raflow import execute
from raflow.model import FlowRun, RunLease, StateName
from raflow.runtime.leases._lease import LEASE_SECONDS, is_gone, process_started

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore


class Fate(Enum):
    """What has become of a process."""

    ALIVE = auto()
    """Its lease lives."""
    GONE = auto()
    """It was one of this machine, and is no more."""
    SILENT = auto()
    """It is one of this machine, but has not renewed its lease: it was stopped, or hangs."""
    AWAY = auto()
    """It was one of another machine, and has not renewed its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What is known of the process that drives a flow run, or did last."""

    fate: Fate
    host: str
    pid: int
    at: float
    """Its last sign of life, by the clock of the database."""
    lease: RunLease | None
    """The claim that it has left; None: it has given that back, or never had one."""

    @property
    def over(self) -> RunLease | None:
        """The claim, if it counts as over because its process is gone."""
        return self.lease if self.fate is Fate.GONE else None

    @property
    def words(self) -> str:
        """What became of it, for people."""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        who = f"process {self.pid} on host {self.host!r}" if self.pid else "its process"
        return f"{who} {_BY_FATE[self.fate]}; its last sign of life was at {at}"


_BY_FATE = {
    Fate.ALIVE: "is alive",
    Fate.GONE: "is gone",
    Fate.SILENT: "is there, but does not say anything",
    Fate.AWAY: "has fallen silent",
}


def needs_a_process(run: FlowRun) -> bool:
    """Whether a flow run is under way: neither over nor suspended, nor still to begin."""
    waits = run.state.name in {StateName.SUSPENDED, StateName.SCHEDULED, StateName.LATE}
    return not (run.state.is_final or waits)


def sight(store: RunStore, run: FlowRun, *, taken: bool = False) -> Sighting:
    """Look for the process of a flow run.

    Args:
        store: The record.
        run: The run.
        taken: Whether the lease is the caller's: then it is about the process before.
    """
    lease = None if taken else store.leases.get(run.id)
    last = lease or RunLease(
        flow_run_id=run.id,
        incarnation=run.incarnation,
        host=run.host,
        pid=run.pid,
        process_started=0.0,
        renewed_at=run.state.at,
        expires_at=run.state.at,
    )
    if lease is not None and is_gone(lease):
        fate = Fate.GONE
    elif not taken and store.leases.is_alive(run.id):
        fate = Fate.ALIVE
    elif is_gone(last):
        fate = Fate.GONE
    else:
        here = last.host == socket.gethostname() and process_started(last.pid)
        fate = Fate.SILENT if here else Fate.AWAY
    return Sighting(fate=fate, host=last.host, pid=last.pid, at=last.renewed_at, lease=lease)


def abandoned(store: RunStore) -> list[tuple[FlowRun, Sighting]]:
    """Return the flow runs that are under way and have no process, without subflows, newest first.

    Those of deployments are not among them: they are given to workers.

    A process of this machine that has died is found out at once, any other when its lease ends.
    """
    found = {run.id: run for run in store.leases.abandoned()}
    for lease in store.leases.of_host(socket.gethostname()):
        if lease.flow_run_id not in found and is_gone(lease):
            found[lease.flow_run_id] = store.find_flow_run(lease.flow_run_id)
    roots = [run for run in found.values() if _stands_alone(run) and needs_a_process(run)]
    seen = [(run, sight(store, run)) for run in sorted(roots, key=_age)]
    return [(run, sighting) for run, sighting in seen if sighting.fate is not Fate.ALIVE]


def _stands_alone(run: FlowRun) -> bool:
    """Whether a flow run has a process of its own, which nobody but that has begun."""
    return run.parent_id is None and run.origin is None


def end_left_behind(store: RunStore, run: FlowRun, sighting: Sighting) -> int:
    """End what the dead process of a flow run has left on this machine; returns how much that was.

    Of a process that may still be there nothing is touched: it ends what it has started itself,
    once it finds that somebody else has the run.
    """
    if sighting.fate is not Fate.GONE:
        return 0
    noted = store.leases.processes(run.id)
    since = run.created_at - LEASE_SECONDS
    return execute.end_left_behind(_family(store, run.id), noted, since=since)


def _family(store: RunStore, flow_run_id: str) -> set[str]:
    """Return a flow run and its subflows, and theirs."""
    children = store.flow_runs(parent=flow_run_id, limit=None)
    return {flow_run_id}.union(*(_family(store, child.id) for child in children))


def _age(run: FlowRun) -> float:
    return -run.created_at
