"""A runtime that restores is killed with all that it started, children in sessions of their own included."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.restore import hanging
from agent.runtimes.commands import Host
from tests.integration.restoring import wait_for

TREE = 'setsid sh -c "sleep 100 & sleep 100" & echo $! >"$0"; wait'


@pytest.fixture
def restoring(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Something that looks like a runtime restoring the container ``hang-1``, with children."""
    argv = ["sh", "-c", TREE, str(tmp_path / "child"), "restore", "--detach", "hang-1"]
    with subprocess.Popen(argv, start_new_session=True) as process:
        wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
        yield process
        process.kill()


def below(pid: int) -> list[int]:
    """The living processes that ``pid`` started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in text.split()]


async def test_all_of_it_and_nothing_else(restoring: subprocess.Popen[bytes]) -> None:
    (child,) = below(restoring.pid)
    family = [restoring.pid, child, *wait_for(lambda: len(below(child)) > 1 and below(child))]
    assert await hanging.stop(Host(), "hang-2") == 0
    assert restoring.poll() is None
    assert await hanging.stop(Host(), "hang-1") == len(family)
    assert restoring.wait(30) in (
        -9,
        0,
    )  # 0: the child that it waited for was gone a moment before it
    wait_for(lambda: all(is_gone(pid) for pid in family))


def is_gone(pid: int) -> bool:
    """Killed; whether this machine's first process has reaped it does not matter."""
    try:
        os.kill(pid, 0)
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True
