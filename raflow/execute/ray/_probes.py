"""Watches Ray from outside: its control service, its raylet here, and its nodes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from raflow.execute.ray._connect import Link, gcs_is_reachable, probe
from raflow.execute.ray._sockets import Connections

_LOOK_SECONDS: Final = 1.0
_NODES_SECONDS: Final = 1.5
_NODES_AT_ONCE: Final = 32
_NODE_SECONDS: Final = 0.5
_CONNECT_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 30.0
"""How long the control service of a cluster that was joined may be away: it may be restarted. Ray
ends a driver, without a word, after 60 s."""

_log = logging.getLogger(__name__)


class Probes:
    """Tells when Ray is gone, once, and of nodes that have died."""

    def __init__(
        self,
        link: Link,
        *,
        gone: Callable[[str], None],
        nodes: Callable[[], Mapping[str, tuple[str, int]]],
        nodes_died: Callable[[frozenset[str]], None],
        is_busy: Callable[[], bool],
    ) -> None:
        """Begin to watch.

        Args:
            link: The connection with Ray.
            gone: Told why Ray is gone.
            nodes: Asks Ray for the nodes that live, and where they listen; may take long, or raise.
            nodes_died: Told of the nodes that live when one of the others has died.
            is_busy: Whether anything is in flight; else nobody asks for nodes.
        """
        self._link = link
        self._gone = gone
        self._nodes = nodes
        self._nodes_died = nodes_died
        self._is_busy = is_busy
        self._dead: set[str] = set()
        """Nodes that do not listen, though Ray says that they live."""
        self._turn = 0
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._watch, name="raflow-probe", daemon=True)]
        if not link.local:
            watch = threading.Thread(target=self._watch_nodes, name="raflow-nodes", daemon=True)
            self._threads.append(watch)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop watching; a Ray that does not answer is not waited for."""
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=_CONNECT_SECONDS + _LOOK_SECONDS)

    def _watch(self) -> None:
        away = Absence(0.0 if self._link.local else PATIENCE_SECONDS)
        while not self._closed.wait(_LOOK_SECONDS):
            story = probe(self._link)
            if self._link.token is not None:
                self._link.token.keep()
            gcs = self._link.gcs
            if story is None and gcs is not None and gcs.process is None:
                there = gcs_is_reachable(gcs, _CONNECT_SECONDS)
                story = away.look(time.monotonic(), there=there)
            if story is not None:
                if not self._closed.is_set():
                    self._gone(story)
                return

    def _watch_nodes(self) -> None:
        before: frozenset[str] = frozenset()
        connections = Connections()
        while not self._closed.wait(_NODES_SECONDS):
            if not self._is_busy():
                continue
            connections.look()
            if self._closed.is_set():
                return
            try:
                nodes = self._nodes()
            except Exception as error:
                _log.debug("Ray does not say which nodes it has: %r", error)
                continue
            # Ray itself notices after a quarter of a minute that a raylet was killed.
            silent = {node for node, place in self._some(nodes).items() if refuses(*place)}
            self._dead = (self._dead | silent) & nodes.keys()
            alive = frozenset(nodes.keys() - self._dead)
            if before - alive:
                self._nodes_died(alive)
            before = alive

    def _some(self, nodes: Mapping[str, tuple[str, int]]) -> Mapping[str, tuple[str, int]]:
        """Choose the nodes to look at this time: some, in turn."""
        names = sorted(nodes.keys() - self._dead)
        start = self._turn % max(1, len(names))
        self._turn = start + _NODES_AT_ONCE
        chosen = (names + names)[start:][: min(len(names), _NODES_AT_ONCE)]
        return {name: nodes[name] for name in chosen}


def refuses(host: str, port: int) -> bool:
    """Tell whether a machine says that nobody listens at a port; False if it says nothing."""
    try:
        socket.create_connection((host, port), timeout=_NODE_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


class Absence:
    """Decides when a control service that does not answer is gone."""

    def __init__(self, patience: float) -> None:
        """Give it so many seconds."""
        self._patience = patience
        self._since: float | None = None

    def look(self, now: float, *, there: bool) -> str | None:
        """Take note of whether it answers; returns the story once it is gone."""
        if there:
            if self._since is not None:
                _log.warning("The control service of Ray (GCS) is back")
            self._since = None
            return None
        if self._since is None:
            self._since = now
            if self._patience:
                _log.warning(
                    "The control service of Ray (GCS) does not answer. The run is ended if it is "
                    "not back in %g seconds",
                    self._patience,
                )
        if now - self._since < self._patience:
            return None
        host = socket.gethostname()
        return (
            "the control service of Ray (GCS) died, or cannot be reached from "
            f"{host}; without it Ray starts nothing, and ends this process after a minute"
        )
