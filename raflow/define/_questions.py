"""Questions to people: a form that pydantic knows, and the answer to it.

Importing this module imports pydantic, which takes long: import it when a question is asked.
"""

from __future__ import annotations

from typing import Any

import pydantic

from raflow import errors
from raflow.define._requests import Question


class Form:
    """A type that an answer must have."""

    def __init__(self, form: Any) -> None:
        """Take a pydantic model, or another type that JSON can carry.

        Raises:
            DefinitionError: JSON cannot carry it.
        """
        self._name = form.__name__ if isinstance(form, type) else str(form)
        try:
            self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(form)
            self._schema = self._adapter.json_schema()
        except (pydantic.errors.PydanticUserError, TypeError) as error:
            raise errors.DefinitionError(
                f"No form can be made of {self._name}: {error}. Ask for a pydantic model, or for a "
                "type that JSON can carry, such as bool or list[str]."
            ) from error

    def question(
        self,
        default: object,
        timeout_seconds: float | None,
        assignees: tuple[str, ...],
        title: str,
    ) -> Question:
        """Return what is asked.

        Raises:
            DefinitionError: The default does not fit the form.
        """
        return Question(
            title=title or str(self._schema.get("title") or self._name),
            form=self._schema,
            default=None if default is None else self._written(default),
            timeout_seconds=timeout_seconds,
            assignees=assignees,
        )

    def read(self, answer: bytes, title: str) -> Any:
        """Return the value of an answer.

        Args:
            answer: JSON.
            title: Of the question, for errors.

        Raises:
            ParameterError: It does not fit the form.
        """
        try:
            return self._adapter.validate_json(answer)
        except pydantic.ValidationError as error:
            raise errors.ParameterError(
                f"The answer to the question {title!r} does not fit {self._name}: {_why(error)}. "
                "Rerun the flow run, and give an answer that does.",
                title=title,
            ) from error

    def _written(self, default: object) -> bytes:
        try:
            value = self._adapter.validate_python(default)
        except pydantic.ValidationError as error:
            raise errors.DefinitionError(
                f"default={default!r} does not fit {self._name}: {_why(error)}. Give a value that "
                "would be an answer, or none."
            ) from error
        return self._adapter.dump_json(value)


def _why(error: pydantic.ValidationError) -> str:
    faults = error.errors(include_url=False)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in faults
    )
