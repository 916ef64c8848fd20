"""Parameters of a flow: checked and coerced by pydantic from the types in the signature.

Importing this module imports pydantic, which takes long: import it when a flow is first used.
"""

from __future__ import annotations

import functools
import inspect
import json
import types
import typing
from collections.abc import Mapping
from inspect import Parameter
from typing import Any, Final

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from raflow import errors
from raflow.define._definition import Definition

_CONFIG: Final = pydantic.ConfigDict(arbitrary_types_allowed=True, extra="forbid")
_VARIADIC: Final = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


class Parameters:
    """Checks the parameters of one flow."""

    def __init__(self, definition: Definition, around: Mapping[str, Any]) -> None:
        """Take a flow.

        Args:
            definition: The flow.
            around: Names from around its definition that the types may need.
        """
        self._definition = definition
        self._owner = definition.owner
        self._signature = definition.signature
        self._around = around

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, unchecked, without defaults.

        Raises:
            ParameterError: A parameter is missing, unknown or given twice.
        """
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            for name in kwargs:
                self._check_known(name)
            raise errors.ParameterError(
                f"{self._owner} cannot run with these parameters: {error}. {self._declared()}"
            ) from None

    def with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Add the defaults of what is not given."""
        bound = inspect.BoundArguments(self._signature, dict(arguments))
        bound.apply_defaults()
        return dict(bound.arguments)

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments coerced to their types, with defaults.

        Raises:
            ParameterError: One does not fit its type; names flow, parameter and value.
            DefinitionError: A type cannot be understood.
        """
        return self._validated(self._model, arguments)

    def parse(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Turn texts, such as those of a command line, into values of the right types.

        A text is read as JSON if that fits the parameter's type, and as itself otherwise.

        Raises:
            ParameterError: A name is unknown, or a text does not fit.
        """
        for name in texts:
            self._check_known(name)
        return {name: self._parse_one(name, text) for name, text in texts.items()}

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the parameters."""
        schema = self._model.model_json_schema(schema_generator=_LenientSchema)
        return {**schema, "title": self._definition.name}

    @functools.cached_property
    def _model(self) -> type[pydantic.BaseModel]:
        return self._model_of(list(self._signature.parameters.values()))

    def _model_of(self, parameters: list[Parameter]) -> type[pydantic.BaseModel]:
        fields: dict[str, Any] = {}
        for position, p in enumerate(parameters):
            # By alias, because a field named `_x` or `schema` would clash with pydantic's own.
            field = pydantic.Field(_default_of(p), alias=p.name)
            fields[f"field_{position}"] = (self._type_of(p), field)
        try:
            return pydantic.create_model("Parameters", __config__=_CONFIG, **fields)
        except (pydantic.errors.PydanticUserError, TypeError) as error:
            raise errors.DefinitionError(
                f"{self._owner}: the types of its parameters cannot be used to check them: "
                f"{error}. Change them, or declare the flow with validate_parameters=False."
            ) from error

    def _type_of(self, p: Parameter) -> Any:
        declared: Any = self._types.get(p.name, Any)
        if p.kind is Parameter.VAR_POSITIONAL:
            return types.GenericAlias(tuple, (declared, ...))
        if p.kind is Parameter.VAR_KEYWORD:
            return types.GenericAlias(dict, (str, declared))
        return declared

    @functools.cached_property
    def _types(self) -> dict[str, Any]:
        fn = inspect.unwrap(self._definition.fn)
        annotated = _types_only(self._signature)
        closure = dict(inspect.getclosurevars(fn).nonlocals) if inspect.isfunction(fn) else {}
        try:
            return typing.get_type_hints(
                annotated,
                globalns=getattr(fn, "__globals__", {}),
                localns={**self._around, **closure},
                include_extras=True,
            )
        except (NameError, AttributeError, SyntaxError, TypeError) as error:
            raise errors.DefinitionError(
                f"{self._owner}: the types of its parameters cannot be resolved: {error}. "
                "They are needed when the flow runs, so import them outside `if TYPE_CHECKING:`, "
                "or declare the flow with validate_parameters=False."
            ) from error

    def _validated(
        self, model: type[pydantic.BaseModel], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            checked = model.model_validate(dict(arguments))
        except pydantic.ValidationError as error:
            raise self._explain(error) from error
        fields = model.model_fields.items()
        return {field.alias or name: getattr(checked, name) for name, field in fields}

    def _parse_one(self, name: str, text: str) -> Any:
        p = self._signature.parameters.get(name)
        if p is None or p.kind in _VARIADIC:
            p = Parameter(name, Parameter.KEYWORD_ONLY)  # one of `**options`
        if self._type_of(p) is str:
            return text
        model = self._model_of([p])
        try:
            value = json.loads(text)
        except ValueError:
            return self._validated(model, {name: text})[name]
        try:
            return self._validated(model, {name: value})[name]
        except errors.ParameterError:
            if isinstance(value, list | dict):
                raise
            return self._validated(model, {name: text})[name]

    def _explain(self, error: pydantic.ValidationError) -> errors.ParameterError:
        faults = error.errors(include_url=False)
        return errors.ParameterError(
            f"{self._owner} cannot run with these parameters: "
            f"{'; '.join(_fault(f['type'], f['loc'], f['input'], f['msg']) for f in faults)}. "
            f"{self._declared()}",
            parameter=str(faults[0]["loc"][0]),
        )

    def _check_known(self, name: str) -> None:
        parameters = self._signature.parameters.values()
        known = [p.name for p in parameters if p.kind not in _VARIADIC]
        if name in known or any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
            return
        near = errors.closest(name, known)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise errors.ParameterError(
            f"{self._owner} has no parameter {name!r}.{hint} {self._declared()}",
            parameter=name,
            closest=near,
        )

    def _declared(self) -> str:
        return f"It is declared as {self._definition.declaration}."


class _LenientSchema(GenerateJsonSchema):
    """Describes what JSON can describe, and leaves the rest open: a table, an object of a class."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - theirs

    def handle_invalid_for_json_schema(self, *_: Any, **__: Any) -> JsonSchemaValue:
        return {}


def _types_only(signature: inspect.Signature) -> type:
    """Return something that has the annotations of the parameters, and no others."""
    holder = type("Annotated", (), {})
    holder.__annotations__ = {
        name: p.annotation
        for name, p in signature.parameters.items()
        if p.annotation is not Parameter.empty
    }
    return holder


def _default_of(p: Parameter) -> Any:
    if p.kind is Parameter.VAR_POSITIONAL:
        return ()
    if p.kind is Parameter.VAR_KEYWORD:
        return {}
    return ... if p.default is Parameter.empty else p.default


def _fault(kind: str, path: tuple[int | str, ...], given: object, message: str) -> str:
    if kind == "missing" and len(path) == 1:
        return f"{path[0]!r} is missing"
    where = str(path[0]) + "".join(f"[{part!r}]" for part in path[1:])
    shown = repr(given)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"{where}={shown} does not fit ({message})"
