"""Checks of the service that keeps the record, where `RAFLOW_API_URL` names one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from raflow.cli.doctor._finding import Finding, doubtful, sound
from raflow.cli.doctor._record import of_clock

if TYPE_CHECKING:
    from raflow.config import Settings

_AUTHORS: Final = frozenset({"author", "admin"})


def of_health(told: Mapping[str, Any], ours: str) -> Finding:
    """Judge what a service says of itself.

    Args:
        told: Its answer to `GET /health`.
        ours: The version of raflow here.
    """
    theirs = told["versions"].get("raflow", "")
    found = f"raflow {theirs}, its database answers in {told['database_seconds'] * 1000:.1f} ms"
    stuck = [loop["name"] for loop in told["loops"] if not loop["is_well"]]
    if stuck:
        remedy = "Look into its log; start it again if nothing else helps."
        return doubtful(f"{found}; stuck: {', '.join(stuck)}", remedy)
    if theirs != ours:
        return doubtful(f"{found}; here is raflow {ours}", "Use the same version on both sides.")
    return sound(found)


def _service(settings: Settings) -> Finding:
    from raflow._util import version_of

    return of_health(_ask(settings, "/health"), version_of("raflow"))


def _access(settings: Settings) -> Finding:
    me = _ask(settings, "/me")
    found = f"{me['actor']}, as {me['role']}"
    if me["role"] not in _AUTHORS:
        remedy = "Set RAFLOW_API_TOKEN to the token of an author: a run needs one to be recorded."
        return doubtful(found, remedy)
    return sound(found)


def _clock(settings: Settings) -> Finding:
    before = time.time()
    at = datetime.fromisoformat(_ask(settings, "/health")["at"]).timestamp()
    return of_clock((before + time.time()) / 2 - at, "the service")


def _spool(settings: Settings) -> Finding:
    from raflow import client

    waiting = client.Spool(settings.home / "spool").waiting()
    if all(one.is_being_sent for one in waiting):
        return sound("nothing waits here that nobody sends")
    number = sum(one.batches for one in waiting if not one.is_being_sent)
    return doubtful(f"{number:,} batches of records wait here", "Run `raflow spool send`.")


def _ask(settings: Settings, path: str) -> Any:
    import orjson

    from raflow import client

    connection = client.Connection(client.check_url(settings.api_url))
    try:
        token = settings.api_token.get_secret_value()
        return orjson.loads(connection.ask("GET", path, token=token))
    finally:
        connection.close()


CHECKS: Final[tuple[tuple[str, Callable[[Settings], Finding]], ...]] = (
    ("service", _service),
    ("access", _access),
    ("clock", _clock),
    ("spool", _spool),
)
