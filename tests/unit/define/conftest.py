"""What the tests of declarations share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.define.fake_flow import FakeFlow, body_of


@pytest.fixture
def body() -> Iterator[FakeFlow]:
    """The test is the body of a flow; its calls end up here."""
    with body_of(FakeFlow()) as context:
        yield context
