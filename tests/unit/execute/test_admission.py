from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raflow.execute.local._admission import Admission


def test_what_fits_starts_at_once_in_order() -> None:
    admission: Admission[str] = Admission({"CPU": 2})
    assert admission.ask("a", {"CPU": 1}) == ["a"]
    assert admission.ask("b", {"CPU": 1}) == ["b"]
    assert admission.ask("c", {"CPU": 1}) == []
    assert admission.ask("d", {"CPU": 1}) == []
    assert admission.give_back({"CPU": 1}) == ["c"]


def test_what_asks_for_nothing_never_waits() -> None:
    admission: Admission[str] = Admission({"CPU": 1})
    admission.ask("a", {"CPU": 1})
    assert admission.ask("free", {}) == ["free"]


def test_a_small_item_passes_a_large_one_but_not_for_ever() -> None:
    admission: Admission[object] = Admission({"CPU": 2}, patience=3)
    admission.ask("running", {"CPU": 1})
    assert admission.ask("large", {"CPU": 2}) == []
    for number in range(3):
        assert admission.ask(number, {"CPU": 1}) == [number]
        assert admission.give_back({"CPU": 1}) == []
    assert admission.ask("late", {"CPU": 1}) == []
    assert admission.give_back({"CPU": 1}) == ["large"]
    assert admission.give_back({"CPU": 2}) == ["late"]


def test_a_withdrawn_item_makes_way() -> None:
    admission: Admission[str] = Admission({"CPU": 1}, patience=0)
    admission.ask("running", {"CPU": 0.5})
    admission.ask("large", {"CPU": 1})
    assert admission.ask("small", {"CPU": 0.5}) == []
    assert admission.withdraw("large") == (True, ["small"])
    assert admission.withdraw("large") == (False, [])


def test_fractions_add_up() -> None:
    admission: Admission[int] = Admission({"CPU": 1})
    started = [admission.ask(i, {"CPU": 0.1}) for i in range(11)]
    assert started == [[i] for i in range(10)] + [[]]


@given(st.lists(st.integers(1, 4), max_size=60), st.randoms())
def test_all_items_start_and_never_more_than_there_is(sizes: list[int], random: object) -> None:
    admission: Admission[int] = Admission({"CPU": 4}, patience=2, lookahead=5)
    running: list[int] = []
    seen: list[int] = []
    for item, size in enumerate(sizes):
        running += admission.ask(item, {"CPU": size})
        assert sum(sizes[i] for i in running) <= 4
    while running:
        random.shuffle(running)  # type: ignore[attr-defined]  # a Random
        item = running.pop()
        seen.append(item)
        running += admission.give_back({"CPU": sizes[item]})
        assert sum(sizes[i] for i in running) <= 4
    assert sorted(seen) == list(range(len(sizes)))
