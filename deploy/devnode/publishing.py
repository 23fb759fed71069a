"""Pushing the base images into an instance's registry, and keeping its content for the next instance."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from agent.formats.jobs import RegistryAccess
from agent.image import writer
from deploy.devnode import images
from deploy.devnode.instance import cache_root
from deploy.devnode.registries import Registry
from deploy.devnode.rootfs import NodeParts, Say, locked

TAG = "latest"


def restore_storage(registry: Registry, parts: NodeParts) -> bool:
    """Fill the registry's storage from the cache before it starts; whether there was anything to take."""
    kept = _kept(parts)
    if not kept.is_dir():
        return False
    shutil.copytree(kept, registry.storage, dirs_exist_ok=True)
    return True


def publish(registry: Registry, parts: NodeParts, say: Say) -> None:
    """Make every base image, push it to ``registry`` (running), and keep what it stored."""
    say("making the base images")
    asyncio.run(_push_all(registry, parts))
    kept = _kept(parts)
    with locked(cache_root() / "images.lock"):
        if kept.is_dir():
            return
        partial = kept.with_name(kept.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(registry.storage, partial)
        partial.rename(kept)


def _kept(parts: NodeParts) -> Path:
    return cache_root() / f"images-{images.key(parts)}"


async def _push_all(registry: Registry, parts: NodeParts) -> None:
    access = RegistryAccess(registry.host, ca_pem=registry.ca.read_text())
    for repository, source in images.base_images(parts).items():
        await writer.push_image(access, repository, TAG, source)
