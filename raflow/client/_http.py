"""The connection to a service, and its errors as those of raflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson

from raflow import errors

PREFIX: Final = "/api/v1"
READ_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 2.0
_KEPT_SECONDS: Final = 15.0
"""How long a connection that nobody uses stays open: less than the server keeps it."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_AWAY: Final = frozenset({429, 500, 502, 503, 504})
_LOG: Final = logging.getLogger("raflow.client")


def check_url(url: str) -> str:
    """Return the URL of a service without a slash at its end.

    Raises:
        ConfigError: It is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise errors.ConfigError(
            f"RAFLOW_API_URL={url!r} is not the URL of a service. Write https://host:port."
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _LOG.warning("%s is not encrypted: whoever is on the way can read the token.", url)
    return url.rstrip("/")


class _Quiet(logging.Filter):
    """Keeps our own requests out of the log, which tasks of the user may write to, too."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is about something else."""
        return f" {self._url}{PREFIX}/" not in record.getMessage()


class Connection:
    """Asks one service; for use by any thread."""

    def __init__(self, url: str) -> None:
        """Take its URL; nothing is asked yet."""
        self.url = url
        self._quiet = _Quiet(url)
        logging.getLogger("httpx").addFilter(self._quiet)
        self._client = httpx.Client(
            base_url=f"{url}{PREFIX}",
            timeout=httpx.Timeout(READ_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEPT_SECONDS),
        )

    def ask(
        self,
        method: str,
        path: str,
        *,
        token: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        media_type: str = "application/json",
        seconds: float = READ_SECONDS,
    ) -> bytes:
        """Send a request; return the body of the answer.

        Args:
            method: Of HTTP.
            path: Below the prefix.
            token: Who asks.
            query: Parameters.
            body: What is sent.
            media_type: Of the body.
            seconds: How long the answer is waited for.

        Raises:
            StoreError: The service is away, or cannot answer now.
            RaflowError: What the service raised.
        """
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = media_type
        try:
            answer = self._client.request(
                method,
                path,
                params=query,
                content=body,
                headers=headers,
                timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise errors.StoreError(
                f"The service at {self.url} cannot be reached: {why}. Check that it runs, and "
                "RAFLOW_API_URL."
            ) from error
        if not answer.is_success:
            raise self._error(answer)
        return answer.content

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
        logging.getLogger("httpx").removeFilter(self._quiet)

    def _error(self, answer: httpx.Response) -> errors.RaflowError:
        try:
            told = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            told = {}
        if not isinstance(told, dict):
            told = {}
        detail = str(told.get("detail") or answer.reason_phrase or "nothing")
        found = _CLASSES.get(str(told.get("code", "")))
        if answer.status_code in _AWAY or (found is not None and found is errors.StoreError):
            return errors.StoreError(
                f"The service at {self.url} cannot answer now ({answer.status_code}): {detail}"
            )
        if found is not None:
            return found(detail, **_details(told))
        if answer.status_code in {413, 415}:
            return errors.BatchError(f"The service at {self.url} takes no such batch: {detail}")
        return errors.ConfigError(
            f"The service at {self.url} answers {answer.status_code}: {detail} Check "
            "RAFLOW_API_URL, and that the service is of this version of raflow."
        )


def _details(told: Mapping[str, Any]) -> dict[str, Any]:
    near = told.get("closest")
    return {"closest": near} if near else {}


def _all(cls: type[errors.RaflowError]) -> Iterator[type[errors.RaflowError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _all(below)


_CLASSES: Final = {
    cls.code: cls for cls in _all(errors.RaflowError) if "code" in vars(cls) and cls.code
}
"""The errors of raflow by the code that stands in problem documents."""
