"""What the hog says of its memory when it is asked by a signal: its checksum; how many pages it changed."""

from __future__ import annotations

import signal
import time
from typing import Final

from bench.case import Unusable
from deploy.devnode.pods import Pod, Pods

WAIT_S: Final = 120.0
_LOOK_S: Final = 0.05


def checksum(pods: Pods, pod: Pod) -> str:
    """CRC-32 of all of it; every page is read, so a lazy restore brings them all."""
    return _asked(pods, pod, signal.SIGUSR1, "sum")


def change(pods: Pods, pod: Pod) -> int:
    """Have the hog change 5 % of its pages at random; how many it changed."""
    return int(_asked(pods, pod, signal.SIGUSR2, "changed"))


def check(pods: Pods, pod: Pod, wanted: str) -> None:
    """That a restored hog's memory is the original's.

    Raises:
        Unusable: it is not.
    """
    found = checksum(pods, pod)
    if found != wanted:
        raise Unusable(f"restored memory has checksum {found}, the original had {wanted}")


def _asked(pods: Pods, pod: Pod, number: signal.Signals, word: str) -> str:
    known = len(_answers(pod, word))
    pods.exec(pod, "kill", f"-{number.value}", "1")
    deadline = time.monotonic() + WAIT_S
    while len(found := _answers(pod, word)) <= known:
        if time.monotonic() > deadline:
            raise Unusable(f"{pod.spec.name} did not say {word!r} within {WAIT_S:.0f} s")
        time.sleep(_LOOK_S)
    return found[-1]


def _answers(pod: Pod, word: str) -> list[str]:
    return [line.split()[1] for line in pod.lines() if line.startswith(word + " ")]
