"""Who asks for too much is told so, and holds nobody else up."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from raflow import errors
from raflow.store import Store


def count_to(number: int) -> sa.TextClause:
    return sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
        f"{number}) SELECT count(*) FROM n"
    )


def test_a_read_that_takes_too_long_is_stopped(store: Store) -> None:
    database = store._database
    with pytest.raises(errors.TooSlowError, match="Ask for less"):
        database.read(lambda c: c.execute(count_to(10**12)).scalar_one(), seconds=0.2)
    # Those that come after it on the same connection have their own time, or all they need.
    for seconds in (60.0, None):
        found = database.read(lambda c: c.execute(count_to(300_000)).scalar_one(), seconds=seconds)
        assert found == 300_000


def test_lists_take_a_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float | None] = []
    read = type(store._database).read

    def noted(database: object, work: object, *, seconds: float | None = None) -> object:
        given.append(seconds)
        return read(database, work, seconds=seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store._database), "read", noted)
    store.runs.page(seconds=7.0)
    store.feed.after(0, seconds=7.0)
    assert given == [7.0, 7.0]
