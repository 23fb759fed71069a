"""What is uploaded counts only as a checkpoint's archive that can do no harm."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from controlplane.archives import checking, gzip_stream
from controlplane.archives.checking import check
from controlplane.errors import Refused
from tests.fakes.archives import FILES, archive, member, tar

LINK: dict[str, Any] = {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"}
HARD: dict[str, Any] = {"type": tarfile.LNKTYPE, "linkname": "../outside"}
DEVICE: dict[str, Any] = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}
SPARSE: dict[str, Any] = {
    "pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 60)}
}
HOSTILE = {
    "absolute": (member("/etc/passwd", b"x"), "no safe name"),
    "upwards": (member("checkpoint/../../x", b"x"), "no safe name"),
    "upwards only": (member("..", b"x"), "no safe name"),
    "control characters": (member("checkpoint/a\x1b[2J", b"x"), "no safe name"),
    "not Unicode": (member("checkpoint/a\udcff", b"x"), "no safe name"),
    "long": (member("checkpoint/" + "a/" * 600 + "b", b"x"), "no safe name"),
    "deep": (member("a/" * 60 + "b", b"x"), "no safe name"),
    "long part": (member("checkpoint/" + "a" * 256, b"x"), "no safe name"),
    "whiteout": (member("checkpoint/.wh.x", b""), "no safe name"),
    "record": (member("snap.json", b"{}"), "no part of a checkpoint"),
    "symbolic link": (member("checkpoint/x", **LINK), "neither file nor folder"),
    "hard link": (member("checkpoint/x", **HARD), "neither file nor folder"),
    "device": (member("checkpoint/x", **DEVICE), "neither file nor folder"),
    "fifo": (member("checkpoint/x", type=tarfile.FIFOTYPE), "neither file nor folder"),
    "old sparse": (member("checkpoint/x", type=tarfile.GNUTYPE_SPARSE), "sparse"),
    "new sparse": (member("checkpoint/x", b"x", **SPARSE), "sparse"),
    "twice": (member("./checkpoint//inventory.img", b"x"), "there twice"),
    "folder and file": (member("checkpoint", b"x"), "a file and a folder"),
    "file and folder": (member("config.dump/", type=tarfile.DIRTYPE), "a file and a folder"),
    "below a file": (member("config.dump/x", b"x"), "below a file"),
}


def _check(folder: Path, content: bytes) -> checking.Contents:
    path = folder / "archive.tar"
    path.write_bytes(content)
    return check(path)


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    said = _check(tmp_path, archive())
    assert (said.namespace, said.pod_name, said.container_name) == ("shop", "test-app", "app")
    assert said.image_ref == "docker.io/library/app@sha256:12"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused(tmp_path: Path, name: str) -> None:
    bad, why = HOSTILE[name]
    with pytest.raises(Refused, match=why) as refusal:
        _check(tmp_path, archive(bad))
    assert refusal.value.code == "VALIDATION_ERROR"
    assert refusal.value.message.isprintable()


@pytest.mark.parametrize("missing", ["config.dump", "spec.dump", "checkpoint/inventory.img"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(Refused, match=f"has no {missing}"):
        _check(tmp_path, archive(without=[missing]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.dump", b"{"),
        ("config.dump", b"[]"),
        ("config.dump", b""),
        ("spec.dump", b"[" * 100_000),
        ("checkpoint/inventory.img", b"GIF89a"),
        ("checkpoint/inventory.img", b""),
    ],
)
def test_parts_that_are_not_what_they_are_called_are_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(Refused):
        _check(tmp_path, archive(files={name: content}))


def test_names_from_an_archive_are_never_more_than_names(tmp_path: Path) -> None:
    spec = b'{"annotations":{"io.kubernetes.cri.sandbox-namespace":"../../x","io.kubernetes.pod.name":7}}'
    said = _check(tmp_path, archive(files={"spec.dump": spec}))
    assert (said.namespace, said.pod_name, said.container_name) == ("", "", "")
    assert _check(tmp_path, archive(files={"spec.dump": b'{"annotations":[1]}'})).namespace == ""


@pytest.mark.parametrize("left", [100, 700, 2000, 5000])
def test_an_archive_that_breaks_off_is_refused(tmp_path: Path, left: int) -> None:
    with pytest.raises(Refused):
        _check(tmp_path, archive()[:left])


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(10_240), b"x" * 4096])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Refused):
        _check(tmp_path, content)


def test_a_second_tar_behind_the_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="follows its end"):
        _check(tmp_path, archive() + tar([member("config.dump", b"{}")]))


def test_a_size_that_lies_is_refused(tmp_path: Path) -> None:
    info, _ = member("checkpoint/x")
    info.size = 1 << 62
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(Refused, match="within a member"):
        _check(tmp_path, header + archive())


def test_a_global_header_can_not_rename_everything(tmp_path: Path) -> None:
    made = tarfile.TarInfo.create_pax_global_header({"path": "config.dump"})
    with pytest.raises(Refused, match="global header"):
        _check(tmp_path, made + archive())


def test_an_extended_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    path = tmp_path / "archive.tar"
    with path.open("wb") as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.truncate(4 << 30)
    with pytest.raises(Refused, match="extended header"):
        check(path)


def test_very_many_members_are_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MAX_MEMBERS", 5_000)
    path = tmp_path / "archive.tar"
    with path.open("wb") as out:
        for number in range(5_100):
            info = tarfile.TarInfo(f"checkpoint/{number:06}-{'n' * 80}")
            out.write(info.tobuf(tarfile.USTAR_FORMAT))
        out.write(bytes(1024))
    tracemalloc.start()
    with pytest.raises(Refused, match="more than 5000 members"):
        check(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_compressed_archive_is_inflated_in_small_pieces() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    reader = gzip_stream.reader(bomb[:10])
    tracemalloc.start()
    sizes = [len(plain) for plain in reader.take(bomb)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.finish()
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1 << 20
    assert peak < 8 << 20


def test_several_gzip_streams_behind_each_other_are_one() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + bytes(100)
    reader = gzip_stream.reader(packed)
    made = b"".join(
        plain for at in range(0, len(packed), 7) for plain in reader.take(packed[at : at + 7])
    )
    reader.finish()
    assert made == b"one two"


def test_damaged_compression_is_refused() -> None:
    packed = gzip.compress(bytes(FILES["checkpoint/pages-1.img"]))
    broken_off = gzip_stream.reader(packed)
    list(broken_off.take(packed[:-20]))
    with pytest.raises(Refused, match="breaks off"):
        broken_off.finish()
    damaged = gzip_stream.reader(packed)
    with pytest.raises(Refused, match="damaged"):
        list(damaged.take(packed[:40] + b"\xff" * 40 + packed[80:]))
