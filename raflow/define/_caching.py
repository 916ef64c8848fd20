"""What makes two calls of a task the same: policies from which cache keys are made.

The policies are those of Prefect and compose like them: `INPUTS + TASK_SOURCE`, `INPUTS - "log"`.
Unlike there, tasks of different names share no key, unless a function of the user's makes it; and
where a part of a policy gives no key, the call is not cached, instead of by the other parts alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias

from raflow import errors


class Fingerprint(Protocol):
    """Makes a text of a value that is equal for equal values: `raflow.results.fingerprint`."""

    def __call__(self, value: object, name: str, /) -> str:
        """Return the fingerprint of a value that errors call `name`.

        Raises:
            CacheKeyError: It has none.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyParts:
    """What is known about a call when its key is made."""

    task: str
    """Name of the task."""
    source: Callable[[], str]
    """Returns the fingerprint of the task's code; asked only if it counts."""
    arguments: Mapping[str, Any]
    """By parameter name, with defaults."""
    flow_parameters: Mapping[str, Any]
    """Parameters of the flow run, by name."""
    flow_run_id: str
    fingerprint: Fingerprint


CacheKeyFn: TypeAlias = Callable[[KeyParts, Mapping[str, Any]], str | None]
"""Called `(parts, arguments)`; returns a key, or None for a call that is not to be cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Which calls of a task are the same; made of `INPUTS` and the other policies by `+` and `-`.

    Policies can be compared and pickled.
    """

    inputs: bool = False
    """Whether the arguments count."""
    without: frozenset[str] = frozenset()
    """Parameters that do not count, although the others do."""
    task_source: bool = False
    """Whether the code of the task, and of what it refers to, counts."""
    flow_parameters: bool = False
    """Whether the parameters of the flow run count."""
    run_id: bool = False
    """Whether the flow run counts: what another one has computed is not taken."""
    functions: tuple[CacheKeyFn, ...] = ()
    """Functions whose keys count."""

    @property
    def caches(self) -> bool:
        """Whether there is anything to make a key of."""
        ways = (self.inputs, self.task_source, self.flow_parameters, self.run_id, self.functions)
        return any(ways)

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """Return a policy by which all that counts for one of the two counts."""
        if not isinstance(other, CachePolicy):
            return NotImplemented
        own = (f for f in other.functions if f not in self.functions)
        return CachePolicy(
            inputs=self.inputs or other.inputs,
            without=self.without | other.without,
            task_source=self.task_source or other.task_source,
            flow_parameters=self.flow_parameters or other.flow_parameters,
            run_id=self.run_id or other.run_id,
            functions=(*self.functions, *own),
        )

    def __sub__(self, parameter: str) -> CachePolicy:
        """Return a policy by which an argument does not count.

        Raises:
            DefinitionError: The arguments do not count anyway.
        """
        if not isinstance(parameter, str):
            return NotImplemented
        if not self.inputs:
            raise errors.DefinitionError(
                f"{parameter!r} cannot be left out of a cache policy by which no argument counts. "
                f"Begin with INPUTS: `INPUTS - {parameter!r}`."
            )
        return replace(self, without=self.without | {parameter})

    def check(self, owner: str, signature: inspect.Signature) -> None:
        """Check that the parameters left out exist.

        Raises:
            DefinitionError: One does not; names `owner`, its parameters and the closest one.
        """
        known = list(signature.parameters)
        for name in sorted(self.without.difference(known)):
            near = errors.closest(name, known)
            raise errors.DefinitionError(
                f"{owner}: cache_policy leaves out {name!r}, which is not one of its parameters "
                f"({', '.join(known) or 'it has none'})."
                f"{f' Did you mean {near[0]!r}?' if near else ''}"
            )

    def key(self, parts: KeyParts) -> str | None:
        """Return the key of a call; None if it is not to be cached.

        Raises:
            CacheKeyError: Something that counts has no fingerprint; names the task and the
                argument, and a remedy.
            Exception: Whatever a function of the user's raises.
        """
        if not self.caches:
            return None
        made = [_made_key(parts, function) for function in self.functions]
        if None in made:
            return None
        if self == CachePolicy(functions=self.functions[:1]):
            return made[0]
        return parts.fingerprint(("call", parts.task, made, self._counting(parts)), "key")

    def _counting(self, parts: KeyParts) -> dict[str, object]:
        """Return what counts, by name, with fingerprints in place of values."""
        counting: dict[str, object] = {}
        if self.inputs:
            counting["inputs"] = self._inputs(parts)
        if self.task_source:
            counting["source"] = parts.source()
        if self.flow_parameters:
            counting["parameters"] = {
                name: _of_parameter(parts, name, value)
                for name, value in parts.flow_parameters.items()
            }
        if self.run_id:
            counting["run"] = parts.flow_run_id
        return counting

    def _inputs(self, parts: KeyParts) -> dict[str, str]:
        counting = (item for item in parts.arguments.items() if item[0] not in self.without)
        return {name: _of_argument(parts, name, value) for name, value in counting}


def CacheKeyFnPolicy(cache_key_fn: CacheKeyFn) -> CachePolicy:
    """Return a policy by which the key that a function returns counts."""
    return CachePolicy(functions=(cache_key_fn,))


INPUTS: Final = CachePolicy(inputs=True)
"""The arguments, with defaults, count."""
TASK_SOURCE: Final = CachePolicy(task_source=True)
"""The code counts: of the task, and of the functions of the same package that it refers to."""
FLOW_PARAMETERS: Final = CachePolicy(flow_parameters=True)
"""The parameters of the flow run count."""
RUN_ID: Final = CachePolicy(run_id=True)
"""The flow run counts: values are found again only within it."""
DEFAULT: Final = INPUTS + TASK_SOURCE + RUN_ID
"""What Prefect takes by default: the same call of the same code, within a flow run."""
NO_CACHE: Final = CachePolicy()
"""Nothing is cached."""


def _of_argument(parts: KeyParts, name: str, value: object) -> str:
    try:
        return parts.fingerprint(value, name)
    except errors.CacheKeyError as error:
        raise errors.CacheKeyError(
            f"Task {parts.task!r}: its argument {name!r} has no cache key: {error} Or leave it out "
            f"of what counts: `cache_policy=INPUTS - {name!r}`.",
            task=parts.task,
            argument=name,
        ) from error


def _of_parameter(parts: KeyParts, name: str, value: object) -> str:
    try:
        return parts.fingerprint(value, name)
    except errors.CacheKeyError as error:
        raise errors.CacheKeyError(
            f"Task {parts.task!r}: the parameter {name!r} of the flow has no cache key: {error} Or "
            "take a cache_policy without FLOW_PARAMETERS.",
            task=parts.task,
            parameter=name,
        ) from error


def _made_key(parts: KeyParts, function: CacheKeyFn) -> str | None:
    key = function(parts, parts.arguments)
    if key is not None and (not isinstance(key, str) or not key):
        raise errors.CacheKeyError(
            f"Task {parts.task!r}: its cache_key_fn returned {key!r}. Return a text with something "
            "in it, or None for a call that is not to be cached.",
            task=parts.task,
        )
    return key
