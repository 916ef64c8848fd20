"""A commit that came through, and whose answer was lost, is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa

from raflow import model
from raflow.model import RequestKind
from raflow.store import Store
from raflow.store._database import _engine
from tests.store import records
from tests.store.test_requests import QUESTION

T = TypeVar("T")


class Forgetful(_engine.Database):
    """A database each of whose commits is made, and then seems to have failed."""

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        super().write(work)
        return super().write(work)


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    """A store that loses every first answer, with a run that nobody drives."""
    with Store.open(database_url, log_dir=tmp_path) as plain:
        plain.apply(records.batch(records.flow_run()))
        plain.limits.set(model.Limit(name="warehouse", slots=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "Database", Forgetful)
        with Store.open(database_url, log_dir=tmp_path) as opened:
            yield opened


def test_a_run_is_taken_over_once(store: Store) -> None:
    number = store.leases.begin_incarnation(
        records.RUN, host="here", pid=7, process_started=1.5, seconds=10
    )
    assert number == store.find_flow_run(records.RUN).incarnation == 2
    store.leases.let_go(records.RUN, 2)
    assert store.leases.get(records.RUN) is None


def test_a_request_is_made_once(store: Store) -> None:
    asked = store.requests.ask(records.RUN, RequestKind.CANCEL, by="ann@host")
    assert store.requests.of(records.RUN) == (asked,)


def test_a_question_is_asked_and_answered_once(store: Store) -> None:
    assert store.requests.ask_person(QUESTION) == QUESTION
    answered = store.requests.answer_person(records.RUN, 0, answer=b"1", by="ann")
    assert store.requests.input_requests(open_only=False) == [answered]


def test_slots_and_keys_are_taken_once(store: Store) -> None:
    wish = model.SlotRequest(
        holder="one", flow_run_id=records.RUN, label="one", amounts={"warehouse": 1}
    )
    assert store.limits.acquire(wish, seconds=10)
    assert len(store.limits.all()[0].holders) == 1
    assert store.cache.claim("key", "one", seconds=10)
    assert not store.cache.claim("key", "two", seconds=10)
