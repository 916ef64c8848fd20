from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raflow.execute import ValueRef, ValueSlice
from raflow.runtime.calls._spans import ValueSpan, ValueSpans


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Neighbouring ranges of items, in any order."""
    ends = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=8)))
    return draw(st.permutations(list(zip([0, *ends], ends, strict=False))))


@given(cuts(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5))
def test_every_item_has_its_value_until_it_is_dropped(
    ranges: list[tuple[int, int]], dropped: list[tuple[int, int]]
) -> None:
    spans = ValueSpans()
    for start, stop in ranges:
        spans.add(ValueSpan(start, stop, f"from {start}", 100))
    expected = {i: (f"from {a}", 100 + i - a) for a, b in ranges for i in range(a, b)}
    for start, stop in dropped:
        spans.drop(start, stop)
        expected = {i: v for i, v in expected.items() if not start <= i < stop}
    found = {
        item: (span.handle, span.position + item - span.start)
        for span in spans.between(0, 60)
        for item in range(span.start, span.stop)
    }
    assert found == expected
    assert list(found) == sorted(found)


@given(cuts(), st.integers(0, 60), st.integers(0, 60))
def test_a_part_is_cut_to_what_was_asked(
    ranges: list[tuple[int, int]], start: int, stop: int
) -> None:
    spans = ValueSpans()
    for begin, end in ranges:
        spans.add(ValueSpan(begin, end, begin, 0))
    items = [i for span in spans.between(start, stop) for i in range(span.start, span.stop)]
    assert items == [i for i in range(start, stop) if i < max(end for _, end in ranges)]


def test_an_object_of_its_own_stays_whole() -> None:
    assert ValueSpan(3, 4, "own", -1).cut(3, 4).source() == ValueRef("own", -1)
    assert ValueSpan(3, 9, "list", 10).cut(5, 7).source() == ValueSlice("list", 12, 14)
