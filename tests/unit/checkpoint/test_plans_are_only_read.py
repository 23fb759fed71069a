"""What the script is told: plain lines, never code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from agent import errors
from agent.checkpoint import plan
from agent.checkpoint.plan import Copy, Dump, DumpTarget, Folder
from agent.runtimes.commands import Host


def dump(*copies: Copy, binary: str = "runc", count: int = 1) -> Dump:
    target = DumpTarget(
        checkpoint_id="c",
        container_id="i",
        container_name="app",
        binary=binary,
        root="/run/runc",
        pid=7,
        copies=copies,
    )
    return Dump(
        job_id="j", engine="runc", timeout_s=1.5, leave_running=True, targets=(target,) * count
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(Host(tmp_path), "/data", "j")


def test_a_plan_comes_back_as_it_was(folder: Folder) -> None:
    made = dump(Copy(source="/a b;$(x)", target="raw/upper.tar"))
    folder.write(made)
    assert folder.read() == made
    lines = (folder.here / "0/plan").read_text().splitlines()
    assert "copy_used=/a b;$(x)|/data/checkpoints/c/raw/upper.tar" in lines
    assert "flags=--leave-running --file-locks --tcp-skip-in-flight" in lines
    options = (folder.here / "0/home/.criu/default.conf").read_text().splitlines()
    assert set(plan.CRIU_OPTIONS) <= set(options)


@pytest.mark.parametrize(
    ("binary", "leave", "flags"),
    [
        ("runc", True, "--manage-cgroups-mode ignore"),
        ("runc", False, ""),
        ("crun", True, ""),
    ],
)
def test_only_runc_is_told_to_leave_cgroups(
    folder: Folder, binary: str, leave: bool, flags: str
) -> None:
    made = dump(binary=binary)
    (target,) = made.targets
    target = msgspec.structs.replace(target, leave_cgroups=leave)
    folder.write(msgspec.structs.replace(made, targets=(target,)))
    lines = (folder.here / "0/plan").read_text().splitlines()
    assert f"flags_without_cgroups={flags}" in lines
    assert "pid=7" in lines


@pytest.mark.parametrize(
    ("cgroups", "version", "may"),
    [
        ("v1", "1.3.6+ds1", True),
        ("v1", "1.2.0", True),
        ("v1", "1.1.15", False),
        ("v1", "2.0.0-rc.1", True),
        ("v1", "", False),
        ("v1", "unknown", False),
        ("v2", "1.3.6", False),
    ],
)
def test_cgroups_are_left_where_restores_can_do_without(
    cgroups: str, version: str, may: bool
) -> None:
    assert plan.may_leave_cgroups(cgroups, version) is may


def test_only_several_containers_are_frozen_by_the_script(folder: Folder) -> None:
    assert not dump().pauses
    assert dump(count=2).pauses


@pytest.mark.parametrize("source", ["/a|b", "/a\nb"])
def test_a_path_that_would_break_a_line_is_refused(folder: Folder, source: str) -> None:
    with pytest.raises(errors.Refused):
        folder.write(dump(Copy(source=source, target="x")))
    assert folder.read() is None


def test_what_is_not_there_is_not_begun(folder: Folder) -> None:
    assert folder.read() is None
    assert folder.process() is None
    assert folder.result() is None


def test_a_result_is_read(folder: Folder) -> None:
    folder.here.mkdir(parents=True)
    text = "outcome=failed\nfailed=1\nstatus=137\nfrozen_ns=1000000\nthawed_ns=3500000\n"
    (folder.here / "result").write_text(text)
    found = folder.result()
    assert found
    assert (found.outcome, found.failed, found.status) == ("failed", 1, 137)
    assert found.pause_ms == 2.5


def test_a_strange_folder_is_passed_over(folder: Folder) -> None:
    folder.write(dump())
    (folder.here.parent / ".strange name").mkdir()
    assert [one.path for one in plan.folders(folder.host, "/data")] == [folder.path]


def test_the_script_is_a_posix_shells() -> None:
    script = Path(plan.__file__).with_name("snap-dump.sh")
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
