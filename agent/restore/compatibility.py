"""Whether this node can run what a checkpoint holds, from the fingerprint; asked before CRIU is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.formats.fingerprint import Fingerprint

_HEX: Final = re.compile(r"[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class NodeTraits:
    """What a restore depends on here. ``oci_runtime`` is runc or crun."""

    architecture: str
    kernel: str
    criu_version: str
    cgroup_version: str
    cpu_features: frozenset[str]
    criu_features: frozenset[str] = frozenset()


def obstacle(
    needs: Fingerprint, here: NodeTraits, *, oci_runtime: str, image_digests: frozenset[str]
) -> str:
    """The first reason why it can't be restored here, as one sentence; "" when there is none.

    Args:
        needs: the checkpoint's.
        here: this node's.
        oci_runtime: runc or crun, which is to restore it.
        image_digests: what the new container's image is known by: its config's and manifest's digests.
    """
    for reason in _obstacles(needs, here, oci_runtime, image_digests):
        return reason
    return ""


def _obstacles(
    needs: Fingerprint, here: NodeTraits, oci_runtime: str, image_digests: frozenset[str]
) -> Iterator[str]:
    if needs.architecture != here.architecture:
        yield f"the checkpoint is of architecture {needs.architecture}, this node is {here.architecture}"
    if missing := sorted(set(needs.cpu_features) - here.cpu_features):
        yield f"the CPU lacks {', '.join(missing[:5])}, which the checkpointed process may use"
    if _numbers(here.kernel)[:2] < _numbers(needs.kernel)[:2]:
        yield f"the checkpoint needs Linux {needs.kernel} or later, this node has {here.kernel}"
    if not here.criu_version:
        yield "CRIU is not on this node"
    elif _numbers(here.criu_version)[:1] < _numbers(needs.criu_version)[:1]:
        yield f"the checkpoint is of CRIU {needs.criu_version}, this node has {here.criu_version}"
    if needs.cgroup_version and needs.cgroup_version != here.cgroup_version:
        yield f"the checkpoint is of cgroup {needs.cgroup_version}, this node has {here.cgroup_version}"
    if needs.oci_runtime and needs.oci_runtime != oci_runtime:
        yield f"the checkpoint is of {needs.oci_runtime}, this container is run by {oci_runtime}"
    wanted = digests_in(needs.image_id, needs.image_ref)
    if wanted and not image_digests:
        yield "the runtime does not tell the image of the container"
    elif wanted and not wanted & image_digests:
        yield f"the pod's image is another than the checkpoint's ({needs.image_ref or needs.image_id})"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version; empty (before all others) where there is none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def digests_in(*references: str) -> frozenset[str]:
    """The bare hex digests that image ids (``sha256:…`` or without) and NAME@DIGEST references hold."""
    return frozenset(found[0] for text in references if (found := _HEX.search(text)))
