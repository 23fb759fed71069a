"""Which nodes can restore a checkpoint, by its fingerprint; the node itself has the last word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import msgspec


class Traits(Protocol):
    """What an agent told of its node (``link.frames.NodeFacts``)."""

    @property
    def architecture(self) -> str: ...

    @property
    def kernel(self) -> str: ...

    @property
    def criu_version(self) -> str: ...

    @property
    def cgroup_version(self) -> str: ...

    @property
    def cpu_features(self) -> tuple[str, ...]: ...


class Needs(msgspec.Struct, frozen=True):
    """What of a checkpoint's fingerprint depends on the node."""

    architecture: str = ""
    kernel: str = ""
    criu_version: str = ""
    cgroup_version: str = ""
    cpu_features: frozenset[str] = frozenset()


def read_needs(fingerprint_json: str) -> Needs:
    """What a fingerprint needs; nothing where it can't be read."""
    try:
        return msgspec.json.decode(fingerprint_json, type=Needs)
    except msgspec.MsgspecError:
        return Needs()


def fitting(needs: Needs, nodes: Mapping[str, Traits]) -> frozenset[str]:
    """The nodes that have what is needed."""
    return frozenset(name for name, traits in nodes.items() if fits(needs, traits))


def fits(needs: Needs, node: Traits) -> bool:
    """Whether a node has what is needed; what is not known of it counts as there."""
    if needs.architecture and node.architecture not in ("", needs.architecture):
        return False
    if node.cpu_features and not needs.cpu_features <= frozenset(node.cpu_features):
        return False
    if node.kernel and _numbers(node.kernel)[:2] < _numbers(needs.kernel)[:2]:
        return False
    if node.criu_version and _numbers(node.criu_version)[:1] < _numbers(needs.criu_version)[:1]:
        return False
    return not needs.cgroup_version or node.cgroup_version in ("", needs.cgroup_version)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
