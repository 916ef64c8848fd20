"""Which calls of a task are the same."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from raflow import errors
from raflow.define import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    KeyParts,
    task,
)


def print_of(value: object, name: str) -> str:
    if isinstance(value, type):
        raise errors.CacheKeyError(f"{name} has no fingerprint.")
    return repr(value)


def parts(**changes: Any) -> KeyParts:
    given: dict[str, Any] = {
        "task": "load",
        "source": lambda: "code-1",
        "arguments": {"rows": 1, "log": "a"},
        "flow_parameters": {"day": 1},
        "flow_run_id": "run-1",
        "fingerprint": print_of,
        **changes,
    }
    return KeyParts(**given)


CHANGES: dict[str, dict[str, Any]] = {
    "inputs": {"arguments": {"rows": 2, "log": "a"}},
    "log": {"arguments": {"rows": 1, "log": "b"}},
    "source": {"source": lambda: "code-2"},
    "parameters": {"flow_parameters": {"day": 2}},
    "run": {"flow_run_id": "run-2"},
    "task": {"task": "store"},
}


def by_row(_: KeyParts, arguments: Mapping[str, Any]) -> str:
    return f"row-{arguments['rows']}"


def by_day(known: KeyParts, _: Mapping[str, Any]) -> str:
    return f"day-{known.flow_parameters['day']}"


@pytest.mark.parametrize(
    ("policy", "counts"),
    [
        (INPUTS, {"inputs", "log", "task"}),
        (INPUTS - "log", {"inputs", "task"}),
        (INPUTS - "log" - "rows", {"task"}),
        (TASK_SOURCE, {"source", "task"}),
        (FLOW_PARAMETERS, {"parameters", "task"}),
        (RUN_ID, {"run", "task"}),
        (DEFAULT, {"inputs", "log", "source", "run", "task"}),
        (DEFAULT - "log", {"inputs", "source", "run", "task"}),
        (CacheKeyFnPolicy(by_row), {"inputs"}),
        (CacheKeyFnPolicy(by_row) + CacheKeyFnPolicy(by_day), {"inputs", "parameters", "task"}),
        (CacheKeyFnPolicy(by_day) + TASK_SOURCE, {"parameters", "source", "task"}),
    ],
)
def test_a_policy_says_what_counts(policy: CachePolicy, counts: set[str]) -> None:
    key = policy.key(parts())
    assert key == policy.key(parts())
    assert {
        what for what, change in CHANGES.items() if policy.key(parts(**change)) != key
    } == counts


def test_policies_are_joined_in_any_order() -> None:
    singles = (INPUTS, TASK_SOURCE, RUN_ID)
    assert {one + two + three for one, two, three in itertools.permutations(singles)} == {DEFAULT}
    assert INPUTS + INPUTS == INPUTS + NO_CACHE == NO_CACHE + INPUTS == INPUTS
    assert (INPUTS - "a") + (INPUTS - "b") == INPUTS - "b" - "a"
    own = CacheKeyFnPolicy(by_row)
    assert own + own == own
    assert DEFAULT == INPUTS + TASK_SOURCE + RUN_ID
    assert len({INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, NO_CACHE, own}) == 7


def test_different_policies_give_different_keys() -> None:
    policies = (INPUTS, INPUTS - "log", TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT)
    assert len({policy.key(parts()) for policy in policies}) == len(policies)


def test_nothing_is_cached_without_something_that_counts() -> None:
    assert NO_CACHE.key(parts()) is None
    assert not NO_CACHE.caches
    assert all(p.caches for p in (INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT))


def test_a_function_makes_the_key_itself() -> None:
    assert CacheKeyFnPolicy(by_row).key(parts()) == "row-1"
    assert CacheKeyFnPolicy(by_row).key(parts(task="other")) == "row-1"


def test_a_call_for_which_a_function_has_no_key_is_not_cached() -> None:
    none = CacheKeyFnPolicy(lambda known, arguments: None)
    assert none.key(parts()) is None
    assert (none + INPUTS).key(parts()) is None


@pytest.mark.parametrize("key", [3, "", b"key"])
def test_a_key_is_a_text(key: Any) -> None:
    with pytest.raises(
        errors.CacheKeyError, match=r"Task 'load': its cache_key_fn returned .*None"
    ):
        CacheKeyFnPolicy(lambda known, arguments: key).key(parts())


def test_the_code_is_looked_at_only_if_it_counts() -> None:
    def looked() -> str:
        raise AssertionError

    assert (INPUTS + RUN_ID + FLOW_PARAMETERS).key(parts(source=looked))
    with pytest.raises(AssertionError):
        DEFAULT.key(parts(source=looked))


def test_an_argument_without_a_fingerprint_is_named_with_a_remedy() -> None:
    with pytest.raises(errors.CacheKeyError) as caught:
        INPUTS.key(parts(arguments={"rows": 1, "log": int}))
    assert str(caught.value) == (
        "Task 'load': its argument 'log' has no cache key: log has no fingerprint. Or leave it out "
        "of what counts: `cache_policy=INPUTS - 'log'`."
    )
    assert (caught.value.task, caught.value.argument) == ("load", "log")
    assert (INPUTS - "log").key(parts(arguments={"rows": 1, "log": int}))
    with pytest.raises(errors.CacheKeyError, match="the parameter 'day' of the flow has no cache"):
        FLOW_PARAMETERS.key(parts(flow_parameters={"day": int}))


def test_only_arguments_that_count_can_be_left_out() -> None:
    with pytest.raises(errors.DefinitionError, match="Begin with INPUTS: `INPUTS - 'rows'`"):
        RUN_ID - "rows"
    with pytest.raises(TypeError):
        INPUTS - 3  # type: ignore[operator]  # on purpose
    with pytest.raises(TypeError):
        INPUTS + "rows"  # type: ignore[operator]  # on purpose


def test_policies_travel() -> None:
    policy = DEFAULT - "log" + CacheKeyFnPolicy(by_row)
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_a_task_knows_its_policy_and_its_arguments_with_defaults() -> None:
    @task(cache_policy=INPUTS - "log")
    def load(rows: int, *more: int, log: str = "x", **options: int) -> int:
        return rows

    assert load.cache_policy == INPUTS - "log"
    assert load.with_options(cache_policy=None).cache_policy == NO_CACHE
    assert load.with_defaults(load.bind((1,), {})) == {
        "rows": 1,
        "more": (),
        "log": "x",
        "options": {},
    }
    given = load.bind((1, 2), {"log": "y", "extra": 3})
    assert load.with_defaults(given) == {
        "rows": 1,
        "more": (2,),
        "log": "y",
        "options": {"extra": 3},
    }
    assert task(cache_key_fn=by_row)(load.fn).cache_policy == CacheKeyFnPolicy(by_row)
