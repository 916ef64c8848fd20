"""The routes: each reads what is asked, calls a verb of the service, and shows what it gives."""

from __future__ import annotations

from raflow.server.routes import (
    _backfills,
    _bundles,
    _deployments,
    _dispatch,
    _events,
    _flows,
    _health,
    _inputs,
    _limits,
    _pools,
    _record,
    _runs,
    _schedules,
    _task_runs,
    _tokens,
)

__all__ = ["API", "PLAIN"]

API = [
    module.routes.router
    for module in (
        _backfills,
        _bundles,
        _deployments,
        _dispatch,
        _events,
        _flows,
        _health,
        _inputs,
        _limits,
        _pools,
        _record,
        _runs,
        _schedules,
        _task_runs,
        _tokens,
    )
]
"""What stands below `/api/v1`."""
PLAIN = [_health.plain.router, _tokens.plain.router]
"""What stands at the root: for load balancers and browsers."""
