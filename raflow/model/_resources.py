"""Resource hints of a task, what a cluster offers, and whether the two fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from raflow import errors

_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def parse_bytes(text: str | float) -> int:
    """Turn `"2GiB"`, `"500 MB"` or a number of bytes into a number of bytes.

    Raises:
        DefinitionError: The text is no size.
    """
    match = _SIZE.fullmatch(str(text))
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise errors.DefinitionError(
            f"memory={text!r} is not a size. Write bytes as a number, or a text such as '500MB' or "
            "'2GiB'."
        )
    return int(float(match.group(1)) * unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one call of a task asks of the cluster; names and meaning are Ray's.

    Calls with equal `Resources` may travel together. Use `Resources.of` to build one from what a
    user wrote.
    """

    num_cpus: float = 1.0
    """CPU cores."""
    num_gpus: float = 0.0
    """GPUs; fractions share one."""
    memory: int = 0
    """Bytes that must be free on the node for the task to be placed there; 0: not considered."""
    custom: tuple[tuple[str, float], ...] = ()
    """Ray's `resources`: named amounts that nodes declare; sorted by name."""
    accelerator_type: str | None = None
    """A type of accelerator, by Ray's name for it."""
    label_selector: tuple[tuple[str, str], ...] = ()
    """Labels a node must carry; sorted by key."""
    scheduling_strategy: object | None = field(default=None, hash=False)
    """`"DEFAULT"`, `"SPREAD"` or one of Ray's strategy objects."""
    runtime_env: str | None = None
    """Ray's `runtime_env` as canonical JSON."""

    @classmethod
    def of(
        cls,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: str | float | None = None,
        resources: Mapping[str, float] | None = None,
        accelerator_type: str | None = None,
        label_selector: Mapping[str, str] | None = None,
        scheduling_strategy: object | None = None,
        runtime_env: Mapping[str, object] | None = None,
    ) -> Resources:
        """Check the hints a user wrote and put them in canonical form.

        Raises:
            DefinitionError: A hint is negative, or of the wrong form.
        """
        amounts = {"num_cpus": num_cpus, "num_gpus": num_gpus, **dict(resources or {})}
        for name, amount in amounts.items():
            _check_amount(name, amount)
        return cls(
            num_cpus=1.0 if num_cpus is None else float(num_cpus),
            num_gpus=float(num_gpus or 0),
            memory=parse_bytes(memory) if memory is not None else 0,
            custom=tuple(sorted((name, float(n)) for name, n in (resources or {}).items())),
            accelerator_type=accelerator_type,
            label_selector=tuple(sorted((label_selector or {}).items())),
            scheduling_strategy=scheduling_strategy,
            runtime_env=_canonical_env(runtime_env),
        )

    def amounts(self) -> dict[str, float]:
        """Return what is asked for as Ray's resource names and amounts; zeros are left out."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory)}
        if self.accelerator_type:
            wanted[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return {name: n for name, n in (wanted | dict(self.custom)).items() if n}


def _check_amount(name: str, amount: object) -> None:
    if amount is None:
        return
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
        raise errors.DefinitionError(
            f"{name}={amount!r} is not an amount. Give a number that is zero or more."
        )


def _canonical_env(runtime_env: Mapping[str, object] | None) -> str | None:
    if not runtime_env:
        return None
    try:
        return json.dumps(runtime_env, sort_keys=True)
    except TypeError as error:
        raise errors.DefinitionError(
            f"runtime_env={runtime_env!r} holds something that JSON cannot carry ({error}). Use "
            "texts, numbers, lists and dicts only."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCapacity:
    """All that one node of a cluster has, busy or not."""

    name: str
    """The node's address or host name."""
    amounts: Mapping[str, float]
    """Ray's resource names (`CPU`, `GPU`, `memory` in bytes, custom ones) and amounts."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The node's labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """All nodes that a backend can place tasks on."""

    nodes: tuple[NodeCapacity, ...]
    remedy: str = ""
    """What a person can do to get more, in words."""

    @property
    def cpus(self) -> float:
        """CPU cores of all nodes together."""
        return sum(node.amounts.get("CPU", 0.0) for node in self.nodes)


def shortfall(wanted: Resources, capacity: Capacity) -> str | None:
    """Say why no node could ever run a call with these resources; None if one can.

    A node that is busy now counts as one that can. Label selectors are checked for plain
    `key=value` only; Ray's operators (`in(...)`, `!...`) are left to Ray.
    """
    amounts = wanted.amounts()
    if any(_offers(node, amounts, wanted.label_selector) for node in capacity.nodes):
        return None
    for hint, name in _HINTS.items():
        if name in amounts:
            best = max((n.amounts.get(name, 0.0) for n in capacity.nodes), default=0.0)
            if best < amounts[name]:
                return f"{hint}={_show(name, amounts[name])}, but {_most(name, best)}"
    return _other_shortfall(wanted, amounts, capacity.nodes)


def places(wanted: Resources, capacity: Capacity) -> int:
    """Return how many calls with these resources can run at the same time; at least one."""
    amounts = wanted.amounts()
    total = 0
    for node in capacity.nodes:
        if _offers(node, amounts, wanted.label_selector):
            asked = {name: amount for name, amount in amounts.items() if amount}
            # A call that asks for nothing shares the cores with the others.
            limits = asked or {"CPU": 1.0}
            total += int(min(node.amounts.get(name, 0.0) / n for name, n in limits.items()))
    return max(total, 1)


_HINTS: Final = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


def _other_shortfall(
    wanted: Resources, amounts: Mapping[str, float], nodes: Iterable[NodeCapacity]
) -> str:
    nodes = list(nodes)
    for name, amount in wanted.custom:
        best = max((node.amounts.get(name, 0.0) for node in nodes), default=0.0)
        if best < amount:
            return f"resources={{{name!r}: {amount:g}}}, but {_most(name, best)}"
    if wanted.accelerator_type and not any(
        node.amounts.get(f"accelerator_type:{wanted.accelerator_type}") for node in nodes
    ):
        return f"accelerator_type={wanted.accelerator_type!r}, which no node has"
    if wanted.label_selector and not any(_labels_fit(n, wanted.label_selector) for n in nodes):
        return f"label_selector={dict(wanted.label_selector)!r}, which no node carries"
    asked = ", ".join(f"{name}={_show(name, n)}" for name, n in sorted(amounts.items()))
    return f"{asked} together, but no single node has all of it"


def _offers(
    node: NodeCapacity, amounts: Mapping[str, float], labels: tuple[tuple[str, str], ...]
) -> bool:
    enough = all(node.amounts.get(name, 0.0) >= n for name, n in amounts.items())
    return enough and _labels_fit(node, labels)


def _labels_fit(node: NodeCapacity, labels: tuple[tuple[str, str], ...]) -> bool:
    plain = [(key, value) for key, value in labels if not value.startswith(("in(", "!"))]
    return all(node.labels.get(key) == value for key, value in plain)


def _show(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g}GiB" if name == "memory" else f"{amount:g}"


def _most(name: str, best: float) -> str:
    return f"the most that one node has is {_show(name, best)}" if best else "no node has any"
