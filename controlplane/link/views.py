"""What is known of every node that ever joined, connected or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from controlplane.link.fleet import Fleet
from controlplane.link.frames import NodeFacts, NodeStatus
from controlplane.link.session import STALE_S, Session
from controlplane.store import clock
from controlplane.store.agents import SeenAgent

_NOTHING: Final = NodeStatus()
_BEING_PREPARED: Final = "BeingPrepared"  # the agents' code for it


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as its agent last reported it.

    Attributes:
        last_seen: RFC 3339 UTC.
        stale: that was more than a minute ago.
    """

    cluster: str
    node: str
    connected: bool
    last_seen: str
    stale: bool
    agent_version: str
    facts: NodeFacts
    status: NodeStatus


class NodeDirectory:
    """Every known node. Those that are away are remembered as they were last seen."""

    def __init__(self, fleet: Fleet, seen: Iterable[SeenAgent]) -> None:
        self._fleet = fleet
        self._seen = {(agent.cluster, agent.node): _remembered(agent) for agent in seen}

    def nodes(self, cluster: str = "") -> list[NodeView]:
        """The nodes of one cluster or of all, by name."""
        latest = {key: self._view(session) for key, session in self._fleet.latest().items()}
        known = self._seen | latest
        return [view for key, view in sorted(known.items()) if cluster in ("", key[0])]

    def drivers(self, cluster: str) -> dict[str, tuple[str, ...]]:
        """For each node of a cluster whose agent is there, how it restores."""
        return {
            view.node: tuple(view.facts.restore_drivers)
            for view in self.nodes(cluster)
            if view.connected
        }

    def being_prepared(self, cluster: str) -> frozenset[str]:
        """The nodes of a cluster that their agents are about to prepare for restores."""
        return frozenset(
            view.node
            for view in self.nodes(cluster)
            if view.connected and any(r.code == _BEING_PREPARED for r in view.status.reasons)
        )

    def away_s(self, cluster: str, node: str) -> float:
        """Seconds since a node was heard of, at most since this process began."""
        return self._fleet.away_s(cluster, node)

    def _view(self, session: Session) -> NodeView:
        return NodeView(
            session.cluster,
            session.node,
            connected=self._fleet.is_connected(session.cluster, session.node),
            last_seen=session.last_seen,
            stale=session.silent_s > STALE_S,
            agent_version=session.agent_version,
            facts=session.facts,
            status=session.status or _NOTHING,
        )


def _remembered(agent: SeenAgent) -> NodeView:
    """As it was before this process began."""
    return NodeView(
        agent.cluster,
        agent.node,
        connected=False,
        last_seen=agent.last_seen,
        stale=_is_stale(agent.last_seen),
        agent_version=agent.agent_version,
        facts=msgspec.json.decode(agent.facts_json, type=NodeFacts),
        status=msgspec.json.decode(agent.status_json, type=NodeStatus),
    )


def _is_stale(last_seen: str) -> bool:
    if not last_seen:
        return True
    return (datetime.now(UTC) - clock.parse(last_seen)).total_seconds() > STALE_S
