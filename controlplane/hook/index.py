"""What new pods may start from, in memory: a snapshot that admission reads without waiting for anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from controlplane.hook.fitting import Needs, Traits, fitting, read_needs
from controlplane.hook.nodes import DECIDING, NodeSeen, could_use
from controlplane.kube.workloads import ContainerSeen, PodSeen
from controlplane.store.starts import StartTimes
from controlplane.store.workloads import Offer
from controlplane.workload import Workload

_KEPT: Final = 1000
_encode = msgspec.json.Encoder(order="deterministic").encode
_Key = tuple[str, str, str, str, str, str]


class Index:
    """Offers by what a pod that is being created tells of itself; never changed once made."""

    def __init__(
        self, offers: Iterable[Offer] = (), times: Mapping[Workload, StartTimes] | None = None
    ) -> None:
        self._offers: defaultdict[_Key, list[Offer]] = defaultdict(list)
        self._needs: dict[str, Needs] = {}
        self._not_worth_it = {w: t.not_worth_it for w, t in (times or {}).items() if t.not_worth_it}
        for offer in offers:
            for namespace in offer.namespaces:
                self._offers[_key(offer.workload, namespace)].append(offer)

    def find(self, cluster: str, pod: PodSeen, container: ContainerSeen) -> Sequence[Offer]:
        """The offers for a container of ``pod``, newest first; which image it will run is not known yet."""
        wanted = pod.workload(cluster, container)
        return self._offers.get(_key(wanted, pod.namespace), ())

    def not_worth_it(self, offer: Offer) -> str:
        """Why its workload is better started cold; empty: nothing is known against it."""
        return self._not_worth_it.get(offer.workload, "")

    def needs(self, offer: Offer) -> Needs:
        """What it needs of a node."""
        if offer.checkpoint_id not in self._needs:
            self._needs[offer.checkpoint_id] = read_needs(offer.fingerprint_json)
        return self._needs[offer.checkpoint_id]


def _key(workload: Workload, namespace: str) -> _Key:
    w = workload
    return (w.cluster, namespace, w.owner_kind, w.owner_name, w.container, w.template_hash)


@dataclass(slots=True)
class ClusterSeen:
    """A cluster as admission needs it; a new one is made at every change.

    Attributes:
        has_runtime_class: pods can ask for the handler.
        traits: what agents told of their nodes, by name.
    """

    has_runtime_class: bool = False
    nodes: Sequence[NodeSeen] = ()
    traits: Mapping[str, Traits] = field(default_factory=dict)
    _fitting: dict[str, frozenset[str]] = field(default_factory=dict)
    _usable: dict[bytes, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def usable(self, spec: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
        """Where a pod with ``spec`` could run: a node that can't restore ("": none), and all that can."""
        # pods of a template ask for the same, and a large cluster is long to look through
        key = _encode([spec.get(name) for name in DECIDING])
        found = self._usable.get(key)
        if found is None:
            if len(self._usable) >= _KEPT:
                self._usable.clear()
            nodes = [n for n in self.nodes if n.takes_pods and could_use(spec, n)]
            prepared = tuple(n.name for n in nodes if n.is_prepared)
            others = (n.name for n in nodes if not n.is_prepared)
            found = self._usable[key] = (next(others, ""), prepared)
        return found

    def fitting(self, offer: Offer, needs: Needs) -> frozenset[str]:
        """The nodes that have what an offer needs, or of which nothing is known."""
        found = self._fitting.get(offer.checkpoint_id)
        if found is None:
            unknown = frozenset(n.name for n in self.nodes) - self.traits.keys()
            found = self._fitting[offer.checkpoint_id] = fitting(needs, self.traits) | unknown
        return found
