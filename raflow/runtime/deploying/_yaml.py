"""YAML as data, with the line of each key: what YAML 1.2 takes for text stays text."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]
"""Where a value is: keys, and positions in lists."""

_DEEPEST: Final = 50
_LARGEST: Final = 100_000
_MERGE: Final = "tag:yaml.org,2002:merge"


class NotYamlError(Exception):
    """The text is no YAML that is read here; has the line, from 1, and what is wrong."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Placed:
    """A document, and on which line, from 1, each of its values begins."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Return the line of a value, or of the nearest one around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str) -> Placed:
    """Read a document.

    Raises:
        NotYamlError: It is none, has a key twice, or is too deep or too large.
    """
    found = Placed()
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            found.value = _value(loader, node, (), found)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise NotYamlError(
            1 if mark is None else mark.line + 1, f"this is no YAML: {what}"
        ) from error
    except yaml.YAMLError as error:
        raise NotYamlError(1, f"this is no YAML: {error}") from error
    finally:
        loader.dispose()
    return found


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it comes without types
    """Resolves plain scalars as YAML 1.2 does: `on`, `1:30` and `2026-01-31` are texts."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), list(_first)
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def _value(loader: _Loader, node: yaml.Node, path: Path, found: Placed) -> Any:
    line = node.start_mark.line + 1
    found.lines.setdefault(path, line)
    if len(path) > _DEEPEST or len(found.lines) > _LARGEST:
        raise NotYamlError(line, "this is too deep, or the whole is too large")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, found)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, one, (*path, n), found) for n, one in enumerate(node.value)]
    return loader.construct_object(node)


def _mapping(loader: _Loader, node: yaml.MappingNode, path: Path, found: Placed) -> dict[str, Any]:
    own = [key.value for key, _ in node.value if key.tag != _MERGE]
    for key, _ in node.value:
        if isinstance(key.value, Hashable) and own.count(key.value) > 1:
            last = [one for one, _ in node.value if one.value == key.value][-1]
            raise NotYamlError(
                last.start_mark.line + 1, f"the key {key.value!r} is there twice. Remove one."
            )
    loader.flatten_mapping(node)
    made: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise NotYamlError(key.start_mark.line + 1, "a key is a text")
        inner = (*path, key.value)
        found.lines[inner] = key.start_mark.line + 1
        made[key.value] = _value(loader, value, inner, found)
    return made
