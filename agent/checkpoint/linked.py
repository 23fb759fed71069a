"""Binds that crun names otherwise than CRIU finds them, and would so put into the dump.

crun tells CRIU of each bind by the name that the pod gave it. Where a link of the image leads elsewhere (/var/run is
one to /run in most), CRIU finds it under another name and dumps what is in it: a service account's token, for one.
So CRIU is told of the real place as well. runc follows the links itself.

Source: crun, src/libcrun/criu.c (libcrun_container_checkpoint_linux_criu); criu(8), ``external mnt[…]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from agent import errors
from agent.formats.template import Template
from agent.runtimes import mounts
from agent.runtimes.commands import Host
from agent.runtimes.runc import OciRuntime

_PLAIN: Final = re.compile(r"/[A-Za-z0-9@_+,.=/-]*")  # goes into a line of CRIU's configuration


def binds(
    host: Host, oci: OciRuntime | None, pid: int, asked: Template
) -> tuple[tuple[str, str], ...]:
    """Place and name of each bind behind a link, for containers that crun runs. Blocks.

    Raises:
        Refused: one can't be told to CRIU.
    """
    if oci is None or oci.binary != "crun":
        return ()
    try:
        named = [m.destination for m in asked.mounts if m.source.startswith("/")]
        real = [(mounts.place_of(host, pid, name), name.rstrip("/")) for name in named]
        points = {mount.point for mount in mounts.of_process(host, pid)}
    except OSError as cause:
        raise errors.Refused("The container ended while it was looked at.") from cause
    found = tuple((place, name) for place, name in real if place != name and place in points)
    for place, name in found:
        if not (_PLAIN.fullmatch(place) and _PLAIN.fullmatch(name)):
            raise errors.Refused(
                f"What is mounted at {name} would be stored in the checkpoint, for its place has a "
                "character that CRIU can't be told of; mount it elsewhere."
            )
    return found


def options(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The lines for CRIU's configuration; ``preparation`` gives the binds by the same names again."""
    return tuple(f"external mnt[{place}]:{name}" for place, name in found)


def refuse(engine: str, container: str, found: tuple[tuple[str, str], ...]) -> None:
    """Refuse an engine that can't tell CRIU.

    Raises:
        Refused: it would store what is mounted there.
    """
    if found and engine != "runc":
        raise errors.Refused(
            f"Engine {engine} would store what container {container} has mounted at {found[0][1]} in the "
            "checkpoint (crun does, behind a link of the image); use engine runc."
        )
