"""Parameters of a flow: checked before anything runs, described, read from texts."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
import pydantic
import pytest

from raflow import errors
from raflow.define import Flow, flow

if TYPE_CHECKING:
    from decimal import Decimal


class Mode(enum.Enum):
    ADD = "add"
    REPLACE = "replace"


class Window(pydantic.BaseModel):
    start: date
    days: int = 1


@dataclass
class Place:
    city: str


BERN = Place("Bern")


@flow
def etl(  # type: ignore[no-untyped-def]  # users leave types out
    day: date,
    regions: list[str],
    mode: Mode = Mode.ADD,
    window: Window | None = None,
    place: Place = BERN,
    limit: Annotated[int, pydantic.Field(gt=0, description="How many rows.")] = 10,
    anything=None,
) -> None: ...


@flow
def odd(
    _private: int,
    /,
    schema: str,
    copy: bool = False,
    *rest: int,
    model_config: float = 1,
    **more: int,
) -> None: ...


def test_values_are_coerced_and_defaults_filled_in() -> None:
    assert etl.validate(
        "2026-01-01", ("eu", "us"), mode="replace", window={"start": "2026-02-02"}
    ) == {
        "day": date(2026, 1, 1),
        "regions": ["eu", "us"],
        "mode": Mode.REPLACE,
        "window": Window(start=date(2026, 2, 2)),
        "place": Place("Bern"),
        "limit": 10,
        "anything": None,
    }


def test_what_fits_already_is_not_copied() -> None:
    window, place, table = Window(start=date(2026, 1, 1)), Place("Ulm"), pl.DataFrame({"a": [1]})

    @flow
    def takes(window: Window, place: Place, table: pl.DataFrame) -> None: ...

    checked = takes.validate(window, place, table)
    assert checked["window"] is window
    assert checked["place"] is place
    assert checked["table"] is table
    with pytest.raises(errors.ParameterError, match="table=3 does not fit"):
        takes.validate(window, place, 3)


def test_odd_names_and_variable_arguments() -> None:
    checked = odd.validate(1, "s", True, "4", 5, model_config=2, x="6")
    assert checked == {
        "_private": 1,
        "schema": "s",
        "copy": True,
        "rest": (4, 5),
        "model_config": 2.0,
        "more": {"x": 6},
    }
    assert odd.form.apply(checked) == ((1, "s", True, 4, 5), {"model_config": 2.0, "x": 6})
    with pytest.raises(errors.ParameterError, match=r"rest\[1\]='b' does not fit"):
        odd.validate(1, "s", True, 4, "b")


@pytest.mark.parametrize(
    ("args", "kwargs", "told", "parameter"),
    [
        (
            ("tomorrow", []),
            {},
            "day='tomorrow' does not fit (Input should be a valid date",
            "day",
        ),
        (
            (date(2026, 1, 1), "eu"),
            {},
            "regions='eu' does not fit (Input should be a valid list)",
            "regions",
        ),
        ((date(2026, 1, 1), [1]), {}, "regions[0]=1 does not fit", "regions"),
        (
            (date(2026, 1, 1), []),
            {"mode": "ad"},
            "mode='ad' does not fit (Input should be 'add' or",
            "mode",
        ),
        (
            (date(2026, 1, 1), []),
            {"limit": 0},
            "limit=0 does not fit (Input should be greater",
            "limit",
        ),
        (
            (date(2026, 1, 1), []),
            {"window": {"days": 1}},
            "window['start']={'days': 1} does not fit (Field required)",
            "window",
        ),
        ((), {"dya": 1}, "has no parameter 'dya'. Did you mean 'day'?", "dya"),
        ((), {"regions": []}, "missing a required argument: 'day'", None),
        ((1,) * 8, {}, "too many positional arguments", None),
        ((1,), {"day": 1}, "multiple values for argument 'day'", None),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(
    args: Any, kwargs: Any, told: str, parameter: str | None
) -> None:
    with pytest.raises(errors.ParameterError) as caught:
        etl.validate(*args, **kwargs)
    assert str(caught.value).startswith("Flow 'etl' ")
    assert told in str(caught.value)
    assert "It is declared as etl(day: date, regions: list[str], mode: Mode = " in str(caught.value)
    assert caught.value.details.get("parameter") == parameter


def test_every_fault_is_told_at_once_and_long_values_are_cut() -> None:
    with pytest.raises(errors.ParameterError) as caught:
        etl.validate("x" * 200, 3)
    assert "day='xxx" in str(caught.value)
    assert "x..." in str(caught.value)
    assert "; regions=3 does not fit" in str(caught.value)
    assert "x" * 100 not in str(caught.value)


def test_arguments_by_name_are_checked_alike() -> None:
    with pytest.raises(errors.ParameterError) as caught:
        etl.validate_arguments({"dya": 1})
    assert "'day' is missing; 'regions' is missing; dya=1 does not fit" in str(caught.value)
    assert etl.validate_arguments({"day": date(2026, 1, 1), "regions": []})["limit"] == 10


def test_without_validation_values_pass_as_they_are() -> None:
    made = etl.with_options(validate_parameters=False)
    checked = made.validate("x", 3)
    assert (checked["day"], checked["regions"], checked["limit"]) == ("x", 3, 10)
    with pytest.raises(errors.ParameterError, match="Did you mean 'day'"):
        made.validate(dya=3)


def test_a_mutable_default_is_fresh_each_time() -> None:
    @flow
    def gather(found: list[int] = []) -> None: ...  # noqa: B006 - what users write

    gather.validate()["found"].append(1)
    assert gather.validate() == {"found": []}


def test_types_known_only_around_the_declaration() -> None:
    class Local(pydantic.BaseModel):
        x: int

    @flow
    def inner(value: Local, more: list[Local] = []) -> None: ...  # noqa: B006 - what users write

    assert inner.validate({"x": "1"})["value"] == Local(x=1)
    assert inner.with_options(name="n").validate(value={"x": 2})["value"] == Local(x=2)


def test_types_that_cannot_be_used_are_refused_with_a_remedy() -> None:
    @flow
    def hidden(price: Decimal) -> None: ...

    with pytest.raises(errors.DefinitionError) as caught:
        hidden.validate(1)
    assert "Flow 'hidden': the types of its parameters cannot be resolved" in str(caught.value)
    assert "'Decimal' is not defined" in str(caught.value)
    assert "outside `if TYPE_CHECKING:`" in str(caught.value)
    assert hidden.with_options(validate_parameters=False).validate(1) == {"price": 1}

    @flow
    def strange(x: Annotated[int, pydantic.Field(discriminator="kind")]) -> None: ...

    with pytest.raises(errors.DefinitionError, match="cannot be used to check them"):
        strange.validate(1)


def test_the_schema_describes_the_parameters() -> None:
    schema = etl.parameter_schema()
    assert (schema["title"], schema["type"], schema["required"]) == (
        *("etl", "object"),
        ["day", "regions"],
    )
    properties = schema["properties"]
    assert [*properties] == [
        *("day", "regions", "mode", "window", "place", "limit", "anything"),
    ]
    assert properties["day"] == {"format": "date", "title": "Day", "type": "string"}
    assert properties["limit"]["description"] == "How many rows."
    assert (properties["limit"]["default"], properties["mode"]["default"]) == (10, "add")
    assert set(schema["$defs"]) == {"Mode", "Place", "Window"}
    assert next(iter(odd.parameter_schema()["properties"])) == "_private"


def test_the_schema_leaves_open_what_json_cannot_say() -> None:
    @flow
    def takes(table: pl.DataFrame, hook: Any = print, size: int = 1) -> None: ...

    assert takes.parameter_schema() == {
        "title": "takes",
        "type": "object",
        "additionalProperties": False,
        "required": ["table"],
        "properties": {
            "table": {"title": "Table"},
            "hook": {"title": "Hook"},
            "size": {"default": 1, "title": "Size", "type": "integer"},
        },
    }


@flow
def typed(
    text: str,
    number: int = 0,
    flag: bool = False,
    when: date = date(2026, 1, 1),
    names: list[str] = [],  # noqa: B006 - what users write
    either: int | str = 0,
    maybe: str | None = None,
    level: Literal["low", "high"] = "low",
    path: Path = Path(),
    window: Window | None = None,
    wait: timedelta = timedelta(),
    free: Any = None,
    **more: int,
) -> None: ...


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "5", "5"),
        ("text", '"quoted"', '"quoted"'),
        ("text", "", ""),
        ("number", "5", 5),
        ("number", "-5", -5),
        ("flag", "true", True),
        ("flag", "no", False),
        ("when", "2026-02-03", date(2026, 2, 3)),
        ("names", '["a", "b"]', ["a", "b"]),
        ("either", "5", 5),
        ("either", "five", "five"),
        ("maybe", "null", None),
        ("maybe", "5", "5"),
        ("maybe", "x", "x"),
        ("level", "high", "high"),
        ("path", "a/b", Path("a/b")),
        ("window", '{"start": "2026-01-01"}', Window(start=date(2026, 1, 1))),
        ("wait", "PT5S", timedelta(seconds=5)),
        ("free", "[1]", [1]),
        ("free", "text", "text"),
        ("anything_else", "5", 5),
    ],
)
def test_texts_are_read_by_the_type_they_are_for(name: str, text: str, value: Any) -> None:
    assert typed.parse_parameters({name: text}) == {name: value}


@pytest.mark.parametrize(
    ("made", "texts", "told"),
    [
        (typed, {"number": "five"}, "number='five' does not fit (Input should be a valid integer"),
        (typed, {"names": "a,b"}, "names='a,b' does not fit (Input should be a valid list"),
        (typed, {"names": "[1]"}, "names[0]=1 does not fit"),
        (typed, {"level": "mid"}, "level='mid' does not fit (Input should be 'low' or 'high'"),
        (etl, {"dya": "1"}, "Flow 'etl' has no parameter 'dya'. Did you mean 'day'?"),
    ],
)
def test_a_text_that_does_not_fit_is_named(
    made: Flow[..., Any], texts: dict[str, str], told: str
) -> None:
    with pytest.raises(errors.ParameterError) as caught:
        made.parse_parameters(texts)
    assert told in str(caught.value)
