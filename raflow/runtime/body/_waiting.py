"""Waiting on an event loop for what other threads do."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any


async def wait_async(future: Future[Any]) -> None:
    """Wait for another thread's future without blocking; giving up leaves the future alone."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: Future[Any]) -> None:
        loop.call_soon_threadsafe(wake)

    future.add_done_callback(done)
    await waiter
