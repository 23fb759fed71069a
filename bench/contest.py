"""Running the contestants of a row in turns, the order alternating."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from bench.case import Contestant, Figures, Sample, Unusable
from deploy.devnode.processes import NotReady
from deploy.devnode.rest import Refusal

Say = Callable[[str], None]
FAILURES: Final = (
    Unusable,
    Refusal,
    NotReady,
    RuntimeError,
    OSError,
    grpc.RpcError,
    subprocess.SubprocessError,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a row's contestants; one that failed once is left out of further rounds."""

    figures: Mapping[str, Figures]
    failures: Mapping[str, str]


def hold(contestants: Mapping[str, Contestant], runs: int, say: Say) -> Outcome:
    """Run every contestant ``runs`` times: A B, B A, A B …"""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    failures: dict[str, str] = {}
    for number in range(runs):
        order = list(contestants) if number % 2 == 0 else list(contestants)[::-1]
        for name in order:
            if name in failures:
                continue
            try:
                sample = contestants[name]()
            except FAILURES as cause:
                failures[name] = words(cause)
                say(f"  {name} failed: {failures[name]}")
                continue
            samples[name].append(sample)
            say(f"  run {number + 1} {name}: {sample.value:.4g} {dict(sample.notes) or ''}")
    return Outcome({n: Figures(s) for n, s in samples.items() if s}, failures)


def words(problem: BaseException) -> str:
    """A failure in its tool's own words, in one line."""
    if isinstance(problem, grpc.Call):
        text = str(problem.details())
    elif isinstance(problem, subprocess.CalledProcessError):
        text = f"{problem}: {problem.stderr or problem.stdout or ''}"
    else:
        text = str(problem)
    return " ".join(text.split())[:600]
