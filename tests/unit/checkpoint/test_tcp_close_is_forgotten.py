"""A dump without TCP connections can be restored by readers that know nothing of tcp-close."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats import criu_images, criu_wire, tcp_close
from snap_protos.criu import images_pb2

UNKNOWN = b"\xf8\x01\x2a"  # field 31, which our subset of the format does not know


def dumped(images: Path, *states: int) -> bytes:
    inventory = images_pb2.inventory_entry(img_version=2, tcp_close=True)
    magic = criu_images.magic(0x58313116)
    before = criu_images.build(magic, [inventory.SerializeToString() + UNKNOWN])
    (images / "inventory.img").write_bytes(before)
    entries = [
        images_pb2.file_entry(type=4, isk=images_pb2.inet_sk_entry(proto=6, state=state))
        for state in states
    ]
    content = criu_images.build(magic, [entry.SerializeToString() for entry in entries])
    (images / "files.img").write_bytes(content)
    return before


def message(images: Path) -> bytes:
    return criu_images.first((images / "inventory.img").read_bytes())


@pytest.mark.parametrize("states", [(), (10,), (7, 10)], ids=["none", "listening", "closed too"])
def test_without_a_connection_the_mark_goes(tmp_path: Path, states: tuple[int, ...]) -> None:
    dumped(tmp_path, *states)
    assert tcp_close.relax(tmp_path)
    assert not criu_wire.inventory_of(message(tmp_path)).tcp_close
    assert UNKNOWN in message(tmp_path)
    assert tcp_close.relax(tmp_path)


@pytest.mark.parametrize("state", [1, 2, 8], ids=["established", "being made", "half closed"])
def test_with_a_connection_it_stays(tmp_path: Path, state: int) -> None:
    before = dumped(tmp_path, 10, state)
    assert not tcp_close.relax(tmp_path)
    assert (tmp_path / "inventory.img").read_bytes() == before


def test_damaged_images_are_an_error(tmp_path: Path) -> None:
    dumped(tmp_path)
    (tmp_path / "files.img").write_bytes(b"")
    with pytest.raises(ValueError, match="CRIU image"):
        tcp_close.relax(tmp_path)
