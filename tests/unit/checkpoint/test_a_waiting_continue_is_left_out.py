"""A dump of a process that blocks SIGCONT and was let go by it can be restored: the signal is not in it any more."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from agent.formats import criu_images, pending_signals
from snap_protos.criu import images_pb2

UNKNOWN = b"\xf8\x01\x2a"  # field 31, which our subset of the format does not know
MAGIC = criu_images.magic(0x55053847)


def queue(*numbers: int) -> images_pb2.signal_queue_entry:
    infos = [number.to_bytes(4, sys.byteorder) + bytes(124) for number in numbers]
    return images_pb2.signal_queue_entry(
        signals=[images_pb2.siginfo_entry(siginfo=info) for info in infos]
    )


def core(images: Path, pid: int, shared: tuple[int, ...], own: tuple[int, ...] = ()) -> Path:
    entry = images_pb2.core_entry(
        mtype=1,
        tc=images_pb2.task_core_entry(task_state=1, comm="su", signals_s=queue(*shared)),
        thread_core=images_pb2.thread_core_entry(signals_p=queue(*own)),
    )
    image = images / f"core-{pid}.img"
    image.write_bytes(criu_images.build(MAGIC, [entry.SerializeToString() + UNKNOWN]))
    return image


def tree(images: Path, *threads: int) -> None:
    nodes = [
        images_pb2.pstree_entry(pid=1, ppid=0, pgid=1, sid=1, threads=threads),
        images_pb2.pstree_entry(pid=9, ppid=1, pgid=1, sid=1, threads=[9]),
    ]
    content = criu_images.build(MAGIC, [node.SerializeToString() for node in nodes])
    (images / "pstree.img").write_bytes(content)


def pending(image: Path) -> list[int]:
    entry = images_pb2.core_entry.FromString(criu_images.first(image.read_bytes()))
    queues = (entry.tc.signals_s, entry.thread_core.signals_p)
    return [int.from_bytes(s.siginfo[:4], sys.byteorder) for q in queues for s in q.signals]


def test_of_the_first_process_it_goes_and_the_rest_stays(tmp_path: Path) -> None:
    tree(tmp_path, 1, 4)
    first = core(tmp_path, 1, (signal.SIGCHLD, signal.SIGCONT, signal.SIGUSR1))
    thread = core(tmp_path, 4, (), (signal.SIGCONT, signal.SIGALRM))
    assert pending_signals.forget_continue(tmp_path)
    assert pending(first) == [signal.SIGCHLD, signal.SIGUSR1]
    assert pending(thread) == [signal.SIGALRM]
    assert UNKNOWN in first.read_bytes()
    assert not pending_signals.forget_continue(tmp_path)


def test_of_other_processes_it_stays(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    first, other = core(tmp_path, 1, (signal.SIGCHLD,)), core(tmp_path, 9, (signal.SIGCONT,))
    before = first.read_bytes(), other.read_bytes()
    assert not pending_signals.forget_continue(tmp_path)
    assert (first.read_bytes(), other.read_bytes()) == before


def test_damaged_images_are_an_error(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    (tmp_path / "core-1.img").write_bytes(b"")
    with pytest.raises(ValueError, match="CRIU image"):
        pending_signals.forget_continue(tmp_path)
