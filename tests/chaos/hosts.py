"""Two hosts on this machine: network namespaces with a cable between them, and a Ray on both."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.cluster import HEAD, authentication, ray_node
from tests.chaos.world import wait_until

_PORT: Final = 6379
_DEVICE: Final = "veth0"

# A host that does not answer is given up after about four seconds, not after most of a minute.
_HEALTH: Final = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A network namespace with one address."""

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another one on it."""
        return ("ip", "netns", "exec", self.name)

    def pids(self) -> list[int]:
        """The processes that run on it."""
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]

    def kill(self) -> None:
        """End all that runs on it."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


@dataclass(frozen=True, kw_only=True)
class TwoHosts:
    """A head, where drivers run, and a worker."""

    head: Host
    worker: Host
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What a driver on the head needs."""
        address = f"{self.head.address}:{_PORT}"
        return {**self.variables, "RAFLOW_RAY_ADDRESS": address}

    def cut(self) -> None:
        """Unplug the cable: neither hears of the other any more, not even that it is gone."""
        _ip("-n", self.head.name, "link", "set", _DEVICE, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("-n", self.head.name, "link", "set", _DEVICE, "up")

    def kill_worker(self) -> None:
        """Take the power from the worker: it says nothing any more."""
        self.cut()
        self.worker.kill()


@contextlib.contextmanager
def two_hosts(folder: Path, *, head_cpus: int = 1, worker_cpus: int = 2) -> Iterator[TwoHosts]:
    """Bring up two hosts with a Ray on both, and take everything down again.

    Must be allowed to make network namespaces.
    """
    with _connected() as (head, worker):
        variables = {**authentication(folder), **_HEALTH}
        begun = ["--head", f"--port={_PORT}", *HEAD]
        with ray_node(_options(head, begun, head_cpus), variables, head.prefix):
            _wait_for_ray(head)
            joining = [f"--address={head.address}:{_PORT}", "--disable-usage-stats"]
            with ray_node(_options(worker, joining, worker_cpus), variables, worker.prefix):
                wait_until(lambda: _runs(worker, "raylet"), "a raylet on the worker")
                yield TwoHosts(head=head, worker=worker, variables=variables)


def _options(host: Host, more: list[str], cpus: int) -> list[str]:
    return [*more, f"--node-ip-address={host.address}", f"--num-cpus={cpus}"]


@contextlib.contextmanager
def _connected() -> Iterator[tuple[Host, Host]]:
    number = random.SystemRandom().randrange(1, 255)
    hosts = [
        Host(name=f"chaos-{os.getpid()}-{role}", address=f"10.231.{number}.{last}")
        for last, role in enumerate(("head", "worker"), 1)
    ]
    head, worker = hosts
    made: list[Host] = []
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            made.append(host)
        cable = ("link", "add", _DEVICE, "netns", head.name)
        _ip(*cable, "type", "veth", "peer", "name", _DEVICE, "netns", worker.name)
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", _DEVICE)
            for device in ("lo", _DEVICE):
                _ip("-n", host.name, "link", "set", device, "up")
        yield head, worker
    finally:
        for host in made:
            host.kill()
            _ip("netns", "delete", host.name)


def _wait_for_ray(host: Host) -> None:
    look = f"import socket; socket.create_connection(('{host.address}', {_PORT}), 1)"

    def answers() -> bool:
        command = [*host.prefix, "python3", "-c", look]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    wait_until(answers, "a Ray on the head")


def _runs(host: Host, program: str) -> bool:
    for pid in host.pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(f"/{program}".encode()):
                return True
    return False


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
