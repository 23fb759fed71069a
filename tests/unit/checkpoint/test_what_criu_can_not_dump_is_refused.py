"""What CRIU can't dump, or hangs on, is found in /proc and refused with a remedy."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent import errors
from agent.checkpoint import holdings
from agent.runtimes import processes
from agent.runtimes.commands import Host


def process(
    root: Path, pid: int, *files: str, state: str = "S (sleeping)", tracer: int = 0
) -> None:
    """A process of a node, as /proc shows it."""
    here = root / f"proc/{pid}"
    (here / "fd").mkdir(parents=True)
    (here / "ns").mkdir()
    (here / "comm").write_text("worker\n")
    (here / "status").write_text(f"Name:\tworker\nState:\t{state}\nTracerPid:\t{tracer}\n")
    for number, target in enumerate(files):
        (here / f"fd/{number}").symlink_to(target)
    for kind in ("pid", "user"):
        (here / f"ns/{kind}").symlink_to(f"{kind}:[1]")


def refused(root: Path) -> str:
    with pytest.raises(errors.Refused) as caught:
        holdings.refuse(Host(root), "app", 7, (7, 8))
    return caught.value.message


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("anon_inode:[io_uring]", "io_uring ring open, which CRIU can't dump; turn io_uring off"),
        ("anon_inode:[userfaultfd]", "a userfaultfd"),
        ("anon_inode:bpf-map", "a BPF program or map"),
        ("anon_inode:[perf_event]", "a perf event"),
        ("anon_inode:[fanotify]", "have it use inotify"),
        ("/secretmem (deleted)", "secret memory"),
        ("/dev/fuse", "/dev/fuse"),
    ],
)
def test_open_files_of_such_kinds_are_named(tmp_path: Path, target: str, words: str) -> None:
    process(tmp_path, 7)
    process(tmp_path, 8, "/dev/null", target)
    said = refused(tmp_path)
    assert said.startswith("Process worker of container app has ")
    assert words in said


def test_what_looks_alike_is_nothing(tmp_path: Path) -> None:
    process(tmp_path, 7)
    process(tmp_path, 8, "/data/secretmem", "/dev/fuses", "anon_inode:[eventpoll]", "socket:[1]")
    holdings.refuse(Host(tmp_path), "app", 7, (7, 8))


@pytest.mark.parametrize(
    ("state", "tracer", "words"),
    [
        pytest.param("T (stopped)", 0, "kill -CONT", id="stopped"),
        pytest.param("t (tracing stop)", 9, "traced by another one", id="traced"),
    ],
)
def test_who_can_not_be_stopped_is_named(
    tmp_path: Path, state: str, tracer: int, words: str
) -> None:
    process(tmp_path, 7)
    process(tmp_path, 8, state=state, tracer=tracer)
    assert words in refused(tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"), [("pid", "a PID namespace"), ("user", "a user namespace")]
)
def test_a_sandbox_within_is_named(tmp_path: Path, kind: str, words: str) -> None:
    process(tmp_path, 7)
    process(tmp_path, 8)
    (tmp_path / f"proc/8/ns/{kind}").unlink()
    (tmp_path / f"proc/8/ns/{kind}").symlink_to(f"{kind}:[2]")
    assert words in refused(tmp_path)


def test_a_message_queue_is_known_by_its_device(tmp_path: Path) -> None:
    (tmp_path / "proc/8/root/dev/mqueue").mkdir(parents=True)
    queue = tmp_path / "queue"
    queue.touch()
    device = processes.message_queues(Host(tmp_path), 8)
    assert device
    assert processes.message_queues(Host(tmp_path), 7) == 0
    assert processes.is_on(str(queue), "/queue", device)
    assert not processes.is_on(str(queue), "/var/queue", device)
    assert not processes.is_on(str(queue), "/queue", device + 1)


def test_sockets_are_told_apart_by_their_protocol() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        found = [processes.protocol(f"/proc/self/fd/{one.fileno()}") for one in (tcp, unix)]
    assert found == ["TCP", "UNIX"]
    assert processes.protocol(f"/proc/{os.getpid()}/fd/none") == ""
