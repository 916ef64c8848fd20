"""Hints that something may be ready. They only make things fast: who waits looks by itself, too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator


class Signals:
    """Topics on which coroutines wait, and which any thread may wake."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, set[Waiter]] = defaultdict(set)
        self._told: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)

    def wake(self, *topics: str) -> None:
        """Wake all that wait on one of these topics; from any thread, and never blocks."""
        with self._lock:
            found = {waiter for topic in topics for waiter in self._waiting.get(topic, ())}
            told = [tell for topic in topics for tell in self._told.get(topic, ())]
        for waiter in found:
            waiter.wake()
        for tell in told:
            tell()

    def tell(self, topic: str, whom: Callable[[], None]) -> None:
        """Have something called, which must not block, whenever a topic is woken."""
        with self._lock:
            self._told[topic].append(whom)

    @contextlib.contextmanager
    def registered(self, *topics: str) -> Iterator[Waiter]:
        """Wait on topics: register before looking, so that no wake between the two is lost."""
        waiter = Waiter(asyncio.get_running_loop())
        with self._lock:
            for topic in topics:
                self._waiting[topic].add(waiter)
        try:
            yield waiter
        finally:
            self._forget(waiter, topics)

    def _forget(self, waiter: Waiter, topics: Iterable[str]) -> None:
        with self._lock:
            for topic in topics:
                self._waiting[topic].discard(waiter)
                if not self._waiting[topic]:
                    del self._waiting[topic]


class Waiter:
    """One coroutine that waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Let it go on; from any thread."""
        # The loop may have ended meanwhile: then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self, seconds: float) -> bool:
        """Wait for a wake; return False if none has come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken
