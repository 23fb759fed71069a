"""A file of a hostPath that was open must be on the node where it is restored, as it was; CRIU would fail late."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.checkpoint import host_files as holding
from agent.formats.fingerprint import HostFile
from agent.formats.template import MountFact
from agent.restore import host_files
from agent.runtimes.commands import Host


def mount(destination: str, source: str = "/srv/x", kind: str = "host") -> MountFact:
    return MountFact(destination=destination, kind=kind, source=source)


def test_what_is_open_below_the_mount_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("four")
    os.mkfifo(tmp_path / "data/pipe")
    names = ("data", "data/file", "data/pipe", "data/gone (deleted)", "database")
    used = frozenset(str(tmp_path / name) for name in names)
    found = holding.find(Host(), os.getpid(), (mount(str(tmp_path / "data")),), used)
    assert found == (
        HostFile(path=str(tmp_path / "data")),
        HostFile(path=str(tmp_path / "data/file"), size_bytes=4),
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        pytest.param(HostFile(path="/data/file", size_bytes=4), "", id="as it was"),
        pytest.param(HostFile(path="/data"), "", id="the folder itself"),
        pytest.param(HostFile(path="/data/none", size_bytes=4), "does not exist", id="missing"),
        pytest.param(HostFile(path="/data/file", size_bytes=5), "another size", id="grown"),
        pytest.param(HostFile(path="/data/file"), "is no folder", id="no folder"),
        pytest.param(HostFile(path="/data", size_bytes=4), "is no file", id="no file"),
        pytest.param(HostFile(path="/data/deep/x", size_bytes=1), "", id="a volume within it"),
        pytest.param(HostFile(path="/data/../etc/x", size_bytes=1), "", id="a crafted path"),
    ],
)
def test_it_is_looked_for_where_the_new_pod_has_it(
    tmp_path: Path, wanted: HostFile, words: str
) -> None:
    (tmp_path / "srv/x").mkdir(parents=True)
    (tmp_path / "srv/x/file").write_text("four")
    mounts = (mount("/data"), mount("/data/deep", "/volumes/y", "emptydir"))
    said = host_files.obstacle(Host(tmp_path), [wanted], mounts)
    assert (words in said) if words else not said


def test_a_subpath_has_nothing_of_the_old_volume(tmp_path: Path) -> None:
    (tmp_path / "subpaths/0").mkdir(parents=True)
    part = MountFact(destination="/log", kind="emptydir", source="/subpaths/0", sub_path=True)
    wanted = [HostFile(path="/log"), HostFile(path="/log/file", size_bytes=4)]
    assert "/log/file open" in host_files.obstacle(Host(tmp_path), wanted, (part,))
    (tmp_path / "subpaths/0/file").write_text("four")
    assert not host_files.obstacle(Host(tmp_path), wanted, (part,))
