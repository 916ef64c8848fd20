"""What workers ask of the service: runs, the code of runs, and to take runs back."""

from __future__ import annotations

import dataclasses
from typing import Final

from raflow import errors, model
from raflow.model import Claim, Poll, Polled, TokenKind
from raflow.service._record import TOKEN_SECONDS
from raflow.service._signals import Signals
from raflow.store import Store

_LEASE_SECONDS: Final = 30.0
"""So long a worker, and a run that it has not begun, is waited for without a word of it."""
_LOOK_SECONDS: Final = 1.0
"""How often it is looked for runs that came another way than through this server."""


class PoolWork:
    """Hands out runs to the workers of one pool, or of any, and takes runs back."""

    def __init__(self, store: Store, signals: Signals, token: model.Token, *, actor: str) -> None:
        """Take whose runs they are.

        Args:
            store: The record.
            signals: What wakes those who wait for runs.
            token: The token of the worker. Its scope is the only pool that it may work for;
                empty: any.
            actor: Its name, for the record.
        """
        self._store = store
        self._signals = signals
        self._token = token
        self._actor = actor

    # --- Taking runs ------------------------------------------------------------------------------

    def seen(self, ask: Poll) -> Polled:
        """Note that a worker is there, and renew the leases of what it has and has not begun.

        Raises:
            AccessError: It is none of the pool of the token.
        """
        self._check_pool(ask.info.pool)
        info = dataclasses.replace(ask.info, token_id=self._token.id)
        known = self._store.work.worker_seen(info, seconds=_LEASE_SECONDS, claimed=ask.waiting)
        if known.draining:
            self._signals.wake(f"worker:{info.id}")
        return Polled(drain=known.draining)

    def take(self, ask: Poll, *, is_first: bool) -> Polled | float:
        """Give runs to a worker that was `seen`.

        Args:
            ask: The worker, and how many it wants.
            is_first: Whether it is not asked again, after a wait.

        Returns:
            Runs, or why there will be none; or in how many seconds to look again.
        """
        pool, work = ask.info.pool, self._store.work
        known = next((one for one in work.workers(pool) if one.id == ask.info.id), None)
        if known is None or known.draining:
            return Polled(drain=known is not None)
        # What was taken by a claim whose answer was lost waits no more; only the claim finds it.
        due = 0.0 if is_first else work.due_in(pool)
        if due is None or due > 0.0:
            return min(_LOOK_SECONDS, due or _LOOK_SECONDS)
        claims = work.claim(
            pool, ask.info.id, most=ask.most, seconds=_LEASE_SECONDS, claim=ask.claim
        )
        if not claims:
            return _LOOK_SECONDS
        self._signals.wake("feed")
        return Polled(claims=tuple(map(self._with_token, claims)))

    def _with_token(self, claim: Claim) -> Claim:
        run = claim.flow_run.id
        _, text = self._store.tokens.make(
            TokenKind.RUN, scope=run, name=self._actor, actor=self._actor, seconds=TOKEN_SECONDS
        )
        return dataclasses.replace(claim, token=text)

    def version(self, flow_run_id: str) -> model.DeploymentVersion:
        """Return the version of its deployment that a run is of.

        Raises:
            NotFoundError: There is no such run of a deployment, or its deployment is gone.
        """
        origin = self._origin(flow_run_id)
        return self._store.deployments.version(origin.deployment, origin.version)

    # --- Giving runs back -------------------------------------------------------------------------

    def give_back(
        self, flow_run_id: str, incarnation: int, *, message: str, permanent: bool
    ) -> bool:
        """Put a run back that its worker does not begin; see `Dispatches.give_back`."""
        pool = self._origin(flow_run_id).pool
        done = self._store.work.give_back(
            flow_run_id, incarnation, message=message, permanent=permanent
        )
        self._signals.wake(f"pool:{pool}", "feed")
        return done

    def died(self, flow_run_id: str, incarnation: int, *, message: str) -> bool:
        """Put a run back whose process is surely gone; see `Dispatches.put_back`."""
        pool = self._origin(flow_run_id).pool
        done = self._store.work.put_back(flow_run_id, message=message, died=incarnation)
        self._signals.wake(f"pool:{pool}", f"run:{flow_run_id}", "feed")
        return done

    def move(self, flow_run_id: str, *, by: str, message: str) -> None:
        """Have a run suspended, for another worker; see `Dispatches.hand_over`."""
        self._origin(flow_run_id)
        self._store.work.hand_over(flow_run_id, by=by, message=message)
        self._signals.wake(f"run:{flow_run_id}", "feed")

    def leave(self, worker_id: str) -> None:
        """Forget a worker, and put back what it had and had not begun."""
        known = next((one for one in self._store.work.workers() if one.id == worker_id), None)
        if known is None:
            return
        self._check_pool(known.pool)
        self._store.work.worker_gone(worker_id)
        self._signals.wake(f"worker:{worker_id}", f"pool:{known.pool}", "feed")

    # --- Whose they are ---------------------------------------------------------------------------

    def _origin(self, flow_run_id: str) -> model.RunOrigin:
        origin = self._store.flow_run(flow_run_id).origin
        if origin is None:
            raise errors.NotFoundError.of("run of a deployment", flow_run_id, ())
        self._check_pool(origin.pool)
        return origin

    def _check_pool(self, pool: str) -> None:
        if self._token.scope not in {"", pool}:
            raise errors.AccessError(
                f"This token is one for workers of pool {self._token.scope!r}, not of {pool!r}."
            )
