"""The kernel finds out that the other end of a connection of Ray's has vanished."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from raflow.execute.ray._sockets import SILENCE_MILLISECONDS, VARIABLES, Connections


@contextlib.contextmanager
def connection(silence: int) -> Iterator[socket.socket]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence)
        yield one


def asks(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_a_connection_of_rays_is_watched_and_no_other_one() -> None:
    connections = Connections()
    with connection(SILENCE_MILLISECONDS) as rays, connection(20_000) as another:
        connections.look()
        assert (asks(rays), asks(another)) == (True, False)
        assert rays.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 2
        # What is known is not touched again.
        rays.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        connections.look()
        assert not asks(rays)
    connections.look()
    with connection(SILENCE_MILLISECONDS) as later:
        connections.look()
        assert asks(later)


@pytest.mark.parametrize("name", VARIABLES)
def test_rays_servers_are_not_asked_more_often_than_they_bear(name: str) -> None:
    """They would hang up, and what runs would end as crashed."""
    assert not name.endswith("_keepalive_time_ms")
