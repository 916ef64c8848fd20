"""What a worker tells the service, besides `Poll`: the bodies of these calls, and their answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBack:
    """A worker does not begin a run."""

    incarnation: int
    message: str
    permanent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """The process of a run is surely gone."""

    incarnation: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A run is to be suspended, for another worker to go on with it."""

    by: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A worker ends."""

    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Whether something was done."""

    done: bool
