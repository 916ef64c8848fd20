"""Ray's options for a call that asks for certain resources."""

from __future__ import annotations

import json
from typing import Any, Final

import ray

import raflow
from raflow.execute.ray._entrance import entrance
from raflow.model import Resources

# Ray would run each GPU task in a new process (max_calls=1): for trusted code that only costs. All
# retries are raflow's, and task events cost a tenth of the time of a small task.
_OPTIONS: Final[dict[str, Any]] = {
    "max_retries": 0,
    "retry_exceptions": False,
    "max_calls": 0,
    "enable_task_events": False,
}
_REMOTE: Final[Any] = ray.remote(**_OPTIONS)(entrance(raflow.__version__))


class RemoteFunctions:
    """The one remote function, with options for each kind of resources; made once and kept."""

    def __init__(self) -> None:
        self._made: dict[tuple[Resources, int], Any] = {}

    def get(self, resources: Resources, returns: int) -> Any:
        """Return the function to call `.remote` on.

        Args:
            resources: What each call asks for.
            returns: How many objects it returns.
        """
        key = (resources, returns)
        made = self._made.get(key)
        if made is None:
            options = options_of(resources) | {"num_returns": returns}
            made = self._made[key] = _REMOTE.options(**options)
        return made


def options_of(resources: Resources) -> dict[str, object]:
    """Say what resources are in Ray's words; what is not asked for is left out."""
    wanted: dict[str, object] = {
        "num_gpus": resources.num_gpus,
        "memory": resources.memory,
        "resources": dict(resources.custom),
        "accelerator_type": resources.accelerator_type,
        "label_selector": dict(resources.label_selector),
        "scheduling_strategy": resources.scheduling_strategy,
        "runtime_env": json.loads(resources.runtime_env) if resources.runtime_env else None,
    }
    return {"num_cpus": resources.num_cpus} | {k: v for k, v in wanted.items() if v}
