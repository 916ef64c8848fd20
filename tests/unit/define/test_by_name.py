"""User functions and texts over some of a task's parameters."""

from __future__ import annotations

import pickle
from datetime import date
from typing import Any

import cloudpickle
import pytest

from raflow.define import flow, task


def load(region: str, day: date = date(2026, 1, 2), *rest: int, **options: Any) -> None: ...


def only_region(region: str) -> str:
    return f"only {region}"


def everything(parameters: dict[str, Any]) -> str:
    return ",".join(sorted(parameters))


@pytest.mark.parametrize(
    ("naming", "name"),
    [
        ("load-{region}", "load-eu"),
        ("{day.year}/{region!r:>6}", "2026/  'eu'"),
        ("{rest}{options}", "(){}"),
        ("{{}}", "{}"),
        (only_region, "only eu"),
        (lambda day, region: f"{region}{day:%m}", "eu01"),
        (lambda: "fixed", "fixed"),
        (everything, "day,options,region,rest"),
        (lambda **all_of_them: str(len(all_of_them)), "4"),
        (lambda region, extra=1: f"{region}{extra}", "eu1"),
    ],
)
def test_a_run_is_named_by_its_arguments_and_their_defaults(naming: Any, name: str) -> None:
    made = task(task_run_name=naming)(load)
    assert made.run_name is not None
    again = pickle.loads(cloudpickle.dumps(made.run_name))
    assert again({"region": "eu"}) == name


def test_a_flow_names_its_runs_alike() -> None:
    named = flow(flow_run_name="etl-{day}")(lambda day=3: day)
    assert named.run_name is not None
    assert (named.run_name({}), named.run_name({"day": 5})) == ("etl-3", "etl-5")
    assert flow(lambda: 1).run_name is None


def test_a_parameter_that_is_named_parameters_is_just_that() -> None:
    made = task(task_run_name=lambda parameters: f"{parameters}")(lambda parameters, other=1: None)
    assert made.run_name is not None
    assert made.run_name({"parameters": 5}) == "5"


def test_run_if_is_asked_with_the_call_of_the_task() -> None:
    asked: Any = lambda region, rest, day: (region, rest, day)  # noqa: E731 - shown as users write it
    made = task(run_if=asked)(load)
    assert made.run_if
    args, kwargs = made.form.apply(made.bind(("eu", date(2026, 5, 5), 1, 2), {"x": 1}))
    assert made.run_if(*args, **kwargs) == ("eu", (1, 2), date(2026, 5, 5))
    assert made.run_if(**{"region": "us"}) == ("us", (), date(2026, 1, 2))
    assert task(load).run_if is None
