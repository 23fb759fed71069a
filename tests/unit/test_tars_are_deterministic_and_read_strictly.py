"""Tar headers as written, and the reader that is fed by chunks."""

from __future__ import annotations

import io
import tarfile

import pytest

from agent.formats import tar_format
from agent.formats.tar_format import Entry


class Collecting:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.members: list[tuple[Entry, bytes]] = []
        self._entry = Entry("")
        self._content = b""

    def begin(self, entry: Entry) -> None:
        self._entry, self._content = entry, b""

    def write(self, chunk: memoryview) -> None:
        self._content += chunk

    def end(self) -> None:
        self.members.append((self._entry, self._content))


def read(tar: bytes, step: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    sink = Collecting()
    reader = tar_format.Reader(sink)
    for start in range(0, len(tar), step):
        reader.feed(tar[start : start + step])
    reader.close()
    return sink.members


def member(entry: Entry, content: bytes = b"") -> bytes:
    return tar_format.header(entry) + content + bytes(tar_format.padding(len(content)))


NAMES = ["a", "checkpoint/" + "parent/" * 30 + "pages-1.img", "x" * 99 + "/" + "y" * 200, "ünï/ö"]


@pytest.mark.parametrize("name", NAMES, ids=["short", "deep", "long", "unicode"])
def test_members_are_read_by_tarfile_and_by_us(name: str) -> None:
    tar = member(Entry(name, 5), b"hello") + member(Entry("empty")) + tar_format.END
    with tarfile.open(fileobj=io.BytesIO(tar)) as others:
        assert others.getnames() == [name, "empty"]
        info = others.getmember(name)
        assert (info.uid, info.gid, info.mtime, info.mode) == (0, 0, 0, 0o600)
    for step in (1, 511, 512, 513, 1 << 20):
        assert [(one.name, content) for one, content in read(tar, step)] == [
            (name, b"hello"),
            ("empty", b""),
        ]


def test_window_file_needs_no_pax_header() -> None:
    name = NAMES[1]
    assert len(tar_format.header(Entry(name, 8 << 30 - 1))) == tar_format.BLOCK


def test_file_over_eight_gib_has_its_size() -> None:
    header = tar_format.header(Entry("large", 9 << 30))
    info = tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict")
    assert info.name == "large"
    sink = Collecting()
    tar_format.Reader(sink).feed(header)
    assert b"size=9663676416" in header


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_by_others_are_read(kind: int) -> None:
    name = "d/" + "n" * (90 if kind == tarfile.USTAR_FORMAT else 300)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        info = tarfile.TarInfo(name)
        info.size = 700
        tar.addfile(info, io.BytesIO(bytes(700)))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (one, content), (other, _) = read(out.getvalue())
    assert (one.name, content, one.is_file) == (name, bytes(700), True)
    assert not other.is_file
    assert not other.is_folder
    assert other.link_target == "/etc/passwd"


@pytest.mark.parametrize("cut", [100, 512, 600, 1023])
def test_cut_off_tar_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="within"):
        read(member(Entry("a", 300), b"x" * 300)[:cut])


@pytest.mark.parametrize(
    "records",
    [b"9999 path=x\n", b"x path=x\n", b"11 path=xx", b"12 size=-99\n", b"20 GNU.sparse.x=1\n"],
    ids=["too-long", "no-length", "no-end", "negative", "sparse"],
)
def test_hostile_pax_headers_are_refused(records: bytes) -> None:
    pax = tarfile.TarInfo("x")
    pax.type, pax.size = tarfile.XHDTYPE, len(records)
    head = pax.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0")
    with pytest.raises(ValueError, match=r"PAX|sparse|header"):
        read(head + member(Entry("a")))


def test_rubbish_is_refused() -> None:
    with pytest.raises(ValueError, match="header"):
        read(b"rubbish " * 100)
