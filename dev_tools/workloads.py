"""The demo's three programs, and how each proves that it went on where it was.

Each keeps something that only a real restore can bring over: a number in memory, a key in Redis, random memory.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deploy.devnode.pods import Pod, Pods, PodSpec

WAIT_S: Final = 90.0
HOG_MIB: Final = 256


class NotProved(RuntimeError):
    """A restored program is not what was checkpointed; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One program: how to start it, what to note before, what must hold after.

    Attributes:
        note: waits until the program is up and returns what must survive.
        prove: given the restored pod and the note, the proof in a few words, or NotProved.
    """

    spec: PodSpec
    note: Callable[[Pods, Pod], str]
    prove: Callable[[Pods, Pod, str], str]


def _until(found: Callable[[], str], what: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise NotProved(f"{what} did not come within {WAIT_S:.0f} s")
        time.sleep(0.05)
    return answer


def _ticks(pod: Pod) -> list[int]:
    return [int(line.split()[1]) for line in pod.lines() if line.startswith("tick ")]


def _note_count(_: Pods, pod: Pod) -> str:
    return _until(
        lambda: str(_ticks(pod)[-1]) if len(_ticks(pod)) > 15 else "", "the counter's ticks"
    )


def _prove_count(_: Pods, pod: Pod, noted: str) -> str:
    _until(lambda: "yes" if len(_ticks(pod)) > 1 else "", "a tick of the restored counter")
    first = _ticks(pod)[0]
    if first <= int(noted):
        raise NotProved(f"the restored counter says {first}, it had been at {noted} before")
    return f"counts on: {noted} before, first tick {first}, now {_ticks(pod)[-1]}"


def _redis_state(pods: Pods, pod: Pod) -> str:
    key = pods.exec(pod, "redis-cli", "get", "demo").strip()
    server = pods.exec(pod, "redis-cli", "info", "server")
    run_id = next(line for line in server.splitlines() if line.startswith("run_id:"))
    return f"{key} {run_id.removeprefix('run_id:').strip()}"


def _note_redis(pods: Pods, pod: Pod) -> str:
    _until(lambda: "yes" if any("Ready to accept" in x for x in pod.lines()) else "", "Redis")
    pods.exec(pod, "redis-cli", "set", "demo", secrets.token_hex(8))
    return _redis_state(pods, pod)


def _prove_redis(pods: Pods, pod: Pod, noted: str) -> str:
    found = _redis_state(pods, pod)
    if found != noted:
        raise NotProved(f"the restored Redis has key and run id {found}, they had been {noted}")
    key, run_id = found.split()
    return f"same key ({key}) and run id ({run_id[:12]}…)"


def _sums(pod: Pod) -> list[str]:
    return [line.split()[1] for line in pod.lines() if line.startswith("sum ")]


def _sum(pods: Pods, pod: Pod) -> str:
    known = len(_sums(pod))
    pods.exec(pod, "kill", f"-{signal.SIGUSR1.value}", "1")
    return _until(lambda: _sums(pod)[-1] if len(_sums(pod)) > known else "", "a memory checksum")


def _note_memory(pods: Pods, pod: Pod) -> str:
    _until(lambda: "yes" if f"ready {HOG_MIB}" in pod.lines() else "", "the memory hog")
    return _sum(pods, pod)


def _prove_memory(pods: Pods, pod: Pod, noted: str) -> str:
    found = _sum(pods, pod)
    if found != noted:
        raise NotProved(f"the restored memory has checksum {found}, it had been {noted}")
    return f"{HOG_MIB} MiB of memory, same checksum ({found})"


WORKLOADS: Final = (
    Workload(PodSpec("counter", "counter"), _note_count, _prove_count),
    Workload(PodSpec("redis", "redis"), _note_redis, _prove_redis),
    Workload(
        PodSpec("hog", "hog", env={"HOG_MIB": str(HOG_MIB), "HOG_MODE": "half"}),
        _note_memory,
        _prove_memory,
    ),
)
