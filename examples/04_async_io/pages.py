"""Many slow answers at once: an async task, mapped over the chapters of a web service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Annotated, TypedDict

import httpx
from pydantic import Field

from raflow import flow, task, unmapped

SECONDS_PER_ANSWER = 0.25


class Page(TypedDict):
    number: int
    squares: list[int]


class Report(TypedDict):
    pages: int
    numbers: int
    total: int
    seconds_waited: float
    """The waiting times of all requests, one after the other."""
    seconds_taken: float
    """What it took from the first request to the last answer."""


class Answer(BaseHTTPRequestHandler):
    """A page of square numbers, after a wait."""

    def do_GET(self) -> None:
        time.sleep(SECONDS_PER_ANSWER)
        number = int(self.path.removeprefix("/page/"))
        squares = [n * n for n in range(10 * number, 10 * number + 10)]
        body = json.dumps(Page(number=number, squares=squares)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the terminal for the flow."""


class Service(ThreadingHTTPServer):
    request_queue_size = 100  # the default of 5 would turn away most who come at the same moment


@contextmanager
def slow_service() -> Iterator[str]:
    """Run the service on this machine; yields its address."""
    with Service(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@task(retries=2, timeout_seconds=30)
async def fetch(numbers: list[int], address: str) -> list[Page]:
    """Fetch the pages of a chapter: all requests wait at the same time, on one connection pool."""
    async with httpx.AsyncClient(base_url=address) as client:
        answers = await asyncio.gather(*(client.get(f"/page/{number}") for number in numbers))
    return [answer.raise_for_status().json() for answer in answers]


@flow
async def pages(
    chapters: Annotated[int, Field(ge=1, le=50)] = 4, length: Annotated[int, Field(ge=1)] = 10
) -> Report:
    """Fetch chapters of that many pages each, and add up what they say.

    The service runs in this process, on the loopback address: on a cluster of several machines the
    tasks elsewhere would not reach it.
    """
    numbers = [list(range(n * length, (n + 1) * length)) for n in range(chapters)]
    with slow_service() as address:
        begun = time.monotonic()
        fetched = await fetch.map(numbers, address=unmapped(address))
        taken = time.monotonic() - begun
    squares = [square for chapter in fetched for page in chapter for square in page["squares"]]
    return Report(
        pages=chapters * length,
        numbers=len(squares),
        total=sum(squares),
        seconds_waited=chapters * length * SECONDS_PER_ANSWER,
        seconds_taken=round(taken, 2),
    )


if __name__ == "__main__":
    print(asyncio.run(pages()))
