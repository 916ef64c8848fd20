"""What the process of a run asks of the service that records it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from raflow import errors, model
from raflow.model import Awaited, Granted, StateType, TaskRunKey, TokenKind, wire
from raflow.service._families import Families
from raflow.service._signals import Signals
from raflow.store import Store

TOKEN_SECONDS: Final = 30 * 86400.0
"""How long a run can be recorded with one token; then its process asks for another one."""
_LONGEST: Final = 3600.0
_PAGE_BYTES: Final = 8 << 20


def begin_record(store: Store, begin: wire.RecordBegin, *, actor: str) -> wire.RecordBegun:
    """Let somebody record a run, new or old.

    Raises:
        NotFoundError: There is no run such as is looked for.
        ConfigError: No run is named.
    """
    if begin.find:
        run_id = store.find_flow_run(begin.find).id
    elif begin.run_id:
        run_id = begin.run_id
    else:
        raise errors.ConfigError("Name the run that is to be recorded: `run_id`, or `find`.")
    try:
        root_id = store.line_of(run_id)[-1]
    except errors.NotFoundError:
        root_id = run_id
    _, text = store.tokens.make(
        TokenKind.RUN, scope=root_id, name=actor, actor=actor, seconds=TOKEN_SECONDS
    )
    return wire.RecordBegun(run_id=run_id, root_id=root_id, token=text)


class Recorded:
    """One run, for whoever may record its root run and all that belongs to it."""

    def __init__(
        self, store: Store, signals: Signals, families: Families, *, root_id: str, run_id: str
    ) -> None:
        """Take the run.

        Raises:
            NotFoundError: It does not belong to the root.
        """
        families.check(root_id, run_id)
        self._store = store
        self._signals = signals
        self._families = families
        self._root_id = root_id
        self._id = run_id

    # --- Leases and requests ----------------------------------------------------------------------

    def renew(self, wish: wire.LeaseRenewal) -> wire.Mail:
        """Renew the lease of a process."""
        requests = self._store.leases.renew(
            self._id,
            wish.incarnation,
            seconds=_bounded(wish.seconds),
            host=wish.host,
            pid=wish.pid,
            process_started=wish.process_started,
        )
        return wire.Mail(requests=requests)

    def take_over(self, wish: wire.LeaseBegin) -> wire.Incarnation:
        """Let a process take the run over; not one of a deployment, which workers drive."""
        run = self._store.flow_run(self._id)
        if run.origin is not None:
            raise errors.ResumeError(
                f"Flow run {run.name!r} is one of deployment {run.origin.deployment!r}: it goes on "
                f"when a worker of pool {run.origin.pool!r} takes it."
            )
        number = self._store.leases.begin_incarnation(
            self._id,
            host=wish.host,
            pid=wish.pid,
            process_started=wish.process_started,
            seconds=_bounded(wish.seconds),
            force=wish.force,
            gone=wish.gone,
        )
        self._signals.wake(f"run:{self._root_id}", "feed")
        return wire.Incarnation(incarnation=number)

    def let_go(self, which: wire.Incarnation) -> None:
        """Give the run back."""
        self._store.leases.let_go(self._id, which.incarnation)

    def lease(self) -> wire.LeaseStanding:
        """Return who has the run."""
        leases = self._store.leases
        return wire.LeaseStanding(lease=leases.get(self._id), is_alive=leases.is_alive(self._id))

    def mail(self, incarnation: int) -> wire.Mail:
        """Return what others ask of the run and its subflows."""
        requests = self._store.requests.open_in(self._id)
        try:
            fenced = self._store.flow_run(self._id).incarnation > incarnation > 0
        except errors.NotFoundError:
            fenced = False
        return wire.Mail(requests=requests, fenced=fenced)

    def answered(self, number: int, told: wire.RequestOutcome) -> None:
        """Note what became of a request.

        Raises:
            NotFoundError: It is none of this run.
        """
        if all(request.id != number for request in self._store.requests.of(self._id)):
            raise errors.NotFoundError.of("request", str(number), ())
        self._store.requests.answered(number, told.outcome or "taken")

    def note_processes(self, note: wire.ProcessNote) -> None:
        """Note processes that work for the run."""
        self._store.leases.note_processes(self._id, note.processes, ended=note.ended)

    def processes(self) -> Sequence[model.ProcessInfo]:
        """Return the processes that were noted."""
        return self._store.leases.processes(self._id)

    # --- Limits, values, people -------------------------------------------------------------------

    def acquire(self, wish: wire.SlotsWish) -> wire.Decision:
        """Take slots, or a place in line."""
        self._check_own(wish.request.flow_run_id, wish.request.holder)
        seconds = _bounded(wish.seconds)
        return _decision(self._store.limits.acquire(wish.request, seconds=seconds))

    def renew_slots(self, wish: wire.Seconds) -> wire.Holders:
        """Renew what the run holds."""
        kept = self._store.limits.renew(self._id, seconds=_bounded(wish.seconds))
        return wire.Holders(holders=tuple(sorted(kept)))

    def release(self, whose: wire.Holder) -> None:
        """Give back what a holder has."""
        self._check_own(self._id, whose.holder)
        self._store.limits.release(whose.holder)

    def release_all(self) -> None:
        """Give back what the run holds."""
        self._store.limits.release_all(self._id)

    def limits(self) -> Sequence[model.LimitState]:
        """Return every limit."""
        return self._store.limits.all()

    def find_values(self, wanted: wire.CacheKeys) -> wire.CacheFound:
        """Return values that were computed before."""
        return wire.CacheFound(entries=self._store.cache.find(wanted.keys))

    def keep_values(self, kept: wire.CacheKept) -> None:
        """Keep values that this run has computed."""
        for entry in kept.entries:
            self._check_own(entry.flow_run_id, f"{self._id}/")
        self._store.cache.keep(kept.entries)

    def claim_value(self, claim: wire.CacheClaim) -> wire.Decision:
        """Let one holder at a time compute a value."""
        self._check_own(self._id, claim.holder)
        found = self._store.cache.claim(
            claim.key,
            claim.holder,
            seconds=_bounded(claim.seconds),
            flow_run_id=self._id,
            label=claim.label,
        )
        return _decision(found)

    def withdraw_values(self, which: wire.Withdrawal) -> wire.Removed:
        """Forget what task runs of this run have computed."""
        return wire.Removed(removed=self._store.cache.withdraw(self._id, which.runs))

    def ask_person(self, question: model.InputRequest) -> model.InputRequest:
        """Ask people, or find the answer."""
        self._check_own(question.flow_run_id, f"{self._id}/")
        asked = self._store.requests.ask_person(question)
        self._signals.wake("feed")
        return asked

    def questions(self, *, open_only: bool) -> Sequence[model.InputRequest]:
        """Return what the run asks of people."""
        return self._store.requests.input_requests(flow_run_id=self._id, open_only=open_only)

    def let_default_count(self, number: int) -> model.InputRequest:
        """Answer a question with the default that it was asked with.

        Raises:
            NotFoundError: There is no such question, or it has no default.
        """
        for asked in self.questions(open_only=False):
            if asked.number == number and asked.default is not None:
                return self._store.requests.answer_person(
                    self._id, number, answer=asked.default, by=""
                )
        raise errors.NotFoundError.of("question with a default", str(number), ())

    # --- The record -------------------------------------------------------------------------------

    def paces(self, flow: str, fingerprint: str) -> Mapping[str, model.TaskPace]:
        """Return what earlier runs of the same code have learned about its tasks."""
        return self._store.paces(flow, fingerprint)

    def run(self) -> model.FlowRun:
        """Return the run."""
        return self._store.flow_run(self._id)

    def children(self) -> Sequence[model.FlowRun]:
        """Return the runs that its body has started, newest first."""
        return self._store.flow_runs(limit=None, parent=self._id)

    def states(self) -> Sequence[model.StateChange]:
        """Return what it went through."""
        return self._store.states(self._id)

    def result(self, key: TaskRunKey | None) -> model.ResultInfo | None:
        """Return what is known about a value."""
        return self._store.result(self._id, key)

    def numbers(self) -> model.RunNumbers:
        """Return where its record goes on counting."""
        return self._store.recall.numbers(self._id)

    def rows(self, *, after: TaskRunKey, limit: int) -> Sequence[model.TaskRun]:
        """Return task runs that have a row of their own."""
        return list(itertools.islice(self._store.recall.rows(self._id, after=after), limit))

    def task_runs(
        self, *, types: Collection[StateType] | None, after: TaskRunKey | None, limit: int
    ) -> Sequence[model.TaskRun]:
        """Return task runs."""
        return self._store.task_runs(self._id, state_types=types, after=after, limit=limit)

    def graph(self, *, edges: bool) -> bytes:
        """Return its calls, or what they depend on, as `model.encode_graph` writes them."""
        past = self._store.recall
        if edges:
            return model.encode_graph([], past.edges(self._id))
        return model.encode_graph(past.nodes(self._id), [])

    def blocks(self, *, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield blocks of task runs as they are kept: so many as fit into a page, at least one."""
        size = 0
        for number, content in self._store.recall.contents(self._id, after=after):
            yield number, content
            size += len(content)
            if size >= _PAGE_BYTES:
                return

    def _check_own(self, flow_run_id: str, holder: str) -> None:
        if flow_run_id != self._id or not holder.startswith(f"{self._id}/"):
            raise errors.AccessError(
                f"Whoever records flow run {self._id!r} does so for that one only: {holder!r} is "
                "not its own."
            )


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), _LONGEST)


def _decision(found: Granted | Awaited) -> wire.Decision:
    if isinstance(found, Awaited):
        return wire.Decision(granted=False, reason=found.reason)
    return wire.Decision(granted=True)
