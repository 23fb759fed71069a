"""Whether a checkpoint that is here may become this new container on this node: all that its files tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent import errors
from agent.formats import core_images, fingerprint, layout, template
from agent.restore import comparison, compatibility, host_files, privileges, rootfs
from agent.restore.cold import StartCold
from agent.restore.compatibility import NodeTraits
from agent.restore.preparation import Checkpoint, NewContainer
from agent.runtimes import addresses
from agent.runtimes.commands import Host


@dataclass(frozen=True, slots=True)
class Here:
    """Where it is to run.

    Attributes:
        oci_runtime: runc or crun.
        image_digests: what the new container's image is known by.
    """

    host: Host
    traits: NodeTraits
    oci_runtime: str
    image_digests: frozenset[str]


def check(parts: Path, new: NewContainer, here: Here) -> Checkpoint:
    """The checkpoint in ``parts``, if it may become ``new`` here. Blocks.

    Raises:
        StartCold: it may not, or it is damaged.
    """
    images = parts / layout.CHECKPOINT_DIR
    old = _read(parts)
    if reason := compatibility.obstacle(
        old.fingerprint,
        here.traits,
        oci_runtime=here.oci_runtime,
        image_digests=here.image_digests,
    ):
        raise StartCold("incompatible", f"Not restored: {reason}.")
    try:
        excess = privileges.excess(core_images.threads(images), old.template, new.template)
    except (OSError, ValueError) as cause:
        raise StartCold("damaged", f"Not restored: {cause}.") from cause
    if reason := comparison.difference(
        old.template,
        new.template,
        memory_bytes=old.memory_bytes,
        is_there=lambda path: here.host.path(path).exists(),
    ):
        raise StartCold("differs", f"Not restored: {reason}.")
    if excess:
        raise StartCold("privileges", f"Not restored: {excess}.")
    if reason := host_files.obstacle(here.host, old.fingerprint.host_files, new.template.mounts):
        raise StartCold("host_files", f"Not restored: {reason}.")
    return old


async def check_addresses(host: Host, old: Checkpoint, new: NewContainer) -> None:
    """CRIU would fail at a socket that is bound to an address which this pod has not.

    Raises:
        StartCold: there is such a socket.
    """
    wanted = old.fingerprint.addresses
    if not wanted:
        return
    try:
        there = await addresses.of_namespace(host, rootfs.namespace(new.spec, "network"))
    except errors.SnapError as cause:
        raise StartCold.unfit(cause) from cause
    if missing := sorted(set(wanted) - there):
        raise StartCold(
            "address",
            f"Not restored: it listens at {missing[0]}, an address of the old pod that this one "
            "has not; have it listen at any address (0.0.0.0, ::).",
        )


def _read(parts: Path) -> Checkpoint:
    try:
        known, pod = fingerprint.read(parts), template.read(parts)
        memory = core_images.memory(parts / layout.CHECKPOINT_DIR)
        sizes = memory.pages_bytes, memory.lazy_bytes, memory.address_spaces
        return Checkpoint(parts, known, pod, *sizes)
    except FileNotFoundError as cause:
        missing = Path(str(cause.filename)).name
        raise StartCold("damaged", f"Not restored: the checkpoint has no {missing}.") from cause
    except (OSError, ValueError) as cause:
        raise StartCold("damaged", f"Not restored: {cause}.") from cause
