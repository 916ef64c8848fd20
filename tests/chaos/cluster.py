"""A Ray of its own processes, on this host or in network namespaces."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.chaos.world import ROOT, wait_until

_RAY: Final = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray that drivers join."""

    address: str
    environment: Mapping[str, str]
    """What a driver needs to join it."""
    process: psutil.Process
    """The one that has started all others of it, and ends them when one of them dies."""

    def kill(self, program: str) -> None:
        """Kill one of its processes, such as `gcs_server`; the others stay."""
        self.process.suspend()
        [one] = [p for p in self.process.children(recursive=True) if p.name() == program]
        one.kill()

    def kill_all(self) -> None:
        """Kill all of its processes at once."""
        end_with_descendants(self.process.pid)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, *, num_cpus: int = 2) -> Iterator[Cluster]:
        """Start one on this host."""
        variables = authentication(folder)
        options = ["--head", "--node-ip-address=127.0.0.1", "--port=0", *HEAD]
        with ray_node([*options, f"--num-cpus={num_cpus}"], variables) as (node, below):
            address = address_of(node, below)
            yield cls(
                address=address,
                environment={**variables, "RAFLOW_RAY_ADDRESS": address},
                process=psutil.Process(node.pid),
            )


HEAD: Final = ("--include-dashboard=false", "--disable-usage-stats")


def authentication(folder: Path) -> dict[str, str]:
    """Make a token; returns the variables that name it."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


@contextlib.contextmanager
def ray_node(
    options: Sequence[str], variables: Mapping[str, str], prefix: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run `ray start` until the end, then end all that came of it; gives the folder that it has.

    Args:
        options: Of `ray start`.
        variables: Besides those of this process.
        prefix: A command that runs it, such as `ip netns exec NAME`.
    """
    folder = tempfile.mkdtemp(prefix="chaos-")  # short: Ray keeps its sockets below it
    command = [*prefix, _RAY, "start", "--block", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": folder, **variables}
    with (
        Path(folder, "output").open("wb") as output,
        subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            yield process, Path(folder)
        finally:
            end_with_descendants(process.pid)
    shutil.rmtree(folder, ignore_errors=True)


def end_with_descendants(pid: int) -> None:
    """Kill a process and what it has started, as a host does that loses its power."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)


def address_of(node: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait until a Ray takes connections; returns where, as it has noted itself."""
    noted = Path(folder, "ray", "ray_current_cluster")

    def answers() -> bool:
        assert node.poll() is None, "the Ray ended while it started"
        with contextlib.suppress(OSError, ValueError):
            host, port = noted.read_text().rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=1).close()
            return True
        return False

    wait_until(answers, "a Ray that answers")
    return noted.read_text()
