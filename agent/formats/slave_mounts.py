"""Files that a runtime binds into containers follow no mount of the node they were checkpointed on.

CRI-O binds them as slaves of the mounts that they come from, containerd privately. CRIU gives a restored slave the
new node's mount as its original, which the kernel refuses where the files come from several file systems there.
Nothing can be mounted on such a file from outside, so it loses nothing.

Source: CRIU, criu/mount-v2.c (restore_one_sharing), images/mnt.proto; kernel, fs/namespace.c (do_set_group).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.formats import criu_entries_wire, criu_images, criu_wire

FILES: Final = frozenset(
    [
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/dev/termination-log",
        "/run/.containerenv",
    ]
)


def make_private(images: Path) -> int:
    """Have the mounts of such files in ``images`` private; how many were not.

    Raises:
        ValueError: the images can't be read.
    """
    return sum(_in_namespace(image) for image in sorted(images.glob("mountpoints-*.img")))


def _in_namespace(image: Path) -> int:
    content = image.read_bytes()
    entries, changed = [], 0
    for message in criu_images.entries(content):
        mount = criu_entries_wire.mount_of(message)
        if mount.is_slave and mount.mountpoint.removeprefix(".") in FILES:
            entries.append(criu_wire.without_master(message))
            changed += 1
        else:
            entries.append(message)
    if changed:
        partial = image.with_name(f"{image.name}.tmp")
        partial.write_bytes(criu_images.build(criu_images.magic_of(content), entries))
        partial.replace(image)
    return changed
