"""Tokens: a secret is told once, and counts as long as it should."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from raflow import errors
from raflow.model import Role, TokenKind
from raflow.store import Store


def test_a_token_is_found_by_its_text_only(store: Store) -> None:
    token, text = store.tokens.make(TokenKind.USER, role=Role.AUTHOR, name="ann", actor="me")
    other, _ = store.tokens.make(TokenKind.USER)
    assert store.tokens.find(text) == token
    secret = text.split("_", 2)[2]
    for wrong in (
        "",
        "raflow_",
        text[:-1],
        text + "x",
        text.upper(),
        text.removeprefix("raflow_"),
        f"raflow_u{other.id}_{secret}",
        f"raflow_s{token.id}_{secret}",
        "\0\ud800",
    ):
        assert store.tokens.find(wrong) is None, wrong


def test_the_database_holds_no_secret(store: Store) -> None:
    token, text = store.tokens.make(TokenKind.SESSION)
    secret = text.split("_", 2)[2].encode()
    rows = store._database.read(lambda c: c.execute(sa.text("SELECT * FROM tokens")).all())
    assert len(rows) == 1
    assert not any(secret in str(value).encode() for value in rows[0])
    assert token.id in rows[0]


def test_a_token_ends_by_itself_or_when_it_is_revoked(store: Store) -> None:
    _, late = store.tokens.make(TokenKind.USER, seconds=-1)
    lasting, text = store.tokens.make(TokenKind.WORKER, scope="gpu", seconds=600)
    assert store.tokens.find(late) is None
    assert [token.id for token in store.tokens.list()] == [lasting.id]
    assert store.tokens.find(text) is not None
    store.tokens.revoke(lasting.id)
    store.tokens.revoke(lasting.id)
    assert store.tokens.find(text) is None
    assert store.tokens.list() == []
    assert store.tokens.forget_old(3600) == 0
    assert store.tokens.forget_old(0) == 2
    with pytest.raises(errors.NotFoundError):
        store.tokens.revoke(lasting.id)


def test_a_code_works_once(store: Store) -> None:
    _, text = store.tokens.make(TokenKind.SIGNIN, role=Role.ADMIN, name="ann")
    assert store.tokens.use_once(text, TokenKind.SESSION) is None
    used = store.tokens.use_once(text, TokenKind.SIGNIN)
    assert used is not None
    assert used.name == "ann"
    assert store.tokens.use_once(text, TokenKind.SIGNIN) is None


def test_it_is_noted_when_a_token_was_used_but_not_each_time(store: Store) -> None:
    token, text = store.tokens.make(TokenKind.USER)
    store.tokens.note_use(token)
    used = store.tokens.find(text)
    assert used is not None
    assert used.used_at is not None
    store.tokens.note_use(used)
    assert store.tokens.find(text) == used
