"""Write an ordinary OCI image from folders and lists of files, and push it: base images for nodes."""

from __future__ import annotations

import asyncio
import dataclasses
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from agent.errors import VALIDATION_ERROR, Refused
from agent.formats import tar_format
from agent.formats.digest import Digest
from agent.formats.jobs import Progress, RegistryAccess
from agent.image import blobs, compression, content, manifest, reference
from agent.image.compression import Codec
from agent.image.content import FileSlice, LayerPlan, Piece
from agent.image.push import ImagePusher
from agent.image.registry import Registry

_Member = tuple[tar_format.Entry, Piece]
_MODE_BITS: Final = 0o7777


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a container of the image starts (the `config` object of an OCI image configuration)."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # "6379/tcp"
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file, folder or symbolic link of a layer, named by its path in the image.

    Give one of ``content``, ``source`` (a file of this machine, links followed), ``link_target``;
    none of them is a folder.
    """

    path: str
    content: bytes | None = None
    source: Path | None = None
    link_target: str = ""
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


# a folder (its whole tree), a tar file as it is, or a list of files
Layer = Path | Sequence[FileEntry]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What to make an image of. ``created_at`` (RFC 3339) is fixed: equal inputs, equal digests."""

    layers: tuple[Layer, ...]
    config: ImageConfig
    created_at: str = "1970-01-01T00:00:00Z"
    compression: str = "gzip"  # zstd, gzip, none
    annotations: Mapping[str, str] = field(default_factory=dict)


async def push_image(
    access: RegistryAccess, repository: str, tag: str, image: ImageSource
) -> Digest:
    """Push ``image`` as ``<access.host>/<repository>:<tag>`` and return its manifest's digest.

    For this machine's architecture. Blobs the registry has already are not sent again.

    Raises:
        Refused, Retryable: as ``registry.Registry`` does, code REGISTRY_CONNECTION_FAILED.
    """
    reference.check_repository(repository)
    reference.check_tag(tag)
    codec = compression.codec_named(image.compression)
    plans = await asyncio.to_thread(_plans, image, codec)
    pusher = ImagePusher()
    async with Registry.connect(access) as registry:
        await registry.ping()
        sent = await pusher.layers(registry, repository, (plans, codec), _silent)
        made = [one.blob for one in sent]
        container = _container(image.config)
        configuration = manifest.config(made, image.created_at, container=container)
        described = [manifest.layer(blob) for blob in made]
        body = manifest.manifest(configuration, described, image.annotations)
        found, _ = await pusher.publish(registry, (repository, tag), (configuration, body))
    return found


def _silent(_: Progress) -> None:
    """Base images are small."""


def _plans(image: ImageSource, codec: Codec) -> list[LayerPlan]:
    """The layers with their digests, so that the ones the registry has are not sent."""
    plans = [_plan(layer) for layer in image.layers]
    return [dataclasses.replace(plan, known=blobs.make(plan, codec)) for plan in plans]


def _plan(layer: Layer) -> LayerPlan:
    if not isinstance(layer, Path):
        return content.plan(content.FILES, _listed(layer))
    if layer.is_dir():
        return content.plan(content.FILES, _tree(layer))
    size = layer.stat().st_size
    return LayerPlan(content.FILES, (FileSlice(layer.resolve(), 0, size),), size)


def _listed(entries: Sequence[FileEntry]) -> Iterator[_Member]:
    """The members, with the folders above each that the list leaves out."""
    named = {_clean(entry.path) for entry in entries}
    made: set[str] = set()
    for entry in entries:
        path = _clean(entry.path)
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            name = folder.as_posix()
            if name not in named and name not in made:
                made.add(name)
                yield tar_format.Entry(name, kind=tarfile.DIRTYPE, mode=0o755), b""
        yield _member(path, entry)


def _clean(path: str) -> str:
    name = PurePosixPath("/", path).relative_to("/").as_posix()
    if name in ("", ".") or ".." in PurePosixPath(name).parts:
        raise Refused(f"{path!r} is no path in an image.", code=VALIDATION_ERROR)
    return name


def _member(name: str, entry: FileEntry) -> _Member:
    base = tar_format.Entry(name, mode=entry.mode, uid=entry.uid, gid=entry.gid)
    if entry.content is not None:
        return dataclasses.replace(base, size=len(entry.content)), entry.content
    if entry.source is not None:
        path = entry.source.resolve()
        size = path.stat().st_size
        return dataclasses.replace(base, size=size), FileSlice(path, 0, size)
    if entry.link_target:
        target = entry.link_target
        return dataclasses.replace(base, kind=tarfile.SYMTYPE, link_target=target), b""
    return dataclasses.replace(base, kind=tarfile.DIRTYPE), b""


def _tree(root: Path) -> Iterator[_Member]:
    """Everything below ``root``: files, folders and links; their owners and modes, not their times."""
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        base = tar_format.Entry(
            path.relative_to(root).as_posix(),
            mode=state.st_mode & _MODE_BITS,
            uid=state.st_uid,
            gid=state.st_gid,
        )
        if stat.S_ISLNK(state.st_mode):
            target = str(path.readlink())
            yield dataclasses.replace(base, kind=tarfile.SYMTYPE, link_target=target), b""
        elif stat.S_ISDIR(state.st_mode):
            yield dataclasses.replace(base, kind=tarfile.DIRTYPE), b""
        elif stat.S_ISREG(state.st_mode):
            size = state.st_size
            yield dataclasses.replace(base, size=size), FileSlice(path, 0, size)
        else:
            raise Refused(f"{path} is neither file, folder nor link.", code=VALIDATION_ERROR)


def _container(config: ImageConfig) -> dict[str, Any]:
    """The `config` object. Source: OCI image specification, config.md."""
    fields: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": [f"{key}={value}" for key, value in config.env.items()],
        "WorkingDir": config.working_dir,
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {volume: {} for volume in config.volumes},
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
    return {key: value for key, value in fields.items() if value}
