"""The file with what is new around a restored process: where it goes, and that nothing leads it astray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.restore import surroundings
from agent.restore.surroundings import Surroundings
from agent.restore.undoing import UndoList
from agent.runtimes.commands import Host

TOLD = Surroundings(
    pod_name="web-2",
    namespace="shop",
    pod_uid="u2",
    pod_ips=("10.0.0.7", "fd00::7"),
    node="node2",
    container="app",
    checkpoint="r/x@sha256:1",
    restored_at="2026-01-01T00:00:00.000+00:00",
)


def write(folder: Path, *mounts: str) -> str:
    (folder / "root").mkdir(exist_ok=True)
    undo = UndoList(folder / "undo")
    undo.begin()
    return surroundings.write(Host(folder), "/root", mounts, undo, TOLD.document())


def test_it_lies_below_run_and_everyone_may_read_it(tmp_path: Path) -> None:
    assert write(tmp_path, "/proc", "/dev", "/etc/hosts", "/run/.containerenv") == (
        "/run/snap/restored.json"
    )
    file = tmp_path / "root/run/snap/restored.json"
    assert json.loads(file.read_text())["pod_ip"] == "10.0.0.7"
    assert [oct(p.stat().st_mode & 0o777) for p in (file, file.parent)] == ["0o644", "0o755"]
    assert (tmp_path / "undo").read_text().splitlines() == [
        "remove=/root/run",
        "remove=/root/run/snap",
        "remove=/root/run/snap/restored.json",
    ]


def test_an_older_one_is_replaced_not_written_to(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "root/run/snap/restored.json"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    file.unlink()
    file.symlink_to(elsewhere)
    assert write(tmp_path) == "/run/snap/restored.json"
    assert elsewhere.read_text() == "theirs"
    assert "web-2" in file.read_text()


@pytest.mark.parametrize("mount", ["/run", "/run/", "/run/snap"])
def test_a_mount_over_it_sends_it_elsewhere(tmp_path: Path, mount: str) -> None:
    assert write(tmp_path, mount) == "/etc/snap/restored.json"
    assert not (tmp_path / "root/run").exists()


def test_it_follows_no_link_out_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/run").symlink_to(tmp_path / "outside")
    (tmp_path / "root/etc").write_text("no folder")
    assert write(tmp_path) == "/snap/restored.json"
    assert list((tmp_path / "outside").iterdir()) == []


def test_there_may_be_no_place_for_it(tmp_path: Path) -> None:
    assert write(tmp_path, "/run", "/etc", "/snap") == ""


def test_variables_say_the_same() -> None:
    told = TOLD.variables("/run/snap/restored.json")
    assert told["SNAP_POD_NAME"] == "web-2"
    assert told["SNAP_POD_IP"] == "10.0.0.7"
    assert told["SNAP_RESTORED_FILE"] == "/run/snap/restored.json"
    assert set(told) == {
        f"SNAP_{name}"
        for name in (
            *("POD_NAME", "NAMESPACE", "POD_UID", "POD_IP", "NODE", "CONTAINER"),
            *("CHECKPOINT", "RESTORED_AT", "RESTORED_FILE"),
        )
    }


def test_addresses_that_others_reach_come_first() -> None:
    found = {"127.0.0.1", "::1", "fe80::1", "fd00::7", "10.0.0.7"}
    assert surroundings.own_addresses(found) == ("10.0.0.7", "fd00::7")
