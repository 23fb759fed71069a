"""Manifest and configuration of an OCI image: written for ours, read strictly from anybody.

Source: OCI image specification, manifest.md and config.md.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agent.errors import Refused
from agent.formats import digest
from agent.formats.digest import Digest
from agent.image import image_annotations
from agent.image.content import Blob

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_DOCKER_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ACCEPTED: Final = (MANIFEST_TYPE, _DOCKER_TYPE, *INDEX_TYPES)
MAX_MANIFEST_BYTES: Final = (
    4 << 20
)  # what registries have to accept at least, and most refuse above
MAX_LAYERS: Final = 500
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Content by digest, as OCI writes it."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An image manifest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}
    media_type: str = ""


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] = ()


class _Config(msgspec.Struct, frozen=True):
    rootfs: _RootFs = _RootFs()


def architecture() -> str:
    """This machine's, as OCI names it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def layer(blob: Blob) -> Descriptor:
    """A layer of ours, saying what it holds and how large its tar is."""
    notes = {
        image_annotations.CONTENT: blob.content,
        image_annotations.UNPACKED_BYTES: str(blob.unpacked_size),
    }
    return Descriptor(blob.media_type, blob.digest, blob.size, notes)


def config(
    blobs: Sequence[Blob],
    created_at: str,
    *,
    arch: str = "",
    container: Mapping[str, Any] | None = None,
) -> bytes:
    """The configuration: platform, how a container starts (nothing for checkpoints), diff ids."""
    return msgspec.json.encode(
        {
            "created": created_at,
            "architecture": arch or architecture(),
            "os": "linux",
            "config": dict(container or {}),
            "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
            "history": [
                {"created": created_at, "created_by": f"snap: {blob.content}"} for blob in blobs
            ],
        }
    )


def manifest(configuration: bytes, layers: Sequence[Descriptor], notes: Mapping[str, str]) -> bytes:
    """The manifest's bytes; its digest is the image's."""
    head = Descriptor(CONFIG_TYPE, digest.of(configuration), len(configuration))
    built: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": head,
        "layers": list(layers),
    }
    if notes:
        built["annotations"] = dict(notes)
    return msgspec.json.encode(built)


def parse(body: bytes, media_type: str) -> Manifest:
    """The manifest in ``body``, checked as far as can be without its blobs.

    Raises:
        Refused: it is none of a single image, or out of bounds.
    """
    try:
        found = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as cause:
        if media_type in INDEX_TYPES or b'"manifests"' in body:
            raise Refused(
                "The reference names an index of several images; give the digest of one image."
            ) from cause
        raise Refused("The image's manifest can't be read.", details=str(cause)) from cause
    for one in (found.config, *found.layers):
        if not digest.is_digest(one.digest) or one.size < 0:
            raise Refused(f"The image's manifest names content as {one.digest[:90]!r}.")
    if not 1 <= len(found.layers) <= MAX_LAYERS:
        raise Refused(f"The image has {len(found.layers)} layers; 1 to {MAX_LAYERS} are read.")
    return found


def diff_ids(configuration: bytes, layers: int) -> tuple[Digest, ...]:
    """The uncompressed layers' digests.

    Raises:
        Refused: there is not one for each of ``layers``.
    """
    try:
        found = msgspec.json.decode(configuration, type=_Config).rootfs.diff_ids
        checked = tuple(map(digest.parse, found))
    except ValueError as cause:  # msgspec's errors are ValueErrors too
        raise Refused("The image's configuration can't be read.", details=str(cause)) from cause
    if len(checked) != layers:
        raise Refused(f"The image has {layers} layers but {len(checked)} diff ids.")
    return checked
