"""The base image of builds on this machine: Debian by debootstrap, because there is no registry to take one from."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy.devnode.rootfs import LEASHED, MIRROR, SCRIPTS, Say
from deploy.images.storage import Storage

SUITE: Final = "trixie"  # the first one whose CRIU (4.1) works on kernels from 6.11 on
_APART: Final = (*LEASHED, "unshare", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "--")


def ready(storage: Storage, say: Say) -> str:
    """The name of the base image in ``storage``, made now if it is not there.

    Raises:
        BuildFailed: debootstrap or buildah failed; the message names the log.
    """
    recipe = json.dumps([SUITE, "minbase", 3])
    name = f"localhost/snap-base:{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    if storage.has(name):
        return name
    say(f"making the base image (Debian {SUITE})")
    with storage.scratch("base") as folder:
        tree = folder / "tree"
        script = [] if (SCRIPTS / SUITE).exists() else [str(SCRIPTS / "sid")]
        argv = [*_APART, "debootstrap", "--variant=minbase", SUITE, str(tree), MIRROR, *script]
        storage.run(argv, "base")
        _import(storage, tree, name)
    return name


def _import(storage: Storage, tree: Path, name: str) -> None:
    """Make an image of one layer from ``tree``."""
    for unneeded in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(tree / unneeded, ignore_errors=True)
        (tree / unneeded / "partial").mkdir(parents=True)
    for own in ("hostname", "resolv.conf"):  # debootstrap's copies of this machine's own
        (tree / "etc" / own).write_text("")
    archive = tree.with_name("base.tar")
    subprocess.run(["tar", "-C", str(tree), "-cf", str(archive), "."], check=True)
    dockerfile = tree.with_name("Dockerfile")
    dockerfile.write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
    build = ["bud", "--isolation", "chroot", "--timestamp", "0", "-f", str(dockerfile), "-t", name]
    storage.buildah([*build, str(tree.parent)], "base")
