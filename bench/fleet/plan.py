"""What a run is made of; passed to the other processes as JSON."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Sequence
from typing import Final

import msgspec
import psutil

from agent.link.pacing import NEWS_EVERY_S

HEARTBEAT_S: Final = 10.0
CLUSTER: Final = "fleet"
_SPARE_FILES: Final = 1024
_CORES: Final = frozenset(os.sched_getaffinity(0))  # before any of them is given away


class Shape(msgspec.Struct, frozen=True):
    """So many agents report on so many jobs each, at the real agent's pace.

    Attributes:
        agents: the first so many of all.
        jobs_each: whose news the agent puts into one frame.
    """

    agents: int
    jobs_each: int

    @property
    def updates_per_s(self) -> float:
        """Of all together."""
        return self.agents * self.jobs_each / NEWS_EVERY_S


class Dialling(msgspec.Struct, frozen=True):
    """Where agents dial, and as whom; ``echo``: the bare server, without any protocol of ours."""

    target: str
    ca_pem: str
    token: str = ""
    echo: bool = False


class Reading(msgspec.Struct, frozen=True):
    """Whom the readers' process connects to: the port, the tokens (the first sees all)."""

    port: int
    tokens: list[str]


def shape(updates_per_s: int, jobs_each: int) -> Shape:
    """As many agents as give ``updates_per_s`` with ``jobs_each`` jobs on each."""
    return Shape(math.ceil(updates_per_s * NEWS_EVERY_S / jobs_each), jobs_each)


def node(number: int) -> str:
    """The name of an agent's node."""
    return f"node-{number:05}"


def job(number: int, which: int) -> str:
    """The id of one of an agent's jobs; it has the form of a ULID."""
    return f"01F{number:011}{which:012}"


def owner(number: int, which: int, users: int) -> str:
    """Whose job it is."""
    return f"user-{(number + which) % users}"


def open_files(needed: int) -> None:
    """Allow so many open files to this process and its children, and as many more as the system lets them have.

    Raises:
        RuntimeError: the system does not.
    """
    wanted = 2 * needed + _SPARE_FILES  # a connection that is given up and its successor
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError) as cause:
            raise RuntimeError(
                f"{wanted} open files are needed, {hard} are allowed (ulimit -Hn); raise it or use fewer agents"
            ) from cause
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measured_core() -> int:
    """The core that the measured servers have for themselves."""
    return max(_CORES)


def on_measured_core(argv: Sequence[str]) -> list[str]:
    """``argv`` on that core from its first moment on: moved later, threads that it has would stay."""
    return ["taskset", "--cpu-list", str(measured_core()), *argv]


def keep_off_measured_core() -> None:
    """Run this process, and what it starts, on the other cores, if there are any."""
    others = _CORES - {measured_core()}
    if others:
        psutil.Process().cpu_affinity(sorted(others))
