"""CRI-O binds /etc/hostname and the like as slaves; a restore elsewhere must not need their originals."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats import criu_entries_wire, criu_images, slave_mounts
from snap_protos.criu import images_pb2

UNKNOWN = b"\xf8\x01\x2a"  # field 31, which our subset of the format does not know


def mount(point: str, *, shared: int = 0, master: int = 0) -> bytes:
    entry = images_pb2.mnt_entry(
        fstype=0,
        mnt_id=7,
        parent_mnt_id=1,
        flags=0,
        root=b"/a",
        mountpoint=point.encode(),
        source=b"tmpfs",
        options=b"",
    )
    if shared:
        entry.shared_id = shared
    if master:
        entry.master_id = master
    return bytes(entry.SerializeToString()) + UNKNOWN


def dumped(images: Path, *messages: bytes) -> Path:
    image = images / "mountpoints-13.img"
    image.write_bytes(criu_images.build(criu_images.magic(0x55563928), messages))
    return image


@pytest.mark.parametrize("point", ["./etc/hostname", "/run/.containerenv"])
def test_a_runtimes_file_is_private_afterwards(tmp_path: Path, point: str) -> None:
    volume = mount("./data", master=4)
    image = dumped(tmp_path, mount(point, master=4), volume)
    assert slave_mounts.make_private(tmp_path) == 1
    changed, other = criu_images.entries(image.read_bytes())
    assert not criu_entries_wire.mount_of(changed).is_slave
    assert UNKNOWN in changed
    assert other == volume
    assert slave_mounts.make_private(tmp_path) == 0


@pytest.mark.parametrize(
    "kept",
    [
        mount("./etc/hosts", shared=3, master=4),
        mount("./etc/hosts"),
        mount("./etc/hosts.d", master=4),
    ],
    ids=["shared too", "private", "another"],
)
def test_everything_else_stays(tmp_path: Path, kept: bytes) -> None:
    image = dumped(tmp_path, kept)
    before = image.read_bytes()
    assert slave_mounts.make_private(tmp_path) == 0
    assert image.read_bytes() == before


def test_damaged_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "mountpoints-13.img").write_bytes(b"")
    with pytest.raises(ValueError, match="CRIU image"):
        slave_mounts.make_private(tmp_path)
