"""Building the two images, or finding them built from the same content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from deploy.devnode.instance import cache_root
from deploy.devnode.rootfs import REPOSITORY, Say, locked
from deploy.images import base
from deploy.images.layout import Layout
from deploy.images.storage import Storage

HALVES: Final = ("api", "agent")
# what .dockerignore lets through
CONTENT: Final = (
    "README.md",
    "agent",
    "controlplane",
    "deploy/images/inside",
    "hatch_build.py",
    "protos",
    "pyproject.toml",
)
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_KEPT: Final = 4  # builds of each half


def ready(say: Say) -> Mapping[str, Layout]:
    """Both images by half, built now where their content has changed (minutes at first, then seconds).

    Raises:
        BuildFailed: one could not be made; the message ends with the log's last lines.
    """
    cache = cache_root()
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "images-build.lock"):
        return {half: _ready(half, say) for half in HALVES}


def version() -> str:
    """The project's version, as the wheel has it."""
    found = re.search(r'__version__ = "(.+)"', (REPOSITORY / "agent/__init__.py").read_text())
    if found is None:
        raise RuntimeError("agent/__init__.py has no __version__")
    return found[1]


def _ready(half: str, say: Say) -> Layout:
    key = content_key(half)
    done = Layout(cache_root() / f"image-{half}-{key}", f"snap-{half}")
    if done.folder.is_dir():
        os.utime(done.folder)
        return done
    storage = Storage.usual()
    storage.log(half).unlink(missing_ok=True)
    storage.keep_small()
    name = f"localhost/snap-{half}:{key}"
    foundation = base.ready(storage, say)
    say(f"building the image snap-{half} (log in {storage.log(half)})")
    with storage.building():
        argv = ["bud", *_options(half, foundation, key), "-t", name, str(REPOSITORY)]
        storage.buildah(argv, half)
    with storage.scratch(half) as folder:
        storage.buildah(["push", name, f"oci:{folder / 'layout'}:latest"], half)
        (folder / "layout").rename(done.folder)
    _forget_old(half)
    return done


def _options(half: str, foundation: str, key: str) -> Iterator[str]:
    """Of ``buildah bud``: repeatable, with the machine's authorities for pip behind a proxy of its own."""
    yield from ("--layers", "--isolation", "chroot", "--network", "host", "--timestamp", "0")
    yield from ("-f", str(REPOSITORY / f"Dockerfile.{half}"))
    given = {"BASE_IMAGE": foundation, "VERSION": version(), "REVISION": f"content-{key}"}
    if AUTHORITIES.exists():
        yield from ("--volume", f"{AUTHORITIES}:/run/ca.crt:ro")
        given["PIP_CERT"] = "/run/ca.crt"
    for name, value in given.items():
        yield from ("--build-arg", f"{name}={value}")


def content_key(half: str) -> str:
    """A hash of everything that the image of ``half`` is made of."""
    seen = hashlib.sha256(base.SUITE.encode())
    for path in (REPOSITORY / f"Dockerfile.{half}", *_files()):
        seen.update(f"{path.relative_to(REPOSITORY)} {path.stat().st_mode & 0o111:o}\0".encode())
        seen.update(hashlib.sha256(path.read_bytes()).digest())
    return seen.hexdigest()[:12]


def _files() -> Iterator[Path]:
    for name in CONTENT:
        top = REPOSITORY / name
        found = [top] if top.is_file() else sorted(top.rglob("*"))
        yield from (path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _forget_old(half: str) -> None:
    """Keep the layouts that were used last."""
    folders = sorted(cache_root().glob(f"image-{half}-*"), key=lambda one: one.stat().st_mtime)
    for old in folders[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
