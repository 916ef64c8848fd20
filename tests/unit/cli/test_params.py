"""Parameters as a person writes them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from raflow import errors, flow
from raflow.cli._params import read_parameters


@flow
def report(day: date, regions: list[str], note: str = "", limit: int | None = None) -> None: ...


def test_texts_and_json_become_what_the_signature_says() -> None:
    given = ["day=2026-01-31", 'regions=["eu", "us"]', "note=5", "limit=7"]
    assert read_parameters(report, given, None) == {
        "day": date(2026, 1, 31),
        "regions": ["eu", "us"],
        "note": "5",
        "limit": 7,
    }


def test_a_value_may_hold_an_equals_sign() -> None:
    given = ["day=2026-01-31", "regions=[]", "note=a=b"]
    assert read_parameters(report, given, None)["note"] == "a=b"


def test_a_file_gives_parameters_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"day": "2026-01-31", "regions": ["eu"], "note": "file"}))
    found = read_parameters(report, ["note=line"], file)
    assert (found["note"], found["regions"]) == ("line", ["eu"])


@pytest.mark.parametrize("given", ["day", "=x", ""])
def test_a_parameter_without_a_name_or_value_is_refused(given: str) -> None:
    with pytest.raises(errors.ParameterError, match="NAME=VALUE"):
        read_parameters(report, [given], None)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1]", "holds a JSON list"), ("{", "cannot be read"), (None, "cannot be read")],
)
def test_a_file_that_holds_no_object_is_refused(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "p.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(errors.ParameterError, match=said):
        read_parameters(report, [], file)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["dya=2026-01-31", "regions=[]"], "Did you mean 'day'"),
        (["day=tomorrow", "regions=[]"], "day="),
        (["day=2026-01-31"], "regions"),
    ],
)
def test_what_the_flow_does_not_take_is_refused_by_name(given: list[str], said: str) -> None:
    with pytest.raises(errors.ParameterError, match=said):
        read_parameters(report, given, None)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"day": "2026-01-31", "regions": [], "ntoe": "x"}))
    with pytest.raises(errors.ParameterError, match="ntoe"):
        read_parameters(report, [], file)
