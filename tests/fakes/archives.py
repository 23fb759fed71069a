"""Checkpoint archives made by hand: whole ones, and such as somebody with bad intentions would send."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping

INVENTORY = (0x58313116).to_bytes(4, "little") + b"\x02\x00\x00\x00ok"
FILES = {
    "config.dump": b'{"id":"abc","rootfsImageRef":"docker.io/library/app@sha256:12"}',
    "spec.dump": json.dumps(
        {
            "annotations": {
                "io.kubernetes.cri.container-name": "app",
                "io.kubernetes.cri.sandbox-name": "test-app",
                "io.kubernetes.cri.sandbox-namespace": "shop",
            }
        }
    ).encode(),
    "checkpoint/inventory.img": INVENTORY,
    "checkpoint/pages-1.img": bytes(range(256)) * 64,
}
Content = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", **changes: object) -> Content:
    """One member; ``changes`` are fields of its header."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def archive(
    *more: Content, without: Iterable[str] = (), files: Mapping[str, bytes] | None = None
) -> bytes:
    """A checkpoint's archive, ``files`` as given, ``more`` at its end, ``without`` some that it must have."""
    held = FILES | dict(files or {})
    left = {name: content for name, content in held.items() if name not in without}
    return tar([*(member(name, content) for name, content in left.items()), *more])


def tar(members: Iterable[Content], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()
