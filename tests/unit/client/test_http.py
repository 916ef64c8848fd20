"""What a service raises is raised here, too; and what is no answer of a service is told apart."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator

import orjson
import pytest

from raflow import errors
from raflow.client._http import Connection, check_url


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with what the path says: `/STATUS/CODE`."""

    def do_GET(self) -> None:
        _, _, _, status, code = self.path.split("/")
        problem = {"detail": f"It is {code}.", "code": code, "closest": ["near"]}
        body = b"<html>" if code == "html" else orjson.dumps(problem)
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found = Connection(f"http://127.0.0.1:{server.server_address[1]}")
    yield found
    found.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("409/raflow.fenced", errors.FencedError),
        ("404/raflow.not_found", errors.NotFoundError),
        ("404/raflow.unknown_limit", errors.UnknownLimitError),
        ("422/raflow.bad_batch", errors.BatchError),
        ("401/raflow.unauthenticated", errors.UnauthenticatedError),
        ("413/raflow.too_large", errors.BatchError),
        ("503/raflow.store", errors.StoreError),
        ("500/raflow.internal", errors.StoreError),
        ("502/html", errors.StoreError),
        ("429/raflow.too_many", errors.StoreError),
        ("404/html", errors.ConfigError),
        ("302/html", errors.ConfigError),
    ],
)
def test_errors_come_through(
    connection: Connection, answer: str, error: type[errors.RaflowError]
) -> None:
    with pytest.raises(error) as raised:
        connection.ask("GET", f"/{answer}", token="x")
    assert type(raised.value) is error


def test_our_requests_are_not_in_the_log_of_the_user(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert connection.ask("GET", "/200/x", token="x")
    assert caplog.records == []


def test_urls_are_checked(caplog: pytest.LogCaptureFixture) -> None:
    assert check_url("https://raflow.example/") == "https://raflow.example"
    assert not caplog.records
    check_url("http://raflow.example")
    assert "not encrypted" in caplog.text
    for url in ("", "raflow.example", "ftp://x", "http://", "http://x?y=1"):
        with pytest.raises(errors.ConfigError, match="RAFLOW_API_URL"):
            check_url(url)
