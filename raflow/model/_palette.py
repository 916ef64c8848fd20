"""How each state type looks, wherever it is shown: in graphs, on the terminal, in the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from raflow.model._state import StateType


class StateLook(NamedTuple):
    """The colour and the sign of a state type; the sign alone tells every type apart."""

    fill: str
    """Background, as `#rrggbb`. The colours are Okabe and Ito's, which colour-blind people can tell
    apart."""
    ink: str
    """Colour of a text on that background."""
    icon: str
    """One character."""


PALETTE: Final[Mapping[StateType, StateLook]] = MappingProxyType(
    {
        StateType.SCHEDULED: StateLook("#f0e442", "#000000", "◷"),
        StateType.PENDING: StateLook("#dddddd", "#000000", "○"),
        StateType.RUNNING: StateLook("#56b4e9", "#000000", "▶"),
        StateType.PAUSED: StateLook("#e69f00", "#000000", "‖"),
        StateType.CANCELLING: StateLook("#bbbbbb", "#000000", "◌"),
        StateType.COMPLETED: StateLook("#009e73", "#000000", "✔"),
        StateType.FAILED: StateLook("#d55e00", "#000000", "✘"),
        StateType.CRASHED: StateLook("#cc79a7", "#000000", "✱"),
        StateType.CANCELLED: StateLook("#999999", "#000000", "⊘"),
        StateType.SKIPPED: StateLook("#ffffff", "#555555", "↷"),
    }
)
