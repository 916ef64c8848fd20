"""Options of tasks and flows: what they become, and how wrong ones are refused."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from raflow import errors, exponential_backoff
from raflow.define import (
    INPUTS,
    NO_CACHE,
    RUN_ID,
    FlowKeywords,
    FlowOptions,
    TaskKeywords,
    flow,
    task,
)
from raflow.model import (
    CacheOptions,
    Resources,
    ResultPolicy,
    RetryPolicy,
    Serializer,
    State,
    StateName,
    TaskOptions,
    TriggerRule,
)


def load(rows: int) -> int:
    return rows


def etl(day: int) -> int:
    return day


def test_without_options_everything_has_its_default() -> None:
    assert task(load).options == TaskOptions()
    assert flow(etl).options == FlowOptions()


def test_all_data_of_a_task_ends_up_in_its_options() -> None:
    made = task(
        tags=["nightly", "eu", "nightly"],
        retries=3,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        crash_retries=1,
        timeout_seconds=30,
        persist_result=True,
        result_storage=Path("results"),
        result_serializer="json",
        log_prints=False,
        trigger_rule="all_done",
        num_cpus=2,
        num_gpus=0.5,
        memory="2GiB",
        resources={"disk": 1},
        accelerator_type="T4",
        label_selector={"zone": "a"},
        scheduling_strategy="SPREAD",
        runtime_env={"pip": ["x"]},
    )(load)
    assert made.options == TaskOptions(
        retry=RetryPolicy(retries=3, delays=(2, 4, 8), jitter_factor=0.5, crash_retries=1),
        timeout_seconds=30,
        resources=Resources(
            num_cpus=2,
            num_gpus=0.5,
            memory=2 * 2**30,
            custom=(("disk", 1.0),),
            accelerator_type="T4",
            label_selector=(("zone", "a"),),
            scheduling_strategy="SPREAD",
            runtime_env='{"pip": ["x"]}',
        ),
        trigger_rule=TriggerRule.ALL_DONE,
        result=ResultPolicy(persist=True, storage="results", serializer=Serializer.JSON),
        log_prints=False,
        tags=("nightly", "eu"),
    )


async def fetch(url: str) -> str:
    return url


def test_how_calls_share_a_worker_is_an_option() -> None:
    assert task(batch=False)(load).options == TaskOptions(batch=False)
    wide = task(concurrency_per_worker=20)(fetch)
    assert wide.options == TaskOptions(concurrency_per_worker=20)
    assert wide.with_options(concurrency_per_worker=None).options == TaskOptions()
    assert task(concurrency_per_worker=1)(load).options == TaskOptions()


def test_only_calls_of_async_functions_overlap_in_a_worker() -> None:
    with pytest.raises(errors.DefinitionError) as caught:
        task(concurrency_per_worker=2)(load)
    assert str(caught.value).startswith("Task 'load': concurrency_per_worker=2 is for async func")
    assert "Declare it with `async def`" in str(caught.value)


def test_what_makes_runs_durable_ends_up_in_the_options_of_a_task() -> None:
    made = task(
        crash_retries=2,
        memory_growth=2,
        limits={"warehouse": 2, "api": 1},
        priority=-3,
        cache_policy=INPUTS,
        cache_expiration=timedelta(hours=1),
        refresh_cache=True,
        teardown=True,
        teardown_counts=True,
    )(load)
    assert made.options == TaskOptions(
        retry=RetryPolicy(crash_retries=2),
        memory_growth=2.0,
        limits=(("api", 1), ("warehouse", 2)),
        priority=-3,
        cache=CacheOptions(expires_seconds=3600.0, refresh=True),
        result=ResultPolicy(persist=True),
        trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS,
        teardown=True,
        teardown_counts=True,
    )
    assert task(at_most_once=True, limits=["b", "a"])(load).options == TaskOptions(
        at_most_once=True, limits=(("a", 1), ("b", 1))
    )


def test_a_task_that_caches_keeps_its_values() -> None:
    cached = task(cache_key_fn=lambda parts, arguments: "key", cache_expiration=90)(load)
    assert cached.options.cache == CacheOptions(expires_seconds=90)
    assert cached.options.result.persist is True
    off = cached.with_options(cache_key_fn=None, cache_policy=NO_CACHE)
    assert (off.options.cache, off.options.result.persist) == (None, None)
    assert task(cache_policy=NO_CACHE, persist_result=False)(load).options.cache is None


def test_a_flow_says_when_results_are_on_disk() -> None:
    assert flow(etl).options.durability == "group"
    assert flow(durability="task")(etl).options.durability == "task"


def test_all_data_of_a_flow_ends_up_in_its_options() -> None:
    made = flow(
        name="nightly",
        version="7",
        description="Loads.",
        tags=["x"],
        timeout_seconds=1.5,
        validate_parameters=False,
        persist_result=False,
        result_storage="s3://bucket",
        result_serializer=Serializer.PICKLE,
        log_prints=False,
        backend="local",
    )(etl)
    assert (made.name, made.version, made.description) == ("nightly", "7", "Loads.")
    assert made.options == FlowOptions(
        timeout_seconds=1.5,
        validate_parameters=False,
        result=ResultPolicy(persist=False, storage="s3://bucket", serializer=Serializer.PICKLE),
        log_prints=False,
        backend="local",
        tags=("x",),
    )


def test_none_means_the_default() -> None:
    nothing: Any = dict.fromkeys(TaskKeywords.__annotations__)
    assert task(**nothing)(load).options == TaskOptions()
    nothing = dict.fromkeys(FlowKeywords.__annotations__)
    assert flow(**nothing)(etl).options == FlowOptions()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"retris": 3}, "has no option 'retris'. Did you mean 'retries'?"),
        ({"timeout": 3}, "has no option 'timeout'. Did you mean 'timeout_seconds'?"),
        ({"zzz": 3}, "has no option 'zzz'. It has: accelerator_type, at_most_once, batch"),
        ({"cache_policies": None}, "has no option 'cache_policies'. Did you mean 'cache_policy'?"),
        ({"retries": -1}, "retries=-1 is not a count"),
        ({"retries": "3"}, "retries='3' is not a count"),
        ({"retry_delay_seconds": [1, -1]}, "retry_delay_seconds=[1, -1] gives"),
        ({"retry_delay_seconds": "soon"}, "retry_delay_seconds='soon' gives"),
        ({"retry_jitter_factor": -1}, "retry_jitter_factor=-1 is negative"),
        ({"retry_condition_fn": 1}, "retry_condition_fn=1 is not a function"),
        ({"timeout_seconds": 0}, "timeout_seconds=0 is not a number of seconds above zero"),
        ({"timeout_seconds": True}, "timeout_seconds=True is not a number"),
        ({"name": " "}, "name=' ' is not a text with something in it"),
        ({"tags": "eu"}, "tags='eu' is not a list of texts"),
        ({"tags": [1]}, "tags=[1] is not a list of texts"),
        ({"tags": {"a": "b"}}, "tags={'a': 'b'} is not a list of texts"),
        ({"batch": 1}, "batch=1 is not True or False"),
        ({"concurrency_per_worker": 0}, "concurrency_per_worker=0 is not a number of calls, 1 or"),
        ({"concurrency_per_worker": 1.5}, "concurrency_per_worker=1.5 is not a number of calls"),
        ({"concurrency_per_worker": True}, "concurrency_per_worker=True is not a number of calls"),
        ({"persist_result": "yes"}, "persist_result='yes' is not True or False"),
        ({"result_storage": 3}, "result_storage=3 is not an fsspec URL or a path"),
        ({"result_serializer": "xml"}, "is not one of 'auto', 'json', 'arrow', 'pickle'"),
        ({"trigger_rule": "all_sucess"}, "trigger_rule='all_sucess' is not one of 'all_success'"),
        ({"on_failure": print}, "is not a list of functions"),
        ({"on_failure": [1]}, "on_failure=[1] is not a list of functions"),
        ({"num_cpus": -1}, "num_cpus=-1 is not an amount"),
        ({"memory": "2 GiBs"}, "memory='2 GiBs' is not a size"),
        ({"memory": [2]}, "memory=[2] is not a number of bytes"),
        ({"resources": {"disk": "x"}}, "disk='x' is not an amount"),
        ({"resources": ["disk"]}, "resources=['disk'] is not a dict"),
        ({"label_selector": {"a": 1}}, "label_selector={'a': 1} is not a dict from labels"),
        ({"scheduling_strategy": "spread"}, "is not 'DEFAULT', 'SPREAD' or one of"),
        ({"runtime_env": "x"}, "runtime_env='x' is not a dict"),
        ({"runtime_env": {"a": object}}, "holds something that JSON cannot carry"),
        ({"strict_limits": 1}, "strict_limits=1 is not True or False"),
        ({"at_most_once": 1}, "at_most_once=1 is not True or False"),
        ({"at_most_once": True, "retries": 1}, "nothing is tried again, so it cannot have retries"),
        ({"at_most_once": True, "crash_retries": 1}, "at_most_once=True means that nothing is"),
        ({"memory_growth": 1, "crash_retries": 1}, "memory_growth=1 is not a factor above 1"),
        ({"memory_growth": True, "crash_retries": 1}, "memory_growth=True is not a factor"),
        ({"memory_growth": 2}, "but there is no such retry. Add crash_retries=1, or more."),
        ({"limits": "warehouse"}, "limits='warehouse' is not a list of names, or a dict from"),
        ({"limits": {"warehouse": 0}}, "limits={'warehouse': 0} is not a list of names"),
        ({"limits": {"warehouse": 1.5}}, "limits={'warehouse': 1.5} is not"),
        ({"limits": {"warehouse": True}}, "limits={'warehouse': True} is not"),
        ({"limits": [""]}, "limits=[''] is not"),
        ({"limits": 3}, "limits=3 is not"),
        ({"priority": 1.5}, "priority=1.5 is not a whole number"),
        ({"priority": True}, "priority=True is not a whole number"),
        ({"cache_policy": "INPUTS"}, "cache_policy='INPUTS' is not a cache policy, such as INPUTS"),
        (
            {"cache_policy": INPUTS - "row"},
            "leaves out 'row', which is not one of its parameters (r",
        ),
        ({"cache_policy": INPUTS - "row"}, "Did you mean 'rows'?"),
        ({"cache_key_fn": "x"}, "cache_key_fn='x' is not a function"),
        (
            {"cache_key_fn": print, "cache_policy": RUN_ID},
            "both say which calls are the same. Join",
        ),
        (
            {"cache_expiration": 0, "cache_policy": INPUTS},
            "cache_expiration=0 is not a timedelta or",
        ),
        (
            {"cache_expiration": timedelta(-1), "cache_policy": INPUTS},
            "is not a timedelta or a number of seconds, above zero",
        ),
        ({"cache_expiration": 3}, "of no use without a cache_policy, which says which calls are"),
        ({"refresh_cache": True}, "Add one, such as cache_policy=INPUTS."),
        ({"cache_policy": INPUTS, "persist_result": False}, "which persist_result=False forbids"),
        ({"teardown": 1}, "teardown=1 is not True or False"),
        ({"teardown": True, "trigger_rule": "all_done"}, "so it cannot have a trigger_rule"),
        ({"on_rollback": print}, "is not a list of functions"),
        ({"task_run_name": 3}, "task_run_name=3 is not a text or a function"),
        (
            {"task_run_name": "{rwos}"},
            "uses 'rwos', which is not one of its parameters (rows). Did",
        ),
        ({"task_run_name": "{rows"}, "is not a text with {parameter} in it"),
        ({"task_run_name": lambda x: "a"}, "task_run_name uses 'x', which is not one of its"),
        ({"run_if": lambda day: True}, "run_if uses 'day', which is not one of its parameters"),
        ({"run_if": type}, "run_if=<class 'type'> cannot be called"),
    ],
)
def test_a_wrong_option_of_a_task_names_task_and_option(options: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.DefinitionError) as caught:
        task(**options)(load)
    assert told in str(caught.value)
    if options.get("name") is None:
        assert str(caught.value).startswith("Task 'load'")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"crash_retries": 3}, "Flow 'etl' has no option 'crash_retries'."),
        ({"retries": -1}, "Flow 'etl': retries=-1 is not a count"),
        ({"valdate_parameters": True}, "Did you mean 'validate_parameters'?"),
        ({"backend": "Ray"}, "Flow 'etl': backend='Ray' is not 'ray' or 'local'."),
        ({"timeout_seconds": -1}, "Flow 'etl': timeout_seconds=-1 is not"),
        ({"durability": "disk"}, "Flow 'etl': durability='disk' is not 'group' or 'task'."),
        ({"flow_run_name": "{days}"}, "flow_run_name uses 'days', which is not one of its"),
    ],
)
def test_a_wrong_option_of_a_flow_names_flow_and_option(options: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.DefinitionError) as caught:
        flow(**options)(etl)
    assert told in str(caught.value)


def test_with_options_changes_a_copy_and_keeps_the_rest() -> None:
    first = task(retries=3, tags=["x"], timeout_seconds=5)(load)
    second = first.with_options(retries=1, timeout_seconds=None, name="other")
    assert (first.options.retry.retries, first.options.timeout_seconds, first.name) == (
        3,
        5,
        "load",
    )
    assert (second.options.retry.retries, second.options.timeout_seconds) == (1, None)
    assert (second.options.tags, second.name, second.fn) == (("x",), "other", load)
    with pytest.raises(errors.DefinitionError, match="Did you mean 'retries'"):
        first.with_options(retry=1)  # type: ignore[call-arg]  # on purpose


def test_a_flow_keeps_its_options_in_a_copy() -> None:
    first = flow(etl).with_options(backend="local", tags=["x"])
    second = first.with_options(tags=None)
    assert (second.options.backend, second.options.tags, first.options.tags) == (
        "local",
        (),
        ("x",),
    )


def test_every_option_is_documented() -> None:
    for keywords in (TaskKeywords, FlowKeywords):
        source = inspect.getsource(keywords)
        assert source.count(": ") >= len(keywords.__annotations__)
        assert source.count('"""') == 2 * (len(keywords.__annotations__) + 1)


def state(name: StateName) -> State:
    return State(name=name, at=0.0)


def test_hooks_of_a_task_belong_to_states() -> None:
    calls: list[str] = []

    def told(task: Any, run: Any, state: Any) -> None:
        calls.append("told")

    made = task(on_running=[told], on_completion=[told])(load)

    @made.on_failure
    def failed(task: Any, run: Any, state: Any) -> None:
        calls.append("failed")

    assert made.on_running(print) is print
    assert made.on_completion(print) is print
    assert made.hooks_for(state(StateName.RUNNING)) == (told, print)
    assert made.hooks_for(state(StateName.RETRYING)) == (told, print)
    assert made.hooks_for(state(StateName.RECOVERED)) == (told, print)
    assert made.hooks_for(state(StateName.TIMED_OUT)) == (failed,)
    assert made.hooks_for(state(StateName.OUT_OF_MEMORY)) == (failed,)
    assert made.hooks_for(state(StateName.UPSTREAM_FAILED)) == ()
    assert made.hooks_for(state(StateName.CANCELLED)) == ()
    assert made.with_options(retries=1).hooks_for(state(StateName.FAILED)) == (failed,)
    assert calls == []


def test_a_task_has_hooks_of_its_own_for_what_is_no_failure() -> None:
    made = task(on_failure=[print])(load)
    assert made.hooks_for(state(StateName.LOST)) == (print,)

    @made.on_crashed
    def crashed(task: Any, run: Any, state: Any) -> None: ...

    @made.on_cancellation
    def cancelled(task: Any, run: Any, state: Any) -> None: ...

    @made.on_rollback
    def undo(task: Any, run: Any, state: Any) -> None: ...

    assert made.hooks_for(state(StateName.FAILED)) == (print,)
    assert made.hooks_for(state(StateName.LOST)) == (crashed,)
    assert made.hooks_for(state(StateName.CANCELLED)) == (cancelled,)
    assert made.hooks_for(state(StateName.COMPLETED)) == ()
    assert (made.rollback_hooks, task(load).rollback_hooks) == ((undo,), ())
    assert task(on_rollback=[undo])(load).has_hooks


def test_hooks_of_a_flow_belong_to_states() -> None:
    made = flow(etl)
    names = {
        "on_running": StateName.RUNNING,
        "on_completion": StateName.COMPLETED,
        "on_failure": StateName.TIMED_OUT,
        "on_cancellation": StateName.CANCELLED,
        "on_crashed": StateName.CRASHED,
    }
    added = {}
    for option in names:
        added[option] = getattr(made, option)(lambda flow, run, state: None)
    assert {option: made.hooks_for(state(name)) for option, name in names.items()} == {
        option: (hook,) for option, hook in added.items()
    }
    with pytest.raises(errors.DefinitionError, match="on_running takes a function, not 3"):
        made.on_running(3)  # type: ignore[arg-type]  # on purpose
