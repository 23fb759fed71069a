"""Paths that processes watch by inotify, for CRIU to look for: it can't name them again by itself."""

from __future__ import annotations

import posixpath
import re
from typing import Final

from agent import errors
from agent.runtimes import watches
from agent.runtimes.commands import Host

_PLAIN: Final = re.compile(r"[^\s\"'#\\\\]+")  # what CRIU's configuration file takes as one word


def find(host: Host, name: str, pids: tuple[int, ...]) -> tuple[str, ...]:
    """What the processes of container ``name`` watch, as they see it. Blocks.

    Raises:
        Refused: something has no name in the container, so that CRIU could not watch it again.
    """
    marks = watches.marks(host, pids)
    found = watches.names(host, pids[0], marks) if marks else {}
    if len(found) < len(marks):
        raise errors.Refused(
            f"A process of container {name} watches (inotify) something that was deleted or lies outside of "
            "the container, which CRIU can't dump; end that watch before the checkpoint."
        )
    return tuple(sorted(set(found.values())))


def options(paths: tuple[str, ...]) -> tuple[str, ...]:
    """CRIU's options for these paths.

    Source: criu(8), ``--force-irmap`` and ``--irmap-scan-path``, which looks at everything below as well.
    """
    scanned = sorted({_plain(path) for path in paths} - {"/"})  # which it looks at anyway
    return ("force-irmap", *(f"irmap-scan-path {path}" for path in scanned)) if paths else ()


def _plain(path: str) -> str:
    """``path``, or the folder above it whose name CRIU's configuration file can hold."""
    while not _PLAIN.fullmatch(path):
        path = posixpath.dirname(path)
    return path
