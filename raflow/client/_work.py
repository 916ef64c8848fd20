"""What a worker asks of a service."""

from __future__ import annotations

from typing import Final, TypeVar
from urllib.parse import quote

from raflow.client._http import READ_SECONDS, Connection, check_url
from raflow.model import DeploymentVersion, Poll, Polled, wire

T = TypeVar("T")

_CODE_SECONDS: Final = 60.0


class WorkClient:
    """Takes runs out of a pool of a service, and tells it what became of them; for any thread.

    Each method raises StoreError while the service is away, and AccessError if it is none of the
    token's business.
    """

    def __init__(self, url: str, token: str) -> None:
        """Take the service and the token of a worker; nothing is asked yet.

        Raises:
            ConfigError: The URL is none.
        """
        self._connection = Connection(check_url(url))
        self._token = token

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def poll(self, ask: Poll, *, wait: float) -> Polled:
        """Take runs; wait so many seconds for some."""
        return self._post("/dispatch/poll", ask, Polled, wait=wait)

    def seen(self, ask: Poll) -> Polled:
        """Say that the worker is there."""
        return self._post("/dispatch/seen", ask, Polled)

    def leave(self, worker_id: str) -> None:
        """Say that the worker ends."""
        self._post("/dispatch/leave", wire.Left(worker_id=worker_id), wire.Nothing)

    def version(self, flow_run_id: str) -> DeploymentVersion:
        """Return the version of its deployment that a run is of."""
        data = self._connection.ask("GET", f"{_of(flow_run_id)}/version", token=self._token)
        return wire.load_json(DeploymentVersion, data)

    def bundle(self, digest: str) -> bytes:
        """Return the archive of a bundle."""
        path = f"/dispatch/bundles/{digest}"
        return self._connection.ask("GET", path, token=self._token, seconds=_CODE_SECONDS)

    def give_back(
        self, flow_run_id: str, incarnation: int, *, message: str, permanent: bool
    ) -> bool:
        """Give back a run that has not begun."""
        told = wire.GivenBack(incarnation=incarnation, message=message, permanent=permanent)
        return self._post(f"{_of(flow_run_id)}/give-back", told, wire.Done).done

    def died(self, flow_run_id: str, incarnation: int, *, message: str) -> bool:
        """Tell that the process of a run is surely gone."""
        told = wire.Died(incarnation=incarnation, message=message)
        return self._post(f"{_of(flow_run_id)}/died", told, wire.Done).done

    def move(self, flow_run_id: str, *, by: str, message: str) -> None:
        """Have a run suspended, for another worker to go on with it."""
        told = wire.Moved(by=by, message=message)
        self._post(f"{_of(flow_run_id)}/move", told, wire.Nothing)

    def _post(self, path: str, body: object, kind: type[T], *, wait: float = 0.0) -> T:
        data = self._connection.ask(
            "POST",
            path,
            token=self._token,
            query={"wait": wait} if wait else None,
            body=wire.dump_json(body),
            seconds=wait + READ_SECONDS,
        )
        return wire.load_json(kind, data)


def _of(flow_run_id: str) -> str:
    return f"/dispatch/{quote(flow_run_id, safe='')}"
