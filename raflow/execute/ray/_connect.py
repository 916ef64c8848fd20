"""Finds a Ray to run on, or starts one."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import secrets
import select
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import ray
from ray import _raylet
from ray._private import node, parameter, services, utils, worker

from raflow import errors
from raflow.execute._processes import processes, with_descendants
from raflow.execute.ray._sockets import VARIABLES
from raflow.model import ProcessInfo

# Private to Ray, and without types.
_native: Any = _raylet
_node: Any = node
_parameter: Any = parameter
_services: Any = services
_utils: Any = utils
_worker: Any = worker

NAMESPACE: Final = "raflow"

_CONNECT_SECONDS: Final = 5.0
_DEFAULT_PORT: Final = 6379

_AUTHENTICATION: Final = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_LEFT_OUT: Final = {"no_monitor": True, "include_log_monitor": False}
"""An autoscaler, and what copies the output of workers to the driver."""

_SYSTEM: Final = {"free_objects_period_milliseconds": 20}
"""Values that are let go leave the object store at once, not once a second: a chain over large
arrays would fill it, and fresh memory is slow."""

_log = logging.getLogger(__name__)


class RayProcess:
    """The process of Ray's that runs a node, watched from outside.

    Ray itself ends a driver, without a word, that speaks to its raylet after that has died.
    """

    def __init__(self, pid: int) -> None:
        """Watch it.

        Raises:
            OSError: There is no such process.
        """
        self.pid = pid
        self._file = os.pidfd_open(pid)
        weakref.finalize(self, os.close, self._file)

    def is_alive(self) -> bool:
        """Tell whether it runs; costs about a microsecond."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        return not poll.poll(0)


class Gcs(NamedTuple):
    """The control service of a Ray."""

    address: str
    """`host:port`."""
    process: RayProcess | None
    """Its process, if that is on this machine and was started here."""


class Token(NamedTuple):
    """What every worker process of a local Ray reads when it starts."""

    path: Path
    text: str

    def keep(self) -> None:
        """Put the file back if somebody has removed it: Ray could start no process any more."""
        with contextlib.suppress(OSError):  # also of looking, where the folder may not be read
            if not self.path.exists() and self.path.parent.parent.exists():
                _write_token(self.path, self.text)
                _log.warning("The token of Ray was removed from %s; it is there again", self.path)


class Link(NamedTuple):
    """This process's connection with Ray."""

    owned: bool
    """Whether it was opened here, so that it is to be closed here."""
    local: bool
    """Whether all of Ray was started here, on this machine."""
    shares_files: bool
    """Whether worker processes find the files that this process has."""
    host: str
    """The address under which Ray's worker processes reach this one."""
    raylet: RayProcess | None
    """The raylet on this machine, if it could be found."""
    gcs: Gcs | None = None
    """The control service; None if its address is not known."""
    token: Token | None = None
    """Of a Ray that was started here."""


def connect(address: str | None, *, home: Path, num_cpus: int | None) -> Link:
    """Attach to the Ray that this process has, join one that runs, or start a local one.

    Args:
        address: `host:port` of a cluster, `auto`, or `local` for a new one. Default: the variable
            `RAY_ADDRESS`, which Ray Jobs set; else the Ray that this user has started on this
            machine by `ray start`; if there is none, a local Ray is started.
        home: Where a local Ray's token is kept.
        num_cpus: CPUs of a local Ray, which is then always a new one. Default: all of this machine.

    Raises:
        BackendError: There is no Ray at the address, or none could be started.
    """
    if ray.is_initialized():
        return _link(owned=False, local=False)
    wanted = address or os.environ.get("RAY_ADDRESS")
    if wanted and wanted != "local":
        _join(wanted)
        return _link(owned=True, local=False)
    if not wanted and num_cpus is None and _joined_the_one_here():
        return _link(owned=True, local=False)
    token = _private_token(home)
    _start(token.path, num_cpus)
    return _link(owned=True, local=True)._replace(token=token)


def _joined_the_one_here() -> bool:
    # `ray start` writes it. It outlives that Ray, and on a shared machine may be someone else's.
    address = _utils.read_ray_address()
    raylet = _find_raylet(f"--gcs-address={address}")
    if raylet is None or Path(f"/proc/{raylet}").stat().st_uid != os.getuid():
        return False
    if "RAY_AUTH_MODE" not in os.environ:
        _set_authentication(_authentication_of(raylet))
    try:
        _join(address)
    except errors.BackendError as error:
        _log.warning("A local Ray is started beside the one that runs on this machine. %s", error)
        return False
    return True


def _authentication_of(raylet: int) -> dict[str, str]:
    """Return the variables by which a process of this user was told its token."""
    pairs = Path(f"/proc/{raylet}/environ").read_bytes().decode(errors="replace").split("\0")
    variables = dict(pair.partition("=")[::2] for pair in pairs)
    return {name: variables[name] for name in _AUTHENTICATION if name in variables}


def _join(address: str) -> None:
    if "://" in address:
        raise errors.BackendError(
            f"Ray at {address!r} cannot be joined: raflow does not use Ray Client. Give the "
            "address of the cluster's head as 'host:port', and run where its nodes can be reached."
        )
    if address != "auto":
        _check_reachable(address)
    if "RAY_AUTH_MODE" not in os.environ and _has_token():
        _set_authentication({"RAY_AUTH_MODE": "token"})
    for name, milliseconds in VARIABLES.items():
        os.environ.setdefault(name, milliseconds)
    try:
        _check_token(address)
        _init(address=address)
    except ray.exceptions.AuthenticationError as error:
        raise errors.BackendError(
            f"Ray at {address!r} does not accept {_token_words()}. Set RAY_AUTH_TOKEN to the token "
            "of the cluster, or RAY_AUTH_TOKEN_PATH to a file that holds it, as on its head node.",
            address=address,
        ) from error
    except Exception as error:
        raise errors.BackendError(
            f"Ray at {address!r} cannot be joined: {error} Check that the cluster runs, that its "
            f"Ray is {ray.__version__} with Python {sys.version.split()[0]} as here, and that "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH holds its token.",
            address=address,
        ) from error


def _check_token(address: str) -> None:
    """Ask the cluster one thing: with a wrong token `ray.init` would try for twenty seconds."""
    found = _services.canonicalize_bootstrap_address(address)
    if found is not None:
        _native.GcsClient(address=found)


def _token_words() -> str:
    """Say which token Ray takes in this process; it looks in this order."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "connections without a token, and this process has none"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the token in RAY_AUTH_TOKEN"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    return f"the token in {path!r}"


def _check_reachable(address: str) -> None:
    """Try the port first: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        number = int(port) if host else _DEFAULT_PORT
        socket.create_connection((host or port, number), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise errors.BackendError(
            f"Nothing answers at the Ray address {address!r} ({error}). Check the address and that "
            "the cluster runs, or leave the address out to start a local Ray.",
            address=address,
        ) from error


def _start(token: Path, num_cpus: int | None) -> None:
    _set_authentication({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _only_what_is_needed():
            _init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                _system_config=dict(_SYSTEM),
            )
    except Exception as error:
        raise errors.BackendError(
            f"A local Ray could not be started: {error} Its own log is in /tmp/ray/session_latest/"
            "logs. backend='local' runs flows without Ray.",
        ) from error


@contextlib.contextmanager
def _only_what_is_needed() -> Iterator[None]:
    """Have Ray start no processes that raflow does not use: they take most of its time to start.

    `include_dashboard=False` alone still starts the dashboard's process.
    """
    params, api_server = _parameter.RayParams, _node.Node.start_api_server
    known = inspect.signature(params).parameters
    left_out = {name: value for name, value in _LEFT_OUT.items() if name in known}
    _parameter.RayParams = functools.partial(params, **left_out)
    _node.Node.start_api_server = lambda *_, **__: None
    try:
        yield
    finally:
        _parameter.RayParams, _node.Node.start_api_server = params, api_server


def _init(**options: Any) -> None:
    # An async flow starts Ray beside its event loop, where Ray misses a handler we do not need.
    logging.getLogger("ray._private.worker").addFilter(_is_of_interest)
    with _own_sigterm():
        ray.init(
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **options,
        )
    # Ray prints what its raylet says about crashed workers; a run reports that itself.
    _worker.print_to_stdstream = _log_instead
    if sys.excepthook is _worker.custom_excepthook:
        # It tells the control service, and waits for that for a minute if it is dead.
        sys.excepthook = _worker.normal_excepthook


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Let the program keep what it does on SIGTERM: Ray puts a `sys.exit` in its place."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


def _is_of_interest(record: logging.LogRecord) -> bool:
    return "SIGTERM handler is not set" not in record.getMessage()


def _log_instead(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001 - Ray's
    for line in data["lines"]:
        _log.debug("%s", line)


def _set_authentication(variables: dict[str, str]) -> None:
    if "RAY_AUTH_TOKEN" in os.environ and variables.get("RAY_AUTH_TOKEN_PATH"):
        variables = {"RAY_AUTH_MODE": "token"}
    os.environ.update(variables)
    # Ray read these variables when it was imported.
    _native.Config.initialize("")
    _native.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    return bool(_native.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def _private_token(home: Path) -> Token:
    path = home / "ray" / "token"
    try:
        with contextlib.suppress(FileExistsError):
            _write_token(path, secrets.token_hex(32))
        return Token(path, path.read_text())
    except OSError as error:
        raise errors.BackendError(
            f"The token of the local Ray cannot be written to {str(path)!r}: {error}. Point "
            "RAFLOW_HOME at a directory that is writable.",
        ) from error


def _write_token(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(text)


def _link(*, owned: bool, local: bool) -> Link:
    here = _worker.global_worker.node
    host = "127.0.0.1" if local else ray.util.get_node_ip_address()
    # Who called ray.init on one machine, as in a notebook, has workers beside the driver.
    alone = not owned and len(ray.nodes()) == 1
    found = _find_raylet(f"--raylet_socket_name={here.raylet_socket_name}")
    raylet = None if found is None else RayProcess(found)
    return Link(owned, local, local or alone, host, raylet, _gcs(here, local=local))


def _gcs(here: Any, *, local: bool) -> Gcs | None:
    address = str(getattr(here, "gcs_address", None) or "")
    if not address:
        return None
    started = here.all_processes.get("gcs_server") if local else None
    with contextlib.suppress(OSError):
        return Gcs(address, RayProcess(started[0].process.pid) if started else None)
    return Gcs(address, None)


def gcs_is_reachable(gcs: Gcs, seconds: float) -> bool:
    """Tell whether a control service answers within some seconds."""
    host, _, port = gcs.address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except (OSError, ValueError):
        return False
    return True


def started_processes(link: Link) -> tuple[ProcessInfo, ...]:
    """Return the processes of a Ray that was started here; none of one that was joined."""
    if not link.local or not ray.is_initialized():
        return ()
    roles: dict[int, str] = {}
    for role, started in _worker.global_worker.node.all_processes.items():
        roles.update(dict.fromkeys((info.process.pid for info in started), role))
    everything = list(processes())
    roots = [one for one in everything if one.pid in roles]
    host = socket.gethostname()
    return tuple(
        ProcessInfo(
            host=host,
            pid=one.pid,
            started_at=one.started_at,
            role=roles.get(one.pid, "ray worker"),
        )
        for one in with_descendants(roots, everything)
    )


def _find_raylet(option: str) -> int | None:
    """Find a raylet by a word of its command line; only Linux tells those of all processes."""
    wanted = option.encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/raylet") and wanted in words:
                return int(entry.name)
    return None


def probe(link: Link) -> str | None:
    """Say why Ray is gone; None while it lives, as far as this machine can see."""
    if not ray.is_initialized():
        return "Ray was shut down in this process"
    if link.raylet is not None and not link.raylet.is_alive():
        return (
            f"the raylet of this machine (process {link.raylet.pid} on {socket.gethostname()}) "
            "died; everything that ran on it, and every value it held, is lost"
        )
    control = link.gcs.process if link.gcs is not None else None
    if control is not None and not control.is_alive():
        return (
            f"the control service of Ray (GCS, process {control.pid} on {socket.gethostname()}) "
            "died; without it Ray starts nothing, and ends this process after a minute"
        )
    return None


def disconnect(link: Link) -> None:
    """Close what was opened here."""
    if link.owned:
        ray.shutdown()


def leave(link: Link) -> None:
    """Close what was opened here, when Ray is dead."""
    here = _worker.global_worker.node
    if link.local and here is not None:
        # Without a control service Ray waits for what runs, as long as there are workers.
        here.kill_all_processes(check_alive=False, allow_graceful=False)
    disconnect(link)
