"""What an attempt of a flow run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raflow.define import Flow
from raflow.model import TaskRunKey
from raflow.runtime.attempts._retries import Retry
from raflow.runtime.attempts._scope import Parent, Scope
from raflow.runtime.calls import Value
from raflow.runtime.recall import Resumed, Reuse

if TYPE_CHECKING:
    from raflow.model import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an attempt of a flow run begins with: a flow, and what is known of its past."""

    scope: Scope
    """What the run shares with its parent and children."""
    flow: Flow[..., Any]
    parameters: Mapping[str, Any]
    """Valid parameters, by name."""
    name: str | None = None
    """Name of a new run; None: what the flow says, else made from its id."""
    parent: Parent | None = None
    """What the run stands for, if it is a subflow."""
    claim: Claim | None = None
    """The run of a deployment that begins; None: a new one, or one that goes on."""
    resumed: Resumed | None = None
    """The run to go on with, whose name and parent are known; None: a new one."""
    retry: Retry | None = None
    """Which attempt it is, if this process has made one before."""
    reuse: Reuse | None = None
    """What the run takes from an earlier one, as a rerun of that."""
    values: dict[TaskRunKey, Value] = field(default_factory=dict)
    """What the attempt before has computed and not kept."""

    @property
    def refreshes(self) -> bool:
        """Whether all values are computed anew, even those that are cached."""
        return self.flow.options.refresh_cache or (
            self.parent is not None and self.parent.refreshes
        )

    @property
    def is_durable(self) -> bool:
        """Whether nothing may start before the results that it needs are on disk."""
        return self.flow.options.durability == "task"
