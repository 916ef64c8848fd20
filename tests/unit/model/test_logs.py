"""Log lines in their compressed form."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from raflow.model import LogLine, decode_log, encode_log

LINES = st.builds(
    LogLine,
    at=st.floats(0, 4e9),
    level=st.integers(0, 50),
    source=st.sampled_from(["stdout", "stderr", "my.logger"]),
    text=st.text(st.characters(exclude_categories=["Cs"])),
)


@hypothesis.given(st.lists(LINES, max_size=20))
def test_lines_survive(lines: list[LogLine]) -> None:
    assert decode_log(encode_log(lines)) == lines


def test_no_lines_are_no_bytes() -> None:
    assert encode_log([]) == b""
    assert decode_log(b"") == []


def test_many_alike_lines_are_small() -> None:
    lines = [LogLine(1.0, 20, "stdout", f"row {n} loaded") for n in range(10_000)]
    assert len(encode_log(lines)) < 50_000
