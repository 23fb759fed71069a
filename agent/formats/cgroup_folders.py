"""The cgroups of a dump that looked at none (``manage-cgroups ignore``), written into its images afterwards.

CRIU reads every file of a container's cgroups while it stands still. Where these are only those that its runtime made,
no restore uses what was read: they are there before it, with the new pod's values. What a restore does need are their
paths: runc tells CRIU the new one of each hierarchy, and CRIU puts it in the place of the folders that the image names.
Without any it would move the processes into cgroups of the old paths.

Source: CRIU, criu/cgroup.c (collect_cgroups, rewrite_cgroup_roots, prepare_cgroup_dirs); runc,
libcontainer/criu_linux.go (criuApplyCgroups).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.formats import criu_images, criu_wire

IMAGE = "cgroup.img"


def complete(images: Path) -> bool:
    """Name in ``images`` the cgroups that tasks were in, in hierarchies that have none; whether there were such.

    Raises:
        ValueError: the image can't be read.
    """
    image = images / IMAGE
    try:
        content = image.read_bytes()
    except FileNotFoundError:  # every task was in CRIU's own cgroups
        return False
    messages = list(criu_images.entries(content))
    if not messages:
        return False
    known = criu_wire.cgroup_hierarchies_of(messages[0])
    folders = [{} if one.has_folders else _tree(one.paths) for one in known]
    if not any(folders):
        return False
    messages[0] = criu_wire.with_cgroup_folders(messages[0], folders)
    partial = image.with_name(f"{IMAGE}.tmp")
    partial.write_bytes(criu_images.build(criu_images.magic_of(content), messages))
    partial.replace(image)
    return True


def _tree(paths: Iterable[str]) -> dict[str, list[str]]:
    """Folders as CRIU names them, without the first slash; below each what lies in it, relative to it."""
    tree: dict[str, list[str]] = {}
    for name in sorted({path.strip("/") for path in paths}):
        above = next((one for one in tree if not one or name.startswith(f"{one}/")), None)
        if above is None:
            tree[name] = []
        else:
            tree[above].append(name.removeprefix(above).strip("/"))
    return tree
