"""The description of the API: it is committed, and what it promises holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from raflow.server import _openapi
from tests.server.conftest import Served, started

ROOT = Path(__file__).parents[2]
EXAMPLES = 6


def test_the_committed_description_is_that_of_the_code() -> None:
    committed = (ROOT / "openapi.json").read_text(encoding="utf-8")
    assert committed == _openapi.text(), (
        "The API has changed. Run `python -m raflow.server._openapi > openapi.json`, look at what "
        "that changes for clients, and commit it."
    )


def test_the_server_tells_what_it_can_do(one: Served) -> None:
    told = one.get("/openapi.json")
    assert told == one.app.openapi()
    assert told["paths"]["/api/v1/runs"]["get"]["security"] == [{"token": []}, {"session": []}]
    assert told["paths"]["/healthz"]["get"]["security"] == []


def test_nothing_that_can_be_sent_makes_the_server_fail(tmp_path: Path) -> None:
    """Each operation with made-up parameters and bodies, most of them wrong, never gives a 500."""
    with started(tmp_path) as server, server.client() as client:
        schema = schemathesis.openapi.from_dict(client.get("openapi.json").json())
        for operation in schema.get_all_operations():
            assert isinstance(operation, Ok), operation
            send(operation.ok(), server.url, server.token)


def send(operation: APIOperation[Any, Any, Any, Any], url: str, token: str) -> None:
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy())
    def attempt(case: schemathesis.Case[Any]) -> None:
        # It would only be waited for events that do not come.
        (case.query or {}).pop("wait", None)
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code < 500, (case.method, case.path, answer.text)

    attempt()
