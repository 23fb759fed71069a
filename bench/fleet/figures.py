"""The figures of the fleet and their goals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.case import rounded


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; smaller is better.

    Attributes:
        notes: what else was seen.
    """

    row: str
    about: str
    unit: str
    value: float
    limit: float
    notes: Mapping[str, float]

    @property
    def reached(self) -> bool:
        """Whether the goal is."""
        return self.value <= self.limit

    def json(self) -> dict[str, object]:
        """Everything, the verdict last."""
        return {
            "row": self.row,
            "unit": self.unit,
            "ours": rounded(self.value),
            "notes": {name: rounded(value) for name, value in self.notes.items()},
            "goal": f"≤ {self.limit:g} {self.unit}",
            "reached": self.reached,
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is to be."""

    row: str
    about: str
    unit: str
    limit: float

    def figure(self, value: float, notes: Mapping[str, float]) -> Figure:
        """The figure that was measured."""
        return Figure(self.row, self.about, self.unit, value, self.limit, notes)


class Goals:
    """All of them."""

    AT_REST: Final = Goal(
        "fleet-at-rest", "the control plane, a status of every agent each 10 s", "% of a core", 15.0
    )
    MEMORY: Final = Goal(
        "fleet-memory", "for each agent, above a bare grpc.aio server with TLS", "KiB", 64.0
    )
    NEWS: Final = Goal(
        "fleet-news",
        "update sent by the agent → event at the WebSocket that sees all, p99; overtaken updates "
        "count until a newer one is seen",
        "ms",
        50.0,
    )
    RETURN: Final = Goal(
        "fleet-return", "start of the new process → the last agent is welcomed", "s", 30.0
    )
    REST: Final = Goal("fleet-rest", "slowest answer of REST while they come back", "s", 1.0)
    RETURN_KILLED: Final = Goal(
        "fleet-return-killed", "the same, after the process before was killed", "s", 30.0
    )
    REST_KILLED: Final = Goal(
        "fleet-rest-killed", "slowest answer of REST while they come back from that", "s", 1.0
    )
