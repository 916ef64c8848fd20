"""Tokens: who may use the service. Of a secret only its digest is kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import errors, model
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._rows import _service_tables, _values

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_tokens = _service_tables.tokens
_PREFIX: Final = "raflow_"
_LETTERS: Final = {kind: kind.value[0] for kind in model.TokenKind} | {model.TokenKind.SIGNIN: "i"}
_USED_SECONDS: Final = 60.0
"""So exactly is it noted when a token was used last: not every request shall write."""
_NOBODY: Final = hashlib.sha256(b"").digest()


class Tokens:
    """Tokens of people, workers and sessions. Times are by the clock of the database.

    The text of a token is `raflow_`, a letter for its kind, its id, `_` and the secret: 256 random
    bits, so that a plain digest of it is enough to keep.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def make(
        self,
        kind: model.TokenKind,
        *,
        role: model.Role = model.Role.VIEWER,
        name: str = "",
        scope: str = "",
        actor: str = "",
        seconds: float | None = None,
    ) -> tuple[model.Token, str]:
        """Make a token; its text is told only now.

        Args:
            kind: Whose it is.
            role: What it may do, if it is a person's or a session's.
            name: How people call it.
            scope: What it is confined to: a pool, or a flow run.
            actor: Who makes it.
            seconds: How long it counts. Default: until it is revoked.
        """
        token_id = base64.b32encode(secrets.token_bytes(10)).decode()[:10].lower()
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")

        def write(connection: sa.Connection) -> model.Token:
            now = _clock.now(connection)
            token = model.Token(
                id=token_id,
                name=_values.text(name),
                role=role,
                kind=kind,
                scope=_values.text(scope),
                actor=_values.text(actor),
                created_at=now,
                expires_at=None if seconds is None else now + seconds,
            )
            connection.execute(sa.insert(_tokens).values(**_row(token), digest=_digest(secret)))
            _tell(connection, token, model.EventKind.TOKEN_MADE, actor)
            return token

        return self._database.write(write), f"{_PREFIX}{_LETTERS[kind]}{token_id}_{secret}"

    def find(self, text: str) -> model.Token | None:
        """Return the token with this text; None if there is none, or it counts no more."""
        return self._database.read(lambda c: _find(c, text))

    def use_once(self, text: str, kind: model.TokenKind) -> model.Token | None:
        """Take a token of this kind out of use; None if it does not count (any more)."""
        return self._database.write(lambda c: _use_once(c, text, kind))

    def note_use(self, token: model.Token) -> None:
        """Note that a token is in use, if that was not noted within the last minute."""

        def write(connection: sa.Connection) -> None:
            update = sa.update(_tokens).where(_tokens.c.id == token.id)
            connection.execute(update.values(used_at=_clock.now(connection)))

        now = self._database.read(_clock.now)
        if token.used_at is None or now - token.used_at >= _USED_SECONDS:
            self._database.write(write)

    def revoke(self, token_id: str, *, actor: str = "") -> None:
        """End a token.

        Raises:
            NotFoundError: There is no token with this id.
        """
        self._database.write(lambda c: _revoke(c, token_id, actor))

    def list(self) -> list[model.Token]:
        """Return the tokens of people and workers that count, oldest first."""
        return self._database.read(_list)

    def forget_old(self, seconds: float, *, limit: int = 10_000) -> int:
        """Delete tokens that have not counted for so long.

        Args:
            seconds: How long ago they were revoked, or their time was over.
            limit: At most so many at once. Default: 10,000.

        Returns:
            How many were deleted; `limit`, if there may be more of them.
        """

        def write(connection: sa.Connection) -> int:
            before = _clock.now(connection) - seconds
            over = sa.or_(_tokens.c.expires_at < before, _tokens.c.revoked_at < before)
            old = sa.select(_tokens.c.id).where(over).limit(limit)
            return connection.execute(sa.delete(_tokens).where(_tokens.c.id.in_(old))).rowcount

        return self._database.write(write)


def _columns() -> Sequence[sa.Column[Any]]:
    return [column for column in _tokens.columns if column.name != "digest"]


def _row(token: model.Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "kind": token.kind.value,
        "scope": token.scope,
        "actor": token.actor,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "used_at": token.used_at,
        "revoked_at": token.revoked_at,
    }


def _read(row: Any) -> model.Token:
    return model.Token(
        id=row.id,
        name=row.name,
        role=model.Role(row.role),
        kind=model.TokenKind(row.kind),
        scope=row.scope,
        actor=row.actor,
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
        revoked_at=row.revoked_at,
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _list(connection: sa.Connection) -> list[model.Token]:
    kinds = (model.TokenKind.USER.value, model.TokenKind.WORKER.value)
    in_time = sa.or_(_tokens.c.expires_at.is_(None), _tokens.c.expires_at > _clock.now(connection))
    query = sa.select(*_columns())
    query = query.where(_tokens.c.kind.in_(kinds), _tokens.c.revoked_at.is_(None), in_time)
    query = query.order_by(_tokens.c.created_at, _tokens.c.id)
    return [_read(row) for row in connection.execute(query)]


def _find(connection: sa.Connection, text: str) -> model.Token | None:
    head, _, secret = text.removeprefix(_PREFIX).partition("_")
    query = sa.select(*_columns(), _tokens.c.digest).where(_tokens.c.id == _values.text(head[1:]))
    row = connection.execute(query).first()
    # Compared in any case, so that the time tells nothing about which ids there are.
    same = hmac.compare_digest(_NOBODY if row is None else row.digest, _digest(secret))
    if row is None or not same or not text.startswith(_PREFIX):
        return None
    token = _read(row)
    counts = token.revoked_at is None and head[0] == _LETTERS[token.kind]
    in_time = token.expires_at is None or _clock.now(connection) < token.expires_at
    return token if counts and in_time else None


def _use_once(connection: sa.Connection, text: str, kind: model.TokenKind) -> model.Token | None:
    token = _find(connection, text)
    if token is None or token.kind is not kind:
        return None
    # Two may have found it; who deletes the row has used it.
    gone = connection.execute(sa.delete(_tokens).where(_tokens.c.id == token.id)).rowcount
    return token if gone else None


def _revoke(connection: sa.Connection, token_id: str, actor: str) -> None:
    this = _tokens.c.id == _values.text(token_id)
    row = connection.execute(sa.select(*_columns()).where(this)).first()
    if row is None:
        raise errors.NotFoundError.of("token", token_id, ())
    if row.revoked_at is None:
        now = _clock.now(connection)
        connection.execute(sa.update(_tokens).where(this).values(revoked_at=now))
        _tell(connection, _read(row), model.EventKind.TOKEN_REVOKED, actor)


def _tell(connection: sa.Connection, token: model.Token, kind: model.EventKind, actor: str) -> None:
    if token.kind in {model.TokenKind.USER, model.TokenKind.WORKER}:
        payload = {"name": token.name, "kind": token.kind.value}
        event = model.Event(
            kind=kind, object=f"token:{token.id}", at=0.0, actor=actor, payload=payload
        )
        _feed.append(connection, [event])
