"""Tokens: making, finding, revoking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raflow import errors, model
from raflow.model import Permission, Role, TokenKind
from raflow.service._signals import Signals
from raflow.store import Store

SIGNIN_SECONDS: Final = 15 * 60.0
SESSION_SECONDS: Final = 12 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new token and its text, which is told only once."""

    token: model.Token
    text: str


def permissions(token: model.Token) -> frozenset[Permission]:
    """Return what the holder of a token may do."""
    if token.kind is TokenKind.WORKER:
        return frozenset({Permission.OPEN, Permission.WORK})
    if token.kind is TokenKind.RUN:
        return frozenset({Permission.OPEN, Permission.RECORD})
    if token.kind in {TokenKind.USER, TokenKind.SESSION}:
        return token.role.permissions
    return frozenset()


def signed_as(token: model.Token) -> str:
    """Return the name under which the holder of a token does things."""
    return token.name or f"token {token.id}"


class Tokens:
    """Who may use the service."""

    def __init__(self, store: Store, signals: Signals, actor: str) -> None:
        self._store = store
        self._signals = signals
        self._actor = actor

    def list(self) -> list[model.Token]:
        """Return the tokens of people and workers that count, oldest first."""
        return self._store.tokens.list()

    def make(
        self,
        *,
        name: str,
        role: Role = Role.VIEWER,
        kind: TokenKind = TokenKind.USER,
        scope: str = "",
        seconds: float | None = None,
    ) -> Made:
        """Make a token.

        Args:
            name: How people call it; what is done with it stands in the record under this name.
            role: What it may do, if it is a person's.
            kind: USER or WORKER.
            scope: The only pool of a worker. Default: any.
            seconds: How long it counts. Default: until it is revoked.
        """
        token, text = self._store.tokens.make(
            kind, role=role, name=name, scope=scope, actor=self._actor, seconds=seconds
        )
        self._signals.wake("feed")
        return Made(token=token, text=text)

    def revoke(self, token_id: str) -> None:
        """End a token at once.

        Raises:
            NotFoundError: There is no token with this id.
        """
        self._store.tokens.revoke(token_id, actor=self._actor)
        self._signals.wake("tokens", "feed")

    def signin_code(self, *, role: Role = Role.ADMIN, name: str) -> str:
        """Return a code that is good for one session within the next 15 minutes."""
        _, text = self._store.tokens.make(
            TokenKind.SIGNIN, role=role, name=name, actor=self._actor, seconds=SIGNIN_SECONDS
        )
        return text

    def sign_in(self, code: str) -> Made:
        """Begin a session of 12 hours with a code, which is used up by that.

        Raises:
            UnauthenticatedError: The code does not count, or no more.
        """
        used = self._store.tokens.use_once(code, TokenKind.SIGNIN)
        if used is None:
            raise errors.UnauthenticatedError(
                "This sign-in link does not count (any more): it works once, for 15 minutes. "
                "`raflow server link` prints another one."
            )
        token, text = self._store.tokens.make(
            TokenKind.SESSION,
            role=used.role,
            name=used.name,
            actor=used.actor,
            seconds=SESSION_SECONDS,
        )
        return Made(token=token, text=text)
