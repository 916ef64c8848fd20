"""Who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Permission(StrEnum):
    """What a route of the service asks for."""

    OPEN = "open"
    """Nothing: anybody may."""
    READ = "read"
    OPERATE = "operate"
    """Start, cancel, pause and resume runs."""
    AUTHOR = "author"
    """Deploy code, which then runs."""
    ADMIN = "admin"
    WORK = "work"
    """Take runs of a pool."""
    RECORD = "record"
    """Write the record of a run."""


class Role(StrEnum):
    """What a person's token may do; each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    AUTHOR = "author"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        """What it may do."""
        return PERMISSIONS[self]


_VIEWER: Final = frozenset({Permission.OPEN, Permission.READ})
_OPERATOR: Final = _VIEWER | {Permission.OPERATE}
_AUTHOR: Final = _OPERATOR | {Permission.AUTHOR}
PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.VIEWER: _VIEWER,
        Role.OPERATOR: _OPERATOR,
        Role.AUTHOR: _AUTHOR,
        Role.ADMIN: _AUTHOR | {Permission.ADMIN},
    }
)
"""What each role may do."""


class TokenKind(StrEnum):
    """Whom a token stands for."""

    USER = "user"
    WORKER = "worker"
    """A worker of the pool that is its scope; of any, if that is empty."""
    RUN = "run"
    """The driver of the flow run that is its scope."""
    SESSION = "session"
    """A browser."""
    SIGNIN = "signin"
    """A link to sign in with, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token without its secret."""

    id: str
    name: str
    kind: TokenKind
    role: Role
    scope: str = ""
    """A pool or a flow run."""
    actor: str = ""
    """Who made it."""
    created_at: float = 0.0
    expires_at: float | None = None
    used_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something."""

    name: str
    """The name of a token, `schedule:NAME`, or `user@host`."""
    permissions: frozenset[Permission]
    scope: str = ""
    """The pool or the flow run that it is confined to; empty: none."""
