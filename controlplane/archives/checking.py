"""Whether an archive is a checkpoint's, and harmless; and what it says of itself.

Source: the layout that containerd's and CRI-O's checkpoint code write: ``config.dump``, ``spec.dump``,
``checkpoint/`` with CRIU's images; CRIU, criu/include/magic.h, for the images' first words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from controlplane.archives import tar_members
from controlplane.archives.tar_members import Member, TarError, shown
from controlplane.errors import Refused

MAX_MEMBERS: Final = 200_000
_MAX_NAME_BYTES: Final = 1024
_MAX_PART_BYTES: Final = 255
_MAX_DEPTH: Final = 48  # memory lies in up to 32 nested folders
_MAX_JSON_BYTES: Final = 4 << 20
_CONFIG: Final = "config.dump"
_SPEC: Final = "spec.dump"
_INVENTORY: Final = "checkpoint/inventory.img"
_FINGERPRINT: Final = "snap/fingerprint.json"
_TEMPLATE: Final = "snap/template.json"
_NEEDED: Final = (_INVENTORY, _CONFIG, _SPEC)
_READ: Final = frozenset({*_NEEDED, _FINGERPRINT, _TEMPLATE})
_INVENTORY_MAGIC: Final = (0x58313116).to_bytes(4, "little")
_BESIDE: Final = "snap.json"  # what a node keeps beside a checkpoint, never in it
_KUBE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_CONTAINERD: Final = "io.kubernetes.cri."
_CRIO: Final = "io.kubernetes."


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive says of itself. All of it is hearsay; names are well-formed or empty."""

    namespace: str = ""
    pod_name: str = ""
    container_name: str = ""
    container_id: str = ""
    image_ref: str = ""
    engine: str = ""
    criu_options: str = ""
    fingerprint_json: str = "{}"
    template_json: str = "{}"


def check(path: Path) -> Contents:
    """Read every header of the archive in ``path``. Blocks; memory stays below some 40 MiB.

    Raises:
        Refused: it is no checkpoint archive, or one that could do harm.
    """
    seen = _Seen()
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            for member in tar_members.members(file, size):
                seen.take(member)
        except TarError as cause:
            raise _refused(str(cause)) from cause
        for name in _NEEDED:
            if name not in seen.wanted:
                raise _refused(f"it has no {name}, so it is no checkpoint's archive")
        _check_inventory(file, seen.wanted[_INVENTORY])
        found = {name: _json(file, one) for name, one in seen.wanted.items() if name != _INVENTORY}
    return _contents(found)


class _Seen:
    """The names so far, as short hashes: a name may be long, and there may be many."""

    def __init__(self) -> None:
        self.wanted: dict[str, Member] = {}
        self._files: set[bytes] = set()
        self._folders: set[bytes] = set()
        self._count = 0

    def take(self, member: Member) -> None:
        """Check one more member.

        Raises:
            Refused: it can't be part of a checkpoint.
        """
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise _refused(f"it has more than {MAX_MEMBERS} members")
        name = _clean(member.name)
        if not member.is_file and not member.is_folder:
            raise _refused(f"{shown(member.name)} is neither file nor folder")
        parts = name.split("/") if name else []
        above = [_hash("/".join(parts[:depth])) for depth in range(1, len(parts))]
        own = _hash(name)
        if any(one in self._files for one in above):
            raise _refused(f"{shown(member.name)} lies below a file")
        self._folders.update(above)
        if member.is_folder:
            if own in self._files:
                raise _refused(f"{shown(member.name)} is a file and a folder")
            self._folders.add(own)
            return
        if not name or own in self._files:
            raise _refused(f"{shown(member.name)} is there twice")
        if own in self._folders:
            raise _refused(f"{shown(member.name)} is a file and a folder")
        self._files.add(own)
        if name in _READ:
            self.wanted[name] = member


def _clean(name: str) -> str:
    """A member's path, without what means nothing; "" for the archive's own folder."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > _MAX_NAME_BYTES or name.startswith("/") or not name.isprintable():
        raise _refused(f"{shown(name)} is no safe name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _MAX_DEPTH:
        raise _refused(f"{shown(name)} is no safe name")
    if any(len(part.encode()) > _MAX_PART_BYTES or part.startswith(".wh.") for part in parts):
        raise _refused(f"{shown(name)} is no safe name")
    if parts and parts[0].startswith(_BESIDE):
        raise _refused(f"{shown(name)} is a name that no part of a checkpoint has")
    return "/".join(parts)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _check_inventory(file: BinaryIO, member: Member) -> None:
    file.seek(member.offset)
    if file.read(min(member.size, len(_INVENTORY_MAGIC))) != _INVENTORY_MAGIC:
        raise _refused(f"{_INVENTORY} is no image of CRIU's")


def _json(file: BinaryIO, member: Member) -> Mapping[str, Any]:
    if not 0 < member.size <= _MAX_JSON_BYTES:
        raise _refused(f"{shown(member.name)} has {member.size} bytes")
    file.seek(member.offset)
    try:
        value = msgspec.json.decode(file.read(member.size))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise _refused(f"{shown(member.name)} is no JSON") from cause
    if not isinstance(value, dict):
        raise _refused(f"{shown(member.name)} is no JSON object")
    return value


def _contents(found: Mapping[str, Mapping[str, Any]]) -> Contents:
    config, spec = found[_CONFIG], found[_SPEC]
    known = found.get(_FINGERPRINT, {})
    notes = spec.get("annotations")
    notes = notes if isinstance(notes, dict) else {}

    def name(field: str, containerd: str, crio: str) -> str:
        said = (known.get(field), notes.get(_CONTAINERD + containerd), notes.get(_CRIO + crio))
        return next((s for s in said if isinstance(s, str) and _KUBE_NAME.fullmatch(s)), "")

    return Contents(
        namespace=name("namespace", "sandbox-namespace", "pod.namespace"),
        pod_name=name("pod_name", "sandbox-name", "pod.name"),
        container_name=name("container_name", "container-name", "container.name"),
        container_id=_line(config.get("id")),
        image_ref=_line(known.get("image_ref")) or _line(config.get("rootfsImageRef")),
        engine=_line(known.get("engine")),
        criu_options=_text(known.get("criu_options")),
        fingerprint_json=msgspec.json.encode(known).decode(),
        template_json=_told(found.get(_TEMPLATE, {})),
    )


def _told(template: Mapping[str, Any]) -> str:
    """The template without what can hold secrets: variables by name only, and no command line."""
    env = template.get("env")
    lines = [line for line in env if isinstance(line, str)] if isinstance(env, list) else []
    names = sorted(line.partition("=")[0] for line in lines)
    return msgspec.json.encode({**template, "env": names, "args": []}).decode()


def _line(said: object) -> str:
    return said if isinstance(said, str) and len(said) <= 512 and said.isprintable() else ""


def _text(said: object) -> str:
    return said if isinstance(said, str) and len(said) <= 4096 else ""


def _refused(why: str) -> Refused:
    return Refused(f"The archive was refused: {why}.", details=why)
