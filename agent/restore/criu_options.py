"""CRIU's configuration file for one restore: the dump's options that also matter here, and ours.

Given by the annotation ``org.criu.config`` of the bundle's ``config.json``, which runc and crun hand to CRIU.

Source: criu(8), "Configuration files"; runc and crun, annotation ``org.criu.config``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ANNOTATION: Final = "org.criu.config"
# Nothing else of an image's options is used: action-script, exec-cmd and lib would run code as root.
_KEPT: Final = frozenset(
    [
        "tcp-close",
        "tcp-established",
        "file-locks",
        "skip-in-flight",
        "link-remap",
        "evasive-devices",
        "force-irmap",
        "ghost-limit",
        "network-lock",
        "ext-unix-sk",
    ]
)
_PATH: Final = re.compile(r"/[A-Za-z0-9@_+,.~=/:-]*")  # it must not end the line, or add to it
_PLAIN: Final = re.compile(r"[a-z-]+(?: [A-Za-z0-9./_-]+)?")


def for_restore(of_dump: str, binds: Mapping[str, str] | None = None) -> str:
    """The file's text: restored tasks are left stopped, and go on when the container is started.

    Args:
        of_dump: the options of the dump, one on a line.
        binds: what is mounted on the node, by the names that the dump has for the mounts; what the runtime gives
            itself need not be among them.
    """
    lines = [line.strip() for line in of_dump.splitlines()]
    kept = [line for line in lines if _PLAIN.fullmatch(line) and line.split()[0] in _KEPT]
    given = (binds or {}).items()
    externals = [
        f"external mnt[{name}]:{source}"
        for name, source in given
        if _PATH.fullmatch(name) and _PATH.fullmatch(source)
    ]
    return "\n".join([*kept, *externals, "leave-stopped", ""])
