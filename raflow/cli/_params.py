"""Parameters as a person writes them: `--param name=value`, or a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raflow import errors
from raflow.define import Flow
from raflow.model.schedule import MARK


def read_parameters(
    flow: Flow[..., Any], given: Iterable[str], file: Path | None
) -> dict[str, Any]:
    """Return valid parameters of a flow.

    Args:
        flow: The flow: its signature tells whether `5` is a number or a text.
        given: `name=value` texts; they win over the file.
        file: A JSON file that holds an object. Default: none.

    Raises:
        ParameterError: A text has no `=`, the file holds no JSON object, or the flow does not take
            these parameters.
    """
    values = {} if file is None else _read_file(file)
    return flow.validate_arguments({**values, **flow.parse_parameters(split(given))})


def read_changes(flow: Flow[..., Any], given: Iterable[str]) -> dict[str, Any]:
    """Return those parameters of a flow that were given, as `read_parameters` reads them.

    What holds the mark of a slot stays a text: what it becomes is not known yet.
    """
    texts = split(given)
    marked = {name: text for name, text in texts.items() if MARK in text}
    rest = {name: text for name, text in texts.items() if name not in marked}
    return {**flow.parse_parameters(rest), **marked}


def read_plain(given: Iterable[str]) -> dict[str, Any]:
    """Return parameters where there is no flow to ask: JSON where a text is some, else the text.

    Raises:
        ParameterError: A text has no `=`.
    """
    return {name: _plain(text) for name, text in split(given).items()}


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def split(given: Iterable[str]) -> dict[str, str]:
    """Return the texts of `name=value` by name.

    Raises:
        ParameterError: One has no `=`.
    """
    return dict(map(_split, given))


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise errors.ParameterError(
            f"--param {text!r} has no '='. Write --param NAME=VALUE, for example "
            '--param day=2026-01-31 or --param \'regions=["eu", "us"]\'.'
        )
    return name, value


def _read_file(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.ParameterError(
            f"The parameters cannot be read from {str(path)!r}: {error}. Give a JSON file that "
            "holds an object."
        ) from error
    if not isinstance(value, dict):
        raise errors.ParameterError(
            f"{str(path)!r} holds a JSON {type(value).__name__}. Parameters are an object: "
            '{"name": value}.'
        )
    return value
