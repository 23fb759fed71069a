"""In a PID namespace that containers share, what comes after a restore gets numbers far from the checkpoint's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.formats import core_images
from agent.restore import process_numbers
from agent.runtimes.commands import Host

HIGHEST = 4321


@pytest.fixture
def shared() -> Iterator[str]:
    """A PID namespace with one process in it."""
    script = "echo ready; exec sleep 300"
    argv = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield f"/proc/{child}/ns/pid"
        process.kill()


def next_number(namespace: str) -> int:
    argv = ["nsenter", f"--pid={namespace}", "sh", "-c", "echo $$"]
    return int(subprocess.run(argv, check=True, capture_output=True).stdout)


def last_number() -> int:
    return int(Path("/proc/sys/kernel/ns_last_pid").read_text())


def spec(path: str) -> dict[str, object]:
    return {"linux": {"namespaces": [{"type": "pid", **({"path": path} if path else {})}]}}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The images of a process with this number."""
    (tmp_path / f"core-{HIGHEST}.img").touch()
    return tmp_path


async def test_new_processes_are_numbered_above_the_restored_ones(
    shared: str, images: Path
) -> None:
    assert next_number(shared) < HIGHEST
    await process_numbers.keep_apart(Host(), spec(shared), images)
    assert next_number(shared) > HIGHEST + process_numbers.APART


async def test_a_namespace_of_ones_own_and_the_nodes_are_left_alone(tmp_path: Path) -> None:
    before = last_number()
    (tmp_path / f"core-{before + 100_000}.img").touch()
    await process_numbers.keep_apart(Host(), spec(""), tmp_path)
    await process_numbers.keep_apart(Host(), {"linux": {"namespaces": []}}, tmp_path)
    assert last_number() < before + 100_000


async def test_one_that_is_gone_costs_no_restore(images: Path) -> None:
    await process_numbers.keep_apart(Host(), spec("/proc/4194304/ns/pid"), images)


def test_the_highest_number_is_a_threads_too(tmp_path: Path) -> None:
    for name in ("core-7.img", "core-12.img", "core-112.img", "mm-900.img"):
        (tmp_path / name).touch()
    assert core_images.highest_number(tmp_path) == 112
    assert core_images.highest_number(tmp_path / "nothing") == 0
