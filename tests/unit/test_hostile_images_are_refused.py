"""What an image may not hold; nothing of it lands outside its folder."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from agent.errors import Refused
from agent.formats import criu_images, tar_format
from agent.formats.criu_wire import IN_PARENT, PRESENT, PageRun
from agent.formats.digest import Digest
from agent.formats.pagemap import Pagemap
from agent.formats.tar_format import Entry
from agent.image import compression, flattening, manifest
from agent.image.compression import MEDIA_TYPES, Codec
from agent.image.download import LayerReader
from agent.image.manifest import Descriptor
from agent.image.room import Budget
from agent.image.unpack import Unpacker, WindowSink
from agent.image.windows import file_name

MIB = 1 << 20
TOP = "checkpoint/pagemap-1.img"
BELOW = "checkpoint/parent/pagemap-1.img"


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def layer(*members: tuple[Entry, bytes]) -> bytes:
    parts = [
        tar_format.header(entry) + content + bytes(tar_format.padding(len(content)))
        for entry, content in members
    ]
    return b"".join(parts) + tar_format.END


def file(name: str, content: bytes = b"x") -> tuple[Entry, bytes]:
    return Entry(name, len(content)), content


def pagemap(*runs: PageRun) -> bytes:
    return Pagemap(criu_images.magic(criu_images.PAGEMAP_MAGIC), 1, runs).image()


def unpack(folder: Path, *layers: bytes, most: int = 64 * MIB) -> None:
    """As a fetch does it: the first layer, then where the memory goes, then the others."""
    folder.mkdir()
    budget = Budget(folder, most, 0)
    unpacker = Unpacker(folder, budget)
    for index, tar in enumerate(layers):
        blob = zstandard.ZstdCompressor().compress(tar)
        described = Descriptor(MEDIA_TYPES[Codec.ZSTD], digest_of(blob), len(blob))
        with LayerReader(described, unpacker.sink()) as reader:
            reader.feed(blob)
            reader.close()
        if index == 0:
            unpacker.plan_memory()
    unpacker.finish()
    flattening.in_place(folder, budget)


@pytest.mark.parametrize(
    "entry",
    [
        Entry("/etc/passwd"),
        Entry("../outside"),
        Entry("checkpoint/../../outside"),
        Entry("link", kind=tarfile.SYMTYPE, link_target="/etc"),
        Entry("hard", kind=tarfile.LNKTYPE, link_target="a"),
        Entry("device", kind=tarfile.CHRTYPE),
        Entry("pipe", kind=tarfile.FIFOTYPE),
        Entry("snap.json"),
        Entry("checkpoint/.wh.pages-1.img"),
        Entry("a" * 300),
        Entry("d/" * 600 + "x"),
        Entry("."),
    ],
    ids=lambda entry: entry.name[:20],
)
def test_member_that_is_no_part_is_refused(tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(Refused):
        unpack(tmp_path / "u", layer((entry, b"")))
    assert [path.name for path in tmp_path.iterdir()] == ["u"]


@pytest.mark.parametrize(
    "layers",
    [
        (layer(file("a"), file("a")),),
        (layer(file("a")), layer(file("./a"))),
        (layer(file("a"), file("a/b")),),
        (layer(file("a/b"), file("a")),),
    ],
    ids=["twice", "in-two-layers", "file-then-folder", "folder-then-file"],
)
def test_name_that_is_there_twice_is_refused(tmp_path: Path, layers: tuple[bytes, ...]) -> None:
    with pytest.raises(Refused):
        unpack(tmp_path / "u", *layers)


def test_more_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        unpack(tmp_path / "u", layer(file("zeros", bytes(3 * MIB))), most=2 * MIB)


def test_flat_memory_counts_before_it_is_there(tmp_path: Path) -> None:
    huge = 1 << 30
    first = layer(
        file(TOP, pagemap(PageRun(0x1000, huge, IN_PARENT))),
        file(BELOW, pagemap(PageRun(0x1000, huge, PRESENT))),
    )
    with pytest.raises(Refused):
        unpack(tmp_path / "u", first)


@pytest.mark.parametrize(
    "others",
    [
        (),
        (layer(file("checkpoint/parent/pages-1.img", bytes(4096))),),
        (layer(file("checkpoint/parent/pages-1.img", bytes(3 * 4096))),),
        (layer(file("checkpoint/parent/parent/pagemap-1.img", b"")),),
    ],
    ids=["missing", "too-short", "too-long", "late-pagemap"],
)
def test_pages_that_do_not_fit_their_pagemap_are_refused(
    tmp_path: Path, others: tuple[bytes, ...]
) -> None:
    first = layer(
        file(TOP, pagemap(PageRun(0x1000, 2, IN_PARENT))),
        file(BELOW, pagemap(PageRun(0x1000, 2, PRESENT))),
    )
    with pytest.raises((Refused, ValueError)):
        unpack(tmp_path / "u", first, *others)


def test_chain_in_a_single_layer_is_made_flat(tmp_path: Path) -> None:
    pages = bytes(4096) + b"p" * 4096
    unpack(
        tmp_path / "u",
        layer(
            file("checkpoint/parent/pages-1.img", pages),
            file("checkpoint/pages-1.img", b"d" * 4096),
            file(TOP, pagemap(PageRun(0x1000, 1, PRESENT), PageRun(0x2000, 1, IN_PARENT))),
            file(BELOW, pagemap(PageRun(0x1000, 2, PRESENT))),
        ),
    )
    folder = tmp_path / "u" / "checkpoint"
    assert (folder / "pages-1.img").read_bytes() == b"d" * 4096 + b"p" * 4096
    assert not (folder / "parent").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["pagemap-1.img", "pages-1.img"]


def window_of(folder: Path, *members: tuple[Entry, bytes], most: int = 64 * MIB) -> None:
    """As a fetch unpacks a memory layer for all images."""
    folder.mkdir()
    blob = zstandard.ZstdCompressor().compress(layer(*members))
    described = Descriptor(MEDIA_TYPES[Codec.ZSTD], digest_of(blob), len(blob))
    with LayerReader(described, WindowSink(folder, Budget(folder, most, 0))) as reader:
        reader.feed(blob)
        reader.close()


@pytest.mark.parametrize(
    "members",
    [
        (file("checkpoint/core-1.img"),),
        (file(TOP, pagemap(PageRun(0x1000, 1, PRESENT))),),
        (file("checkpoint/../../pages-1.img"),),
        (file("/checkpoint/pages-1.img"),),
        (file("checkpoint/" + "parent/" * 33 + "pages-1.img"),),
        ((Entry("checkpoint/parent", kind=tarfile.DIRTYPE), b""),),
        ((Entry("checkpoint/pages-1.img", kind=tarfile.LNKTYPE, link_target="/etc"), b""),),
        (file("checkpoint/pages-1.img"), file("./checkpoint//pages-1.img")),
        (file("checkpoint/pages-1.img", bytes(3 * MIB)),),
    ],
    ids=["other", "pagemap", "above", "absolute", "deep", "folder", "link", "twice", "large"],
)
def test_window_that_holds_anything_but_pages_is_refused(
    tmp_path: Path, members: tuple[tuple[Entry, bytes], ...]
) -> None:
    with pytest.raises(Refused):
        window_of(tmp_path / "w", *members, most=2 * MIB)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("pages", [1, 3], ids=["short", "long"])
def test_window_that_does_not_fit_the_pagemaps_is_no_part_of_the_image(
    tmp_path: Path, pages: int
) -> None:
    window_of(tmp_path / "w", file("checkpoint/parent/pages-1.img", bytes(pages * 4096)))
    unpacker = Unpacker(tmp_path, Budget(tmp_path, MIB, 0))
    for name, run in ((TOP, IN_PARENT), (BELOW, PRESENT)):
        content = pagemap(PageRun(0x1000, 2, run))
        sink = unpacker.sink()
        sink.begin(Entry(name, len(content)))
        sink.write(memoryview(content))
        sink.end()
    unpacker.plan_memory()
    with pytest.raises(ValueError, match="instead of 8192"):
        unpacker.link({(1, 1): tmp_path / "w" / file_name((1, 1))})


def test_zeros_are_holes_in_windows_and_in_flat_memory(tmp_path: Path) -> None:
    content = bytes(2 * MIB) + b"x" * 4096 + bytes(3 * MIB)
    window_of(tmp_path / "w", file("checkpoint/parent/pages-1.img", content))
    [window] = (tmp_path / "w").iterdir()
    chain = tmp_path / "i"
    (chain / "checkpoint" / "parent").mkdir(parents=True)
    os.link(window, chain / "checkpoint" / "parent" / "pages-1.img")
    for name, flags in ((TOP, IN_PARENT), (BELOW, PRESENT)):
        (chain / name).write_bytes(pagemap(PageRun(0x1000, len(content) // 4096, flags)))
    (tmp_path / "f").mkdir()
    flattening.beside(chain, tmp_path / "f")
    for path in (window, tmp_path / "f" / "checkpoint" / "pages-1.img"):
        assert path.read_bytes() == content
        assert path.stat().st_blocks * 512 < 2 * MIB


@pytest.mark.parametrize("which", ["other", "cut-off", "cut-off by its maker"])
def test_layer_whose_bytes_are_others_is_refused(tmp_path: Path, which: str) -> None:
    tar = layer(file("a", b"content"))
    whole = zstandard.ZstdCompressor().compress(tar)
    cut = zstandard.ZstdCompressor().compress(tar[:700])
    named, blob = {
        "other": (digest_of(b"other"), whole),
        "cut-off": (digest_of(whole), whole[:-10]),
        "cut-off by its maker": (digest_of(cut), cut),
    }[which]
    described = Descriptor(MEDIA_TYPES[Codec.ZSTD], named, len(blob))
    unpacker = Unpacker(tmp_path, Budget(tmp_path, MIB, 0))
    with LayerReader(described, unpacker.sink()) as reader:
        reader.feed(blob)
        with pytest.raises(Refused):
            reader.close()


@pytest.mark.parametrize("codec", list(Codec))
def test_bomb_comes_out_in_bounded_steps(codec: Codec) -> None:
    plain = bytes(64 * MIB)
    tool = compression.compressor(codec, len(plain))
    blob = tool.compress(memoryview(plain)) + tool.flush()
    steps: list[int] = []

    def take(data: bytes | memoryview) -> None:
        steps.append(len(data))

    out = compression.decompressor(codec, take)
    step = MIB if codec is Codec.NONE else len(blob)
    for start in range(0, len(blob), step):
        out.feed(blob[start : start + step])
    out.close()
    assert sum(steps) == len(plain)
    assert max(steps) <= MIB


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.GZIP])
def test_several_frames_are_one_layer(codec: Codec) -> None:
    blob = b""
    for part in (b"one ", b"two"):
        tool = compression.compressor(codec, len(part))
        blob += tool.compress(memoryview(part)) + tool.flush()
    found: list[bytes | memoryview] = []
    out = compression.decompressor(codec, found.append)
    for start in range(0, len(blob), 7):
        out.feed(blob[start : start + 7])
    out.close()
    assert b"".join(found) == b"one two"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"manifests": []}',
        b'{"config": {"mediaType": "x", "digest": "sha256:1", "size": 1}, "layers": []}',
    ],
    ids=["no-json", "index", "bad-digest"],
)
def test_manifest_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        manifest.parse(body, manifest.MANIFEST_TYPE)
