"""Help for CRIU on machines without CAP_SYS_RESOURCE, where it can't dump processes of several users by itself.

For test nodes only: the answers come from a place that could be a moment older than the kernel's own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from deploy.devnode import rootfs
from deploy.devnode.node import Fittings
from deploy.devnode.rootfs import Say

SOURCE: Final = Path(__file__).with_name("native") / "criu-prlimit.c"
CAP_SYS_RESOURCE: Final = 24  # linux/capability.h
_FOLDER: Final = (
    "/usr/local/sbin"  # comes before CRIU's own in every PATH, and is empty in the tree
)
_LIBRARY: Final = "criu-prlimit.so"
_CRIU: Final = f"""\
#!/bin/sh
LD_PRELOAD={_FOLDER}/{_LIBRARY} exec /usr/sbin/criu "$@"
"""


def fittings(say: Say) -> Fittings:
    """What a node needs so that CRIU works for processes of every user; nothing where it does anyway.

    Raises:
        rootfs.BuildFailed: the compiler failed or is not there.
    """
    if _has_capability(Path("/proc/self/status").read_text()):
        return Fittings()
    return Fittings(
        binds={_FOLDER: rootfs.cached("rlimits", [SOURCE.read_text(), _CRIU], _compile, say)}
    )


def _has_capability(status: str) -> bool:
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def _compile(out: Path, log: Path) -> None:
    out.mkdir()
    argv = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(out / _LIBRARY), str(SOURCE)]
    with log.open("w") as sink:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    criu = out / "criu"
    criu.write_text(_CRIU)
    criu.chmod(0o755)
