"""One image with six real applications from Debian's packages, for tests of what users run.

Redis, PostgreSQL, nginx, Node.js, Python with NumPy, and a JVM with its compiler.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Final

from agent.formats.jobs import RegistryAccess
from agent.image import writer
from agent.image.writer import ImageConfig, ImageSource
from deploy.devnode import rootfs
from deploy.devnode.registries import Registry
from deploy.devnode.rootfs import LEASHED, Say

SUITE: Final = "bookworm"  # a release: its packages keep their names and versions
PACKAGES: Final = (
    "redis-server",
    "nginx-light",
    "python3-numpy",
    "postgresql",
    "openjdk-17-jdk-headless",
    "nodejs",
    "procps",
)
UNNEEDED: Final = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/lib/jvm/java-17-openjdk-amd64/jmods",
)
REPOSITORY: Final = "apps"
_PATH: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def publish(registry: Registry, say: Say) -> str:
    """Push the image to ``registry`` (running), made now if it is not there yet; its name.

    Raises:
        rootfs.BuildFailed: debootstrap failed.
    """
    made = rootfs.cached(REPOSITORY, [SUITE, *PACKAGES, *UNNEEDED], _build, say)
    access = RegistryAccess(registry.host, ca_pem=registry.ca.read_text())
    # not compressed: it goes no further than this machine
    image = ImageSource((made / "layer.tar",), ImageConfig(env=_PATH), compression="none")
    asyncio.run(writer.push_image(access, REPOSITORY, "latest", image))
    return f"{registry.host}/{REPOSITORY}:latest"


def _build(out: Path, log: Path) -> None:
    tree = out / "tree"
    out.mkdir()
    rootfs.debootstrap(tree, log, PACKAGES, SUITE)
    for name in UNNEEDED:
        shutil.rmtree(tree / name, ignore_errors=True)
    pack = ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(tree), "-cf"]
    argv = [*LEASHED, *pack, str(out / "layer.tar"), "."]
    with log.open("a") as sink:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    shutil.rmtree(tree)
