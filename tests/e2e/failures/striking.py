"""Signals at the right moment: to what dumps a container, and to the daemon that brings a restored one its memory."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from deploy.devnode.node import Node

WITHIN_S: Final = 60.0
# whose command line has these words is a part of a dump
PARTS: Final = {"criu": "--rpc -t", "runc": "checkpoint --image-path", "script": "snap-dump run"}
_LAZY: Final = "lazy-pages"


def processes(node: Node, words: str) -> list[int]:
    """Processes of the node with ``words`` in their command line, as this machine numbers them."""
    home = (node.root.with_name("ns") / "mnt").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_text().replace("\0", " ")
            if words in line and (entry / "ns/mnt").readlink() == home:
                found.append(int(entry.name))
    return found


def kill(pids: list[int], how: int = signal.SIGKILL) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


def is_copying(node: Node) -> Callable[[], bool]:
    """Whether a dump that begins after this call has written memory.

    Killed while it enters or leaves a process, CRIU takes that one along.
    """
    folder = node.host_path("/var/lib/snap/checkpoints")
    before = set(folder.iterdir())

    def look() -> bool:
        pages = (one for new in set(folder.iterdir()) - before for one in new.glob("*/pages-*.img"))
        return sum(one.stat().st_size for one in pages) > 1 << 20

    return look


def strike_dump(node: Node, reached: Callable[[], bool], part: str) -> bool:
    """Kill a part of the dump as soon as it has ``reached`` its point; False: it never did.

    It may have been over by then: who asked for the dump is told.
    """
    found: list[int] = []
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # a folder that goes while it is looked at
            found = found or processes(node, PARTS[part])  # this takes long, so it comes first
            if reached():
                kill(found)
                return True
        time.sleep(0.001)
    return False


def is_restoring(work: Path, state: Path) -> bool:
    """Whether CRIU brings back what does not wait for its memory."""
    return (work / "lazy.on").exists()


def is_let_go(work: Path, state: Path) -> bool:
    """Whether the container runs, and its memory still comes."""
    return is_restoring(work, state) and not state.with_name(f"{state.name}.restored").exists()


@contextlib.contextmanager
def lazy_restore_struck(
    node: Node, reached: Callable[[Path, Path], bool], how: int
) -> Iterator[Callable[[], int]]:
    """The next lazy restore of the node has ``how`` sent to its daemon when it has come to a point.

    Yields:
        A function that waits for that; the daemon's pid, 0 if the restore was over before.
    """
    works, states = node.host_path("/var/lib/snap/restores"), node.host_path("/run/snap/state")
    before = set(works.iterdir())

    def watch() -> int:
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            for work in set(works.iterdir()) - before:
                if (work / "lazy.result").is_file():
                    return 0  # its memory was there before we looked
                if not reached(work, states / work.name):
                    continue
                named = [p for p in processes(node, _LAZY) if work.name in _words(p)]
                kill(named, how)
                if named:
                    return named[0]
            time.sleep(0.001)
        return 0

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(watch).result


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
