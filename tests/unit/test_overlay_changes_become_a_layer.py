"""An upper directory's tar becomes an OCI layer."""

from __future__ import annotations

import io
import tarfile

import pytest

from agent.formats import overlay

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\xff".decode("utf-8", "surrogateescape")


def member(name: str, kind: bytes = tarfile.REGTYPE, **changes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in changes.items():
        setattr(info, field, value)
    return info


def layer_of(*members: tarfile.TarInfo, content: bytes = b"") -> list[tarfile.TarInfo]:
    upper, layer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=upper, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    upper.seek(0)
    overlay.upper_to_layer(upper, layer)
    layer.seek(0)
    with tarfile.open(fileobj=layer) as tar:
        return tar.getmembers()


def test_a_deleted_file() -> None:
    (found,) = layer_of(member("./srv/gone", tarfile.CHRTYPE))
    assert (found.name, found.type, found.size) == ("srv/.wh.gone", tarfile.REGTYPE, 0)


def test_deleted_files_that_share_an_inode() -> None:
    one = member("./a", tarfile.CHRTYPE)
    two = member("./d/b", tarfile.LNKTYPE, linkname="./a")
    assert [found.name for found in layer_of(one, two)] == [".wh.a", "d/.wh.b"]


def test_a_directory_that_hides_the_one_below() -> None:
    headers = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.origin": "x",
    }
    made, mark = layer_of(member("./d", tarfile.DIRTYPE, mode=0o2750, pax_headers=headers))
    assert (made.name, made.mode, made.pax_headers) == ("d", 0o2750, {})
    assert mark.name == "d/.wh..wh..opq"


def test_a_real_device_and_a_hard_link_stay_what_they_are() -> None:
    device = member("./null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    link = member("./l", tarfile.LNKTYPE, linkname="./f")
    found = layer_of(device, member("./f"), link)
    assert [(one.name, one.type, one.linkname) for one in found] == [
        ("null", tarfile.CHRTYPE, ""),
        ("f", tarfile.REGTYPE, ""),
        ("l", tarfile.LNKTYPE, "f"),
    ]


def test_binary_attributes_and_fractions_of_seconds_survive() -> None:
    headers = {"SCHILY.xattr.security.capability": CAPABILITY}
    info = member("./ping", size=3, mtime=1.25, uid=70000, pax_headers=headers)
    (found,) = layer_of(info, content=b"abc")
    assert found.pax_headers["SCHILY.xattr.security.capability"] == CAPABILITY
    assert (found.mtime, found.uid, found.size) == (1.25, 70000, 3)


@pytest.mark.parametrize("feature", ["redirect", "metacopy"])
def test_what_a_layer_cannot_say_is_refused(feature: str) -> None:
    headers = {f"SCHILY.xattr.trusted.overlay.{feature}": "/elsewhere"}
    with pytest.raises(overlay.OverlayError, match=feature):
        layer_of(member("./d", tarfile.DIRTYPE, pax_headers=headers))
