"""Making the new container what the checkpoint left: files, volumes, CRIU's configuration; each step can be undone.

The wrapper undoes by the list (``undoing``), not this process: it may be dead by then.
"""

from __future__ import annotations

import posixpath
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from agent import errors
from agent.formats import layout
from agent.formats.fingerprint import Fingerprint
from agent.formats.template import MountFact, Template
from agent.restore import criu_options, filling, rootfs
from agent.restore.comparison import HARMLESS_MOUNTS
from agent.restore.ledger import Ledger
from agent.restore.undoing import UndoList
from agent.runtimes.commands import Host

SHM: Final = "/dev/shm"  # noqa: S108 - the container's, not this process's


class TooLate(Exception):
    """The wrapper will not wait any longer."""


class Volume(msgspec.Struct, frozen=True):
    """One entry of ``snap/volumes.json``."""

    name: str
    destination: str
    kind: str = "emptydir"


@dataclass(frozen=True, slots=True)
class NewContainer:
    """The container to prepare. ``bundle`` and the three paths are the node's.

    Attributes:
        conf: CRIU's configuration file for it.
        work: folder for CRIU's logs and what had to make room.
        undo: the list for taking back.
    """

    container_id: str
    sandbox_id: str
    pod_uid: str
    bundle: str
    spec: dict[str, Any]
    template: Template
    conf: str
    work: str
    undo: UndoList


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is brought back: its flat parts on this node and what they say of themselves."""

    parts: Path
    fingerprint: Fingerprint
    template: Template
    memory_bytes: int
    lazy_bytes: int = 0
    address_spaces: int = 1


@dataclass(frozen=True, slots=True)
class Preparation:
    """Prepares one container. ``run`` blocks; call it in a thread."""

    host: Host
    ledger: Ledger
    new: NewContainer
    old: Checkpoint
    deadline: float  # time.monotonic()
    asides: list[str] = field(default_factory=list)

    def run(self) -> tuple[str, ...]:
        """Prepare everything; what was done is in the undo list, however this ends.

        Returns:
            Folders on the node with what had to make room; they can go when the container runs.

        Raises:
            TooLate: the deadline passed.
            Refused: the pod lacks a place for something.
            OSError, ValueError: the files could not be written as they are.
        """
        self.new.undo.begin()
        self.host.path(self.new.work).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root()
        self._shared_memory()
        for volume in self._volumes():
            self._volume(volume)
        self._configuration()
        self._check()
        return tuple(self.asides)

    def mount_points(self) -> None:
        """What mounts of the checkpoint that the pod has not are mounted on; after the root was read anew. Blocks.

        A runtime that checkpoints by itself leaves them out of the file changes.

        Raises:
            Refused: the root is no overlay. OSError: they could not be made.
        """
        mounted = rootfs.find(self.host, self.new.bundle, self.new.spec).mounted
        for missing in self._missing():
            rootfs.have_file(
                self.host.path(mounted),
                missing,
                lambda: self.new.undo.remove(f"{mounted}{missing}"),  # noqa: B023
            )

    def _binds(self) -> dict[str, str]:
        """What CRIU must be told of, because the runtime does not.

        crun follows links of the image where a mount's place is there already, so that its names are not the dump's
        (``agent/checkpoint/linked.py``).
        """
        empty = f"{self.new.work}/empty"
        self.host.path(empty).touch()
        told = dict.fromkeys(self._missing(), empty)
        if self.old.fingerprint.oci_runtime == "crun":
            binds = (one for one in self.new.template.mounts if one.source.startswith("/"))
            told |= {one.destination.rstrip("/"): one.source for one in binds}
        return told

    def _missing(self) -> list[str]:
        """Mounts of the checkpoint that the pod has not, harmlessly."""
        there = {mount.destination for mount in self.new.template.mounts}
        before = {mount.destination for mount in self.old.template.mounts}
        return sorted((before - there) & HARMLESS_MOUNTS)

    def _check(self) -> None:
        if time.monotonic() > self.deadline:
            raise TooLate

    def _fill(
        self, archive: str, place: filling.Place, wanted: Callable[[str], bool] = lambda _: True
    ) -> None:
        file = self.old.parts / archive
        if not file.is_file():
            return
        filling.fill(file, place, self.new.undo, check=self._check, wanted=wanted)
        if place.aside.exists():
            self.asides.append(place.aside_on_node)
        self.new.undo.remove(place.aside_on_node)

    def _place(self, folder: str, aside: str, *, whiteouts: bool = False) -> filling.Place:
        """``aside`` must be on the same mount as ``folder``, and out of the pod's sight."""
        host = self.host
        return filling.Place(host.path(folder), folder, host.path(aside), aside, whiteouts)

    def _root(self) -> None:
        """The rootfs diff into the upper directory, exactly; the mode of ``/`` through the mount."""
        root = rootfs.find(self.host, self.new.bundle, self.new.spec)
        mode_file = self.old.parts / layout.ROOT_MODE
        if mode_file.is_file():
            mounted = self.host.path(root.mounted)
            old, now = (
                int(mode_file.read_text().strip(), 8) & 0o7777,
                mounted.stat().st_mode & 0o7777,
            )
            if old != now:
                self.new.undo.mode(root.mounted, now)
                mounted.chmod(old)
        aside = f"{posixpath.dirname(root.upper)}/snap-aside"
        self._fill(layout.ROOTFS_DIFF, self._place(root.upper, aside, whiteouts=True))
        self.new.undo.refresh(root.mounted)

    def _shared_memory(self) -> None:
        if not (self.old.parts / layout.SHM_TAR).is_file():
            return
        mount = self._mount(SHM)
        if mount is None or not mount.source:
            raise errors.Refused(
                "the pod has no /dev/shm to bring the checkpoint's files back into"
            )
        place = self._place(mount.source, f"{self.new.work}/aside")
        self._once("shm", lambda: self._fill(layout.SHM_TAR, place))

    def _volumes(self) -> tuple[Volume, ...]:
        index = self.old.parts / layout.VOLUMES_INDEX
        if not index.is_file():
            return ()
        try:
            return msgspec.json.decode(index.read_bytes(), type=tuple[Volume, ...])
        except msgspec.MsgspecError as cause:
            raise ValueError(f"{layout.VOLUMES_INDEX} is damaged: {cause}") from cause

    def _volume(self, volume: Volume) -> None:
        archive = f"{layout.VOLUMES_DIR}/{volume.name}.tar"
        if "/" in volume.name or not (self.old.parts / archive).is_file():
            return
        mount = self._mount(volume.destination)
        owned = f"/pods/{self.new.pod_uid}/volumes/kubernetes.io~"
        if mount is None or owned not in mount.source or mount.sub_path:
            raise errors.Refused(
                f"the volume {volume.name} of the checkpoint can't be brought back at "
                f"{volume.destination}: the pod has no volume of its own there"
            )
        pod = mount.source.partition("/volumes/kubernetes.io~")[0]
        place = self._place(mount.source, f"{pod}/snap-aside/{self.new.container_id}-{mount.name}")
        if mount.kind == "emptydir":
            self._once(f"volume-{mount.name}", lambda: self._fill(archive, place))
        else:  # files that the old process has open, beside the new ones that it finds by name
            present = {entry.name for entry in place.folder.iterdir()}
            wanted = lambda name: name.startswith("..2") and name not in present  # noqa: E731
            self._fill(archive, place, wanted)

    def _once(self, mark: str, step: Callable[[], None]) -> None:
        """A volume is the pod's, not the container's: the first that is restored brings its content."""
        if self.ledger.has(self.new.sandbox_id, mark):
            return
        self.new.undo.remove(self.ledger.on_node(self.new.sandbox_id, mark))
        step()
        self.ledger.set(self.new.sandbox_id, mark)

    def _mount(self, destination: str) -> MountFact | None:
        for mount in self.new.template.mounts:
            if mount.destination.rstrip("/") == destination.rstrip("/"):
                return mount
        return None

    def _configuration(self) -> None:
        """Last: with the annotation in place the wrapper's restore finds everything else done."""
        text = criu_options.for_restore(self.old.fingerprint.criu_options, self._binds())
        self.new.undo.remove(self.new.conf)
        self.host.path(self.new.conf).write_text(text)
        config = self.host.path(f"{self.new.bundle}/config.json")
        kept = config.with_name("config.json.snap")
        annotations = {
            **(self.new.spec.get("annotations") or {}),
            criu_options.ANNOTATION: self.new.conf,
        }
        self.new.undo.put_back(
            f"{self.new.bundle}/config.json.snap", f"{self.new.bundle}/config.json"
        )
        shutil.copy2(config, kept)
        partial = config.with_name("config.json.snap-new")
        partial.write_bytes(msgspec.json.encode({**self.new.spec, "annotations": annotations}))
        shutil.copymode(config, partial)
        partial.replace(config)
