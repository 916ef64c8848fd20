"""Flows whose record a service keeps: what is durable on one machine is so over HTTP, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import World
from tests.flows.test_durable import (
    journal,
    test_a_failed_run_is_resumed_and_repeats_nothing,
    test_a_process_that_has_lost_its_run_ends_what_it_started,
    test_a_run_is_cancelled_from_another_process,
    test_a_run_is_suspended_from_outside_with_its_subflows,
    test_a_run_whose_process_was_killed_goes_on_in_another,
    test_of_a_map_only_the_items_that_did_not_complete_run_again,
    test_people_answer_and_the_answer_outlives_the_process,
    test_the_body_holds_slots_and_gives_them_back,
    test_what_was_computed_is_not_computed_again,
    test_what_was_undone_is_done_again_if_the_run_is_resumed,
)
from tests.server.conftest import Started, started

__all__ = [
    "journal",
    "test_a_failed_run_is_resumed_and_repeats_nothing",
    "test_a_process_that_has_lost_its_run_ends_what_it_started",
    "test_a_run_is_cancelled_from_another_process",
    "test_a_run_is_suspended_from_outside_with_its_subflows",
    "test_a_run_whose_process_was_killed_goes_on_in_another",
    "test_of_a_map_only_the_items_that_did_not_complete_run_again",
    "test_people_answer_and_the_answer_outlives_the_process",
    "test_the_body_holds_slots_and_gives_them_back",
    "test_what_was_computed_is_not_computed_again",
    "test_what_was_undone_is_done_again_if_the_run_is_resumed",
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Started]:
    """A server with a home of its own."""
    with started(tmp_path / "served") as found:
        yield found


@pytest.fixture
def world(server: Started, raflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Flows run on threads and record into the service; its database is looked at directly."""
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    monkeypatch.setenv("RAFLOW_API_URL", server.url)
    monkeypatch.setenv("RAFLOW_API_TOKEN", server.token)
    database = f"sqlite:///{server.home / 'raflow.db'}"
    monkeypatch.setenv("RAFLOW_DATABASE_URL", database)
    return World("local", database)


def test_nothing_is_recorded_here(world: World, raflow_home: Path, journal: str) -> None:
    test_a_failed_run_is_resumed_and_repeats_nothing(world, journal)
    assert not (raflow_home / "raflow.db").exists()
    assert not (raflow_home / "spool").exists()
