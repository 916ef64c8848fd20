"""What a worker and its runners say to each other, over a pair of sockets.

What a worker says is pickled: it is what it was given by the service. A runner loads code of users,
so what it says is JSON and no more than names, texts and flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, TypeAlias

import orjson

from raflow import config
from raflow.model import Claim, DeploymentVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """To a runner, first and once: the code that it is for."""

    folder: str
    """Where the bundle is unpacked."""
    version: DeploymentVersion
    """Where the flow is below that, and what it must be."""
    settings: config.Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Do:
    """To a runner: work on a flow run. It answers with `Ended` or `Refused`."""

    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """To a runner: end, once the run that it has is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """From a runner: the code is loaded, and where it runs is there."""

    seconds: float
    """How long that took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Useless:
    """From a runner, before it ends: it cannot load the code."""

    message: str
    permanent: bool
    """Whether no other worker could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """From a runner: it has nothing more to do for a run."""

    flow_run_id: str
    state: str
    """For people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """From a runner: something went wrong with a run that the run itself cannot tell."""

    flow_run_id: str
    message: str
    permanent: bool
    """Whether no other worker could do better."""


ToRunner: TypeAlias = Load | Do | Stop
FromRunner: TypeAlias = Ready | Useless | Ended | Refused
_KINDS: Final = {kind.__name__: kind for kind in (Ready, Useless, Ended, Refused)}


def say(connection: Connection, message: FromRunner) -> None:
    """Say something to the worker.

    Raises:
        OSError: It is gone.
    """
    connection.send_bytes(orjson.dumps([type(message).__name__, message]))


def hear(connection: Connection) -> FromRunner:
    """Return the next thing that a runner says; blocks until there is one.

    Raises:
        EOFError: It is gone.
        OSError: So it is, with a part of what it said.
    """
    name, fields = orjson.loads(connection.recv_bytes())
    return _KINDS[name](**fields)
