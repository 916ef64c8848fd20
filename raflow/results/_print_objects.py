"""Fingerprints of dataclasses, pydantic models, functions and classes."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from typing import Any

from raflow.define import BoundTask, Definition, code_fingerprint
from raflow.results._describe import type_name
from raflow.results._digest import Encode, Writer
from raflow.results._print_plain import write_class

_BUILTIN_FUNCTIONS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
)


def encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class; None for those that are of no such kind."""
    if dataclasses.is_dataclass(cls):
        return _dataclass
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _model
    for base, encode in _KINDS:
        if issubclass(cls, base):
            return encode
    return None


def _dataclass(writer: Writer, value: Any) -> None:
    writer.tag("dataclass")
    write_class(writer, type(value))
    writer.enter(value)
    for field in dataclasses.fields(value):
        if field.compare and hasattr(value, field.name):
            writer.value(field.name)
            writer.part(f".{field.name}", getattr(value, field.name))
    writer.leave(value)


def _model(writer: Writer, value: Any) -> None:
    writer.tag("model")
    write_class(writer, type(value))
    writer.enter(value)
    fields = type(value).model_fields
    known = {name: inner for name, inner in value.__dict__.items() if name in fields}
    parts = known | (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})
    writer.number(len(parts))
    for name in sorted(parts):
        writer.value(name)
        writer.part(f".{name}", parts[name])
    writer.leave(value)


def _function(writer: Writer, value: types.FunctionType) -> None:
    depth = writer.depth_of(value)
    if depth is not None:  # a function that calls itself has itself in its closure
        writer.tag("above")
        writer.number(depth)
        return
    writer.tag("function")
    writer.value(code_fingerprint(value))
    writer.enter(value)
    writer.part(".__defaults__", value.__defaults__)
    writer.part(".__kwdefaults__", value.__kwdefaults__)
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        writer.part(f".<{name}>", _content(cell))
    writer.leave(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _method(writer: Writer, value: types.MethodType) -> None:
    writer.tag("method")
    writer.part(".__self__", value.__self__)
    writer.part(".__func__", value.__func__)


def _builtin(writer: Writer, value: Any) -> None:
    writer.tag("builtin")
    writer.value((getattr(value, "__module__", None), value.__qualname__))
    owner = getattr(value, "__self__", None)
    writer.part(".__self__", None if isinstance(owner, types.ModuleType) else owner)


def _partial(writer: Writer, value: functools.partial[Any]) -> None:
    writer.tag("partial")
    writer.enter(value)
    writer.part(".func", value.func)
    writer.part(".args", value.args)
    writer.part(".keywords", value.keywords)
    writer.leave(value)


def _definition(writer: Writer, value: Definition) -> None:
    writer.tag(value.kind)
    writer.value(code_fingerprint(value.fn))


def _bound_task(writer: Writer, value: BoundTask[..., Any]) -> None:
    writer.tag("bound task")
    writer.part(".task", value.task)
    writer.part(".__self__", value.fn.__self__)  # type: ignore[attr-defined]  # a method


def _class(writer: Writer, value: type) -> None:
    writer.tag("class")
    writer.value((type_name(value), code_fingerprint(value)))


_KINDS: tuple[tuple[type, Encode], ...] = (
    (type, _class),
    (types.FunctionType, _function),
    (types.MethodType, _method),
    (functools.partial, _partial),
    (Definition, _definition),
    (BoundTask, _bound_task),
    *((kind, _builtin) for kind in _BUILTIN_FUNCTIONS),
)
