"""Runs of deployments on their way to workers and back; who has which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from raflow import model
from raflow._util import crash_point
from raflow.store._database import _clock
from raflow.store._reading import _queries
from raflow.store._rows import _service_tables
from raflow.store._work import _claims, _orders, _places, _returns, _waits, _workers

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_table = _service_tables.dispatches


class Dispatches:
    """Runs of deployments that are not over: ordered, handed out, given back.

    Each method is one transaction. Times are by the clock of the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- Ordering ---------------------------------------------------------------------------------

    def order(self, orders: Sequence[model.RunOrder]) -> list[model.Ordered]:
        """Order runs: all of them, or none.

        An order whose key, or whose flow run, was ordered before is that order.

        Returns:
            For each order its flow run: its own, or the one of an order before.

        Raises:
            ConflictError: A key was used for something else.
        """

        def write(connection: sa.Connection) -> list[model.Ordered]:
            ordered = _orders.order(connection, orders)
            crash_point("order.before_commit")
            return ordered

        ordered = self._database.write(write)
        crash_point("order.after_commit")
        return ordered

    def forget_keys(self, seconds: float, *, limit: int = 10_000) -> int:
        """Delete idempotency keys that are older than this; whoever comes with one orders anew.

        Args:
            seconds: How old.
            limit: At most so many at once, the oldest first. Default: 10,000.

        Returns:
            How many were deleted; `limit`, if there may be more of them.
        """
        return self._database.write(lambda c: _orders.forget_keys(c, seconds, limit))

    def requeue(
        self, flow_run_id: str, *, kind: model.Work = model.Work.RESUME, max_resumes: int = 3
    ) -> None:
        """Have a worker go on with a run that did not complete, because a person wants it.

        Args:
            flow_run_id: A run of a deployment.
            kind: Whether it shall go on, or be brought to its end.
            max_resumes: How often it then goes on by itself after its process died.

        Raises:
            NotFoundError: No such flow run was recorded.
            ResumeError: It completed, or is none of a deployment.
            RunIsAliveError: A worker has it.
        """
        self._database.write(
            lambda c: _returns.requeue(c, flow_run_id, kind=kind, max_resumes=max_resumes)
        )

    def cancel_waiting(self, flow_run_id: str, *, message: str) -> bool:
        """Cancel a run that has not begun, even if a worker has just taken it.

        Returns:
            False, having changed nothing, if it has begun: it must be asked.
        """
        return self._database.write(
            lambda c: _returns.cancel_waiting(c, flow_run_id, message=message)
        )

    def cancel(self, flow_run_id: str, *, by: str, message: str = "") -> model.RunRequest:
        """Cancel a run, whether it is one of a deployment or not.

        One that has not begun is over then. Of one that no process has, as it is suspended or waits
        to go on, a worker is told to bring it to its end. Any other is asked; see `Requests.ask`.

        Raises:
            NotFoundError: No such flow run was recorded.
            RunHasEndedError: It is over.
        """
        return self._database.write(
            lambda c: _returns.cancel(c, flow_run_id, by=by, message=message)
        )

    # --- For workers ------------------------------------------------------------------------------

    def claim(
        self, pool: str, worker_id: str, *, most: int, seconds: float, claim: str
    ) -> list[model.Claim]:
        """Give waiting runs of a pool to a worker: higher priority first, then what is due first.

        Args:
            pool: Name of the pool.
            worker_id: Who gets them.
            most: At most so many.
            seconds: How long each run is the worker's without being renewed.
            claim: Unique to this claim. The same again has the same answer, in case that was lost.

        Returns:
            Runs, of which nothing has begun. None if the pool is paused or full.

        Raises:
            NotFoundError: There is no such pool.
        """

        def write(connection: sa.Connection) -> list[model.Claim]:
            claims = _claims.claim(
                connection, pool, worker_id, most=most, seconds=seconds, token=claim
            )
            crash_point("claim.before_commit")
            return claims

        claims = self._database.write(write)
        crash_point("claim.after_commit")
        return claims

    def give_back(
        self, flow_run_id: str, incarnation: int, *, message: str, permanent: bool = False
    ) -> bool:
        """Put a run back that its worker does not begin; another one may have it after a while.

        Args:
            flow_run_id: The run.
            incarnation: That of the claim.
            message: Why, for people.
            permanent: Whether nobody could begin it: then it fails. Default: only if it was given
                back more than ten times.

        Returns:
            Whether it was the worker's, and had not begun.
        """
        return self._database.write(
            lambda c: _returns.give_back(
                c, flow_run_id, incarnation, message=message, permanent=permanent
            )
        )

    def hand_over(self, flow_run_id: str, *, by: str, message: str) -> None:
        """Have a run suspended by the worker that has it, for another one to go on with.

        Once it is, it waits for that one, whatever has become of the first.

        Raises:
            NotFoundError: No such flow run was recorded.
            RunHasEndedError: It is over.
        """
        self._database.write(lambda c: _returns.hand_over(c, flow_run_id, by=by, message=message))

    def worker_seen(
        self, info: model.WorkerInfo, *, seconds: float, claimed: Sequence[str] = ()
    ) -> model.WorkerInfo:
        """Note that a worker is alive; its pool is made if there is none.

        Args:
            info: The worker as it sees itself.
            seconds: How long it counts as alive without being seen again.
            claimed: Ids of runs that it has and has not begun: their leases are renewed.

        Returns:
            The worker as others see it: somebody may want it to drain.
        """
        runs = tuple(claimed)
        return self._database.write(lambda c: _workers.seen(c, info, seconds=seconds, claimed=runs))

    def worker_gone(self, worker_id: str) -> int:
        """Forget a worker, and put back what it had and had not begun.

        What it had begun lives as long as its own lease.

        Returns:
            How many runs were put back.
        """
        return self._database.write(lambda c: _places.gone(c, worker_id))

    def drain(self, worker_id: str) -> None:
        """Have a worker take no more runs, and end when its own have ended.

        Raises:
            NotFoundError: There is no such worker.
        """
        self._database.write(lambda c: _workers.drain(c, worker_id))

    def workers(self, pool: str | None = None) -> list[model.WorkerInfo]:
        """Return workers, also those that have not been seen for long, by pool and name."""
        return self._database.read(lambda c: _workers.workers(c, pool))

    def lost_workers(self) -> list[model.WorkerInfo]:
        """Return workers that have not been seen in time, those that fell silent first first."""
        return self._database.read(_workers.lost)

    # --- Pools ------------------------------------------------------------------------------------

    def set_pool(self, pool: model.Pool) -> None:
        """Make a pool, or change it; what is under way goes on.

        Raises:
            ConfigError: It has no name, or its concurrency is negative.
        """
        self._database.write(lambda c: _workers.set_pool(c, pool))

    def remove_pool(self, name: str) -> None:
        """Remove a pool.

        Raises:
            NotFoundError: There is no such pool.
            ConfigError: It has runs that are not over.
        """
        self._database.write(lambda c: _workers.remove_pool(c, name))

    def pools(self) -> list[model.PoolState]:
        """Return every pool and what goes on in it, sorted by name."""
        return self._database.read(lambda c: _workers.pool_states(c, None))

    def pool(self, name: str) -> model.PoolState:
        """Return a pool and what goes on in it.

        Raises:
            NotFoundError: There is no such pool.
        """
        return self._database.read(lambda c: _workers.pool_states(c, name)[0])

    # --- Looking after them -----------------------------------------------------------------------

    def dispatch(self, flow_run_id: str) -> model.Dispatch | None:
        """Return where a run of a deployment stands; None: it is over, or none of a deployment."""
        found = self._database.read(
            lambda c: _places.places(c, _queries.of(_table, flow_run_id), 1)
        )
        return found[0] if found else None

    def snapshot(self, flow_run_id: str) -> model.WaitSnapshot:
        """Return all that tells why a run does not go on, as it is at one moment.

        Raises:
            NotFoundError: No such flow run was recorded.
        """
        return self._database.read(lambda c: _waits.snapshot(c, flow_run_id))

    def due_in(self, pool: str) -> float | None:
        """Return in how many seconds the first waiting run of a pool may begin; None: none waits.

        0 if it may begin now, as far as its time is concerned.
        """
        query = sa.select(sa.func.min(_table.c.begins_at)).where(
            _table.c.pool == pool, _table.c.stage == model.Stage.WAITING.value
        )

        def read(connection: sa.Connection) -> float | None:
            first = connection.execute(query).scalar()
            return None if first is None else max(0.0, first - _clock.now(connection))

        return self._database.read(read)

    def forgive(self, *, silence: float) -> bool:
        """Note that somebody looks after runs, and whether nobody did for long.

        Call it before judging who is dead. After a silence, in which nobody could have renewed a
        lease with the service, the leases of workers and of their runs become longer by as much.

        Args:
            silence: So many seconds without a call are long.

        Returns:
            Whether there was such a silence: nobody is to be judged yet.
        """
        return self._database.write(lambda c: _places.forgive(c, silence))

    def due_questions(self, limit: int = 100) -> list[model.InputRequest]:
        """Return questions of suspended runs whose time is over: their default is the answer."""
        return self._database.read(lambda c: _places.due_questions(c, limit))

    def dead(self, limit: int = 100) -> list[model.Dispatch]:
        """Return runs that a worker has whose lease is over, those that began first first."""
        return self._database.read(lambda c: _places.dead(c, limit))

    def put_back(self, flow_run_id: str, *, message: str, died: int | None = None) -> bool:
        """Put a run back whose process is gone.

        One that had not begun waits for another worker. One that had begun goes on in another
        worker, or is brought to its end there if it has gone on too often or was being cancelled.

        Args:
            flow_run_id: The run.
            message: What became of its process, for people.
            died: The number of the process, if it is surely gone. Default: that is judged by the
                lease.

        Returns:
            False, having changed nothing, if somebody drives it.
        """
        crash_point("reap.before_put_back")
        done = self._database.write(
            lambda c: _returns.put_back(c, flow_run_id, message=message, died=died)
        )
        crash_point("reap.after_put_back")
        return done

    def mark_late(self, *, seconds: float, limit: int = 1000) -> int:
        """Note which runs were due so long ago and have no worker; return how many."""
        return self._database.write(lambda c: _places.mark_late(c, seconds, limit))

    def release_held(self) -> int:
        """Let held runs wait for workers whose schedules have no run under way; return how many.

        As a rule the end of the run before does that; two ends at the same time may miss it.
        """
        return self._database.write(_places.release_held)
