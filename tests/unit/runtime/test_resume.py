"""Whose lease counts as over, because its process is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from raflow.model import RunLease
from raflow.runtime.leases._lease import is_gone, own_start, process_started


def lease(*, pid: int, started: float, renewed_at: float, host: str = "") -> RunLease:
    return RunLease(
        flow_run_id="run",
        incarnation=1,
        host=host or socket.gethostname(),
        pid=pid,
        process_started=started,
        renewed_at=renewed_at,
        expires_at=renewed_at + 10,
    )


@pytest.mark.parametrize(
    ("started", "renewed", "gone"),
    [
        pytest.param(0.0, 5.0, False, id="the same process"),
        pytest.param(-3600.0, 5.0, False, id="the clock was set"),
        pytest.param(-60.0, -30.0, True, id="its number was used again"),
        pytest.param(0.0, -5.0, False, id="the clock of the database is late"),
    ],
)
def test_a_process_that_is_there(started: float, renewed: float, *, gone: bool) -> None:
    begun = own_start()
    found = lease(pid=os.getpid(), started=begun + started, renewed_at=begun + renewed)
    assert is_gone(found) is gone


def test_a_process_that_has_endedis_gone_even_if_nobody_has_asked_how() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = process_started(process.pid)
        held = lease(pid=process.pid, started=started, renewed_at=started + 1)
        assert not is_gone(held)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(held)


def test_of_other_hosts_nothing_is_known() -> None:
    assert not is_gone(lease(pid=1, started=0.0, renewed_at=1.0, host="elsewhere"))
