"""The groups of the store, from afar; what each method does is told where the store has it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from raflow import errors, model
from raflow._util import short_id
from raflow.client._calls import PATIENCE_SECONDS, Calls
from raflow.client._mailbox import Mailbox
from raflow.model import Awaited, Granted, TaskRunKey, wire

LEASE_SECONDS: Final = 60.0
"""So long a run is its process's own: the service may be away for a while."""
_KEYS_AT_ONCE: Final = 1000
_ROWS_AT_ONCE: Final = 1000
_FRAME: Final = struct.Struct("<QI")
_PATIENT: Final = {"patience": PATIENCE_SECONDS}

Settle = Callable[[str, float], None]
"""Waits until nothing of a run waits for the service any more; see `Outbox.settle`."""


class Leases:
    """Which process drives which flow run."""

    def __init__(self, calls: Calls, settle: Settle, drives: Callable[[str, int], None]) -> None:
        """Take whom to ask, and who is told which process of a run this one is."""
        self._calls = calls
        self._settle = settle
        self._drives = drives

    def begin_incarnation(
        self,
        flow_run_id: str,
        *,
        host: str,
        pid: int,
        process_started: float,
        seconds: float,
        force: bool = False,
        gone: model.RunLease | None = None,
    ) -> int:
        """Let a process take over a flow run, once all that an earlier one did is on record."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        wish = wire.LeaseBegin(
            host=host,
            pid=pid,
            process_started=process_started,
            seconds=max(seconds, LEASE_SECONDS),
            force=force,
            gone=gone,
        )
        # Not again: if an answer is lost, this process is the one that has it now.
        taken = self._calls.post(flow_run_id, "/lease/begin", wish, wire.Incarnation)
        self._drives(flow_run_id, taken.incarnation)
        return taken.incarnation

    def renew(
        self,
        flow_run_id: str,
        incarnation: int,
        *,
        seconds: float,
        host: str = "",
        pid: int = 0,
        process_started: float = 0.0,
    ) -> tuple[model.RunRequest, ...]:
        """Renew the lease of a process, or make it; return what others ask of the run."""
        wish = wire.LeaseRenewal(
            incarnation=incarnation,
            seconds=max(seconds, LEASE_SECONDS),
            host=host,
            pid=pid,
            process_started=process_started,
        )
        requests = self._calls.post(flow_run_id, "/lease", wish, wire.Mail).requests
        self._drives(flow_run_id, incarnation)
        return requests

    def let_go(self, flow_run_id: str, incarnation: int) -> None:
        """Give a flow run back, if the process with this number still has it."""
        which = wire.Incarnation(incarnation=incarnation)
        self._settle(flow_run_id, PATIENCE_SECONDS)
        self._calls.post(flow_run_id, "/lease/let-go", which, wire.Nothing, **_PATIENT)

    def get(self, flow_run_id: str) -> model.RunLease | None:
        """Return who drives a flow run, or did last without giving it back."""
        return self._standing(flow_run_id).lease

    def is_alive(self, flow_run_id: str) -> bool:
        """Tell whether a process drives a flow run, or the run that it is a subflow of."""
        return self._standing(flow_run_id).is_alive

    def _standing(self, flow_run_id: str) -> wire.LeaseStanding:
        return self._calls.get(flow_run_id, "/lease", wire.LeaseStanding, **_PATIENT)

    def abandoned(self) -> Sequence[model.FlowRun]:
        """Return nothing: looking after runs of others is up to the service."""
        return ()

    def of_host(self, host: str) -> Sequence[model.RunLease]:  # noqa: ARG002
        """Return nothing; see `abandoned`."""
        return ()

    def note_processes(
        self,
        flow_run_id: str,
        processes: Iterable[model.ProcessInfo],
        *,
        ended: Iterable[model.ProcessInfo] = (),
    ) -> None:
        """Note processes that work for a flow run, and forget those that have ended."""
        note = wire.ProcessNote(processes=tuple(processes), ended=tuple(ended))
        self._calls.post(flow_run_id, "/processes", note, wire.Nothing)

    def processes(self, flow_run_id: str) -> Sequence[model.ProcessInfo]:
        """Return the processes that were noted for a flow run."""
        return self._calls.get(flow_run_id, "/processes", list[model.ProcessInfo], **_PATIENT)


class Requests:
    """What is asked of flow runs, and what flow runs ask of people."""

    def __init__(self, calls: Calls, settle: Settle) -> None:
        """Take whom to ask."""
        self._calls = calls
        self._settle = settle
        self._boxes: dict[str, Mailbox] = {}
        self._runs: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    def of(self, flow_run_id: str, *, open_only: bool = False) -> tuple[model.RunRequest, ...]:
        """Return what is asked of a flow run and waits for an answer; asks nobody as a rule.

        Raises:
            FencedError: Another process has taken the run over.
        """
        assert open_only, "no run has use for what was answered"
        root = self._calls.root_of(flow_run_id)
        box = self._boxes.get(root)
        if box is None:
            found = self._calls.get(flow_run_id, "/requests", wire.Mail).requests
            requests = tuple(one for one in found if one.flow_run_id == flow_run_id)
            self._boxes[root] = Mailbox(root, lambda last, wait: self._wait(root, last, wait))
        elif box.fenced:
            raise errors.FencedError(
                f"Flow run {short_id(root)!r} is driven by another process by now: it has taken "
                "over. What this process still does for the run is lost.",
                flow_run_id=root,
            )
        else:
            requests = box.open_of(flow_run_id)
        self._runs.update((request.id, flow_run_id) for request in requests)
        return requests

    def _wait(self, root: str, last: int, seconds: float) -> wire.Mail:
        query = {"after": last, "wait": seconds, "incarnation": self._numbers.get(root, 0)}
        return self._calls.get(root, "/requests", wire.Mail, query=query, seconds=2 * seconds)

    def drives(self, flow_run_id: str, incarnation: int) -> None:
        """Take note of which process of a run this one is."""
        if self._numbers.get(flow_run_id) != incarnation:
            self._numbers[flow_run_id] = incarnation
            self.ended(flow_run_id)  # what was heard was for another process

    def ended(self, flow_run_id: str) -> None:
        """Listen no more for a run that is over."""
        if (box := self._boxes.pop(flow_run_id, None)) is not None:
            box.close()

    def close(self) -> None:
        """Listen no more."""
        for root in list(self._boxes):
            self.ended(root)

    def answered(self, request_id: int, outcome: str) -> None:
        """Note what became of a request."""
        run = self._runs[request_id]
        told = wire.RequestOutcome(outcome=outcome)
        self._calls.post(run, f"/requests/{request_id}/answered", told, wire.Nothing)
        if (box := self._boxes.get(self._calls.root_of(run))) is not None:
            box.answered(request_id)

    def ask_person(self, request: model.InputRequest) -> model.InputRequest:
        """Ask people for input, or find the answer if the run has asked this before."""
        # The run has to be on record first; whoever asks tries again.
        self._settle(request.flow_run_id, 0.0)
        return self._calls.post(request.flow_run_id, "/inputs", request, model.InputRequest)

    def answer_person(
        self,
        flow_run_id: str,
        number: int,
        *,
        answer: bytes,  # noqa: ARG002  # the service knows the default
        by: str,
    ) -> model.InputRequest:
        """Let the default count, as nobody has answered."""
        assert not by, "people answer through the service"
        return self._calls.post(
            flow_run_id, f"/inputs/{number}", wire.Nothing(), model.InputRequest
        )

    def input_requests(self, *, flow_run_id: str, open_only: bool) -> Sequence[model.InputRequest]:
        """Return what a flow run asks of people, oldest first."""
        query = {"open_only": "true" if open_only else "false"}
        return self._calls.get(flow_run_id, "/inputs", list[model.InputRequest], query=query)


class Limits:
    """Limits that all flow runs share."""

    def __init__(self, calls: Calls) -> None:
        """Take whom to ask."""
        self._calls = calls

    def all(self) -> Sequence[model.LimitState]:
        """Return every limit with those who hold its slots and those in line."""
        return self._calls.get(self._calls.latest, "/limits", list[model.LimitState])

    def acquire(self, request: model.SlotRequest, *, seconds: float) -> Granted | Awaited:
        """Take slots: all that are wanted, or none, and a place in line for them."""
        wish = wire.SlotsWish(request=request, seconds=seconds)
        return _decided(
            self._calls.post(request.flow_run_id, "/limits/acquire", wish, wire.Decision)
        )

    def renew(self, flow_run_id: str, *, seconds: float) -> frozenset[str]:
        """Renew what a flow run holds; return the holders that still have it."""
        wish = wire.Seconds(seconds=seconds)
        kept = self._calls.post(flow_run_id, "/limits/renew", wish, wire.Holders)
        return frozenset(kept.holders)

    def release(self, holder: str) -> None:
        """Give back what a holder holds or waits for."""
        run = holder.partition("/")[0]
        self._calls.post(run, "/limits/release", wire.Holder(holder=holder), wire.Nothing)

    def release_all(self, flow_run_id: str) -> None:
        """Give back what a flow run holds or waits for."""
        self._calls.post(flow_run_id, "/limits/release-all", wire.Nothing(), wire.Nothing)


class Cache:
    """Values that were computed before."""

    def __init__(self, calls: Calls) -> None:
        """Take whom to ask."""
        self._calls = calls

    def find(self, keys: Iterable[str]) -> Mapping[str, model.CacheEntry]:
        """Return what is there under these keys, by key."""
        found: dict[str, model.CacheEntry] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            some = wire.CacheKeys(keys=tuple(wanted[start : start + _KEYS_AT_ONCE]))
            found |= self._calls.post(
                self._calls.latest, "/cache/find", some, wire.CacheFound
            ).entries
        return found

    def keep(self, entries: Iterable[model.CacheEntry]) -> None:
        """Keep values, instead of what was there under their keys."""
        for entry in entries:
            kept = wire.CacheKept(entries=(entry,))
            self._calls.post(entry.flow_run_id, "/cache/keep", kept, wire.Nothing)

    def claim(
        self, key: str, holder: str, *, seconds: float, flow_run_id: str = "", label: str = ""
    ) -> Granted | Awaited:
        """Let one holder at a time compute the value of a key."""
        claim = wire.CacheClaim(key=key, holder=holder, seconds=seconds, label=label)
        return _decided(self._calls.post(flow_run_id, "/cache/claim", claim, wire.Decision))

    def withdraw(self, flow_run_id: str, runs: Iterable[TaskRunKey]) -> int:
        """Forget what some task runs of a flow run have computed; return how much that was."""
        keys, removed = list(runs), 0
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            which = wire.Withdrawal(runs=tuple(keys[start : start + _KEYS_AT_ONCE]))
            removed += self._calls.post(
                flow_run_id, "/cache/withdraw", which, wire.Removed, **_PATIENT
            ).removed
        return removed


class Past:
    """Reads what was recorded of a flow run."""

    def __init__(self, calls: Calls, settle: Settle) -> None:
        """Take whom to ask."""
        self._calls = calls
        self._settle = settle

    def numbers(self, flow_run_id: str) -> model.RunNumbers:
        """Return where the record goes on counting."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        return self._calls.get(flow_run_id, "/numbers", model.RunNumbers, **_PATIENT)

    def blocks(self, flow_run_id: str) -> Iterator[model.TaskRunBlock]:
        """Yield the task runs that completed at once, in blocks."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        last = -1
        while page := self._calls.raw(
            "GET", flow_run_id, "/blocks", query={"after": last}, **_PATIENT
        ):
            at = 0
            while at < len(page):
                last, size = _FRAME.unpack_from(page, at)
                at += _FRAME.size + size
                yield model.decode_block(page[at - size : at])

    def rows(self, flow_run_id: str) -> Iterator[model.TaskRun]:
        """Yield the task runs that have a row of their own; it counts instead of a block."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        return itertools.chain.from_iterable(pages(self._calls, flow_run_id, "/rows"))

    def nodes(self, flow_run_id: str) -> list[model.GraphNode]:
        """Return the calls of the body, in the order of ids."""
        return list(self._graph(flow_run_id, "/nodes").read_nodes())

    def edges(self, flow_run_id: str) -> list[model.Edge]:
        """Return what the calls depend on."""
        return list(self._graph(flow_run_id, "/edges").read_edges())

    def _graph(self, flow_run_id: str, path: str) -> model.GraphBlock:
        self._settle(flow_run_id, PATIENCE_SECONDS)
        return model.decode_graph(
            self._calls.raw("GET", flow_run_id, path, patience=PATIENCE_SECONDS)
        )


def pages(
    calls: Calls,
    flow_run_id: str,
    path: str,
    state_types: Collection[model.StateType] | None = None,
) -> Iterator[list[model.TaskRun]]:
    """Yield task runs, page by page."""
    query: dict[str, object] = {"limit": _ROWS_AT_ONCE}
    if state_types is not None:
        query["state"] = [kind.value for kind in state_types]
    while True:
        page = calls.get(flow_run_id, path, list[model.TaskRun], query=query, **_PATIENT)
        yield page
        if len(page) < _ROWS_AT_ONCE:
            return
        query |= {"node": page[-1].key.node, "item": page[-1].key.map_index}


def _decided(decision: wire.Decision) -> Granted | Awaited:
    return Granted() if decision.granted else Awaited(decision.reason)
