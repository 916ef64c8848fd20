"""Answers to questions: read from texts, and checked against the JSON Schema of the form."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import jsonschema

from raflow import errors

Schema: TypeAlias = Mapping[str, Any]

_WORDS: Final = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}


class Form:
    """What an answer must look like."""

    def __init__(self, schema: Schema, title: str) -> None:
        """Take the JSON Schema of an answer, and what the question is called."""
        self.title = title
        self._schema = schema
        self.fields: Mapping[str, Schema] = self._resolved(schema).get("properties", {})
        """The fields of an answer by name; none if the answer is one value."""

    def needs(self, field: str) -> bool:
        """Whether a field has no default."""
        return field in self._resolved(self._schema).get("required", ())

    def kind(self, field: str | None = None) -> str:
        """Return in a few words what a field takes, or the answer if it has no fields."""
        return _kind(self._resolved(self._part(field)), self._resolved)

    def of_fields(self, texts: Iterable[str]) -> dict[str, Any]:
        """Return an answer from `name=value` texts.

        Raises:
            ParameterError: A text has no `=`, there is no such field, or a value does not fit.
        """
        answer: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise errors.ParameterError(
                    f"--field {text!r} has no '='. Write --field NAME=VALUE, for example --field "
                    f"{next(iter(self.fields), 'approved')}=yes."
                )
            if name not in self.fields:
                remedy = f"The form has: {', '.join(self.fields) or 'none; use --json-answer'}."
                raise errors.NotFoundError.of("field", name, self.fields, remedy)
            answer[name] = self.value(value, name)
        return answer

    def of_json(self, text: str) -> Any:
        """Return an answer from JSON.

        Raises:
            ParameterError: It is no JSON.
        """
        try:
            return json.loads(text)
        except ValueError as error:
            raise errors.ParameterError(
                f"--json-answer {text!r} is no JSON: {error}. A text needs quotes of its own: "
                "--json-answer '\"yes\"'."
            ) from error

    def value(self, text: str, field: str | None = None) -> Any:
        """Return the value of a field, or of an answer without fields, that a person wrote.

        Raises:
            ParameterError: It does not fit.
        """
        part = self._part(field)
        readings = _readings(text)
        if self._resolved(part).get("type") == "string":
            readings.reverse()
        fitting = [value for value in readings if self._fault(value, part) is None]
        if not fitting:
            what = f"{field}={text!r}" if field else repr(text)
            raise errors.ParameterError(
                f"{what} does not fit the form {self.title!r}: give {self.kind(field)}."
            )
        return fitting[0]

    def check(self, answer: object) -> None:
        """Refuse an answer that does not fit the form.

        Raises:
            ParameterError: Says what does not fit, and where.
        """
        fault = self._fault(answer, self._schema)
        if fault is not None:
            where = ".".join(str(step) for step in fault.absolute_path)
            raise errors.ParameterError(
                f"The answer does not fit the form {self.title!r}: {where + ': ' if where else ''}"
                f"{fault.message}. Nothing was written."
            )

    def _part(self, field: str | None) -> Schema:
        return self._schema if field is None else self.fields[field]

    def _fault(self, value: object, part: Schema) -> jsonschema.ValidationError | None:
        # The definitions stand in the whole form, and its parts name them.
        whole = {**part, "$defs": self._schema.get("$defs", {})}
        found = jsonschema.Draft202012Validator(whole).iter_errors(value)
        best: jsonschema.ValidationError | None = jsonschema.exceptions.best_match(found)
        return best

    def _resolved(self, part: Schema) -> Schema:
        reference = part.get("$ref", "")
        if not reference.startswith("#/$defs/"):
            return part
        named: Schema = self._schema["$defs"][reference.removeprefix("#/$defs/")]
        return {**named, **{name: value for name, value in part.items() if name != "$ref"}}


def _readings(text: str) -> list[Any]:
    """Return what a text may mean, the likeliest first."""
    readings: list[Any] = []
    if text.lower() in _WORDS:
        readings.append(_WORDS[text.lower()])
    with contextlib.suppress(ValueError):
        readings.insert(0, json.loads(text))
    return [*readings, text]


def _kind(part: Schema, resolved: Any) -> str:
    if "enum" in part:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in part["enum"])
    if "const" in part:
        return json.dumps(part["const"], ensure_ascii=False)
    several = part.get("anyOf") or part.get("oneOf")
    if several:
        return " or ".join(_kind(resolved(one), resolved) for one in several)
    plain = {"boolean": "yes or no", "string": "text", "object": "a JSON object"}
    kind = str(part.get("format") or part.get("type") or "any JSON value")
    if kind == "array":
        return f"a JSON list of {_kind(resolved(part.get('items', {})), resolved)}"
    return plain.get(kind, kind)
