"""Rows about what the agent takes from its node."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

from bench import counters, ours
from bench import lab as place
from bench.case import OURS, Case, Contestant, Sample
from bench.lab import Lab
from bench.row import LARGE, Medians, Row, at_most
from deploy.devnode.pods import Pod, PodSpec

CONTAINERS: Final = 20
REST_S: Final = 20.0
MEMORY: Final = "memory in MiB"
WORKED: Final = "after a checkpoint-and-push: MiB"
SETTLED_S: Final = 35.0  # an agent gives back what it has freed each half a minute
_REST_MIB: Final = 80.0


@contextlib.contextmanager
def _memory(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    def run() -> Sample:
        agent = lab.fresh_agent()
        with lab.hog(case) as pod:
            with counters.memory_peak(agent.pid, agent.memory_folder) as peak:
                pushed = ours.checkpoint_and_push(lab, pod, lab.name("ours"))
            lab.delete_checkpoint(pushed.checkpoint.id)
        lab.empty_registry()
        notes = {"process_mib": peak.process / (1 << 20), "cgroup_mib": peak.cgroup / (1 << 20)}
        return Sample(peak.mib, notes)

    lab.rest  # noqa: B018 - has the programs started
    yield {OURS: run}


@contextlib.contextmanager
def _at_rest(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    lab.rest  # noqa: B018 - has the programs started
    pods = lab.pods(lab.node)
    running: list[Pod] = []
    try:
        running.extend(pods.run(PodSpec(lab.name("counter"), "counter")) for _ in range(CONTAINERS))

        def run() -> Sample:
            return Sample(counters.cpu_percent(lab.fresh_agent().pid, REST_S))

        def memory() -> Sample:
            return Sample(_resident_mib(lab))

        def worked() -> Sample:
            with lab.hog(case) as pod:
                pushed = ours.checkpoint_and_push(lab, pod, lab.name("ours"))
            lab.delete_checkpoint(pushed.checkpoint.id)
            time.sleep(SETTLED_S)
            found = _resident_mib(lab)
            lab.fresh_agent()
            return Sample(found)

        yield {OURS: run, MEMORY: memory, WORKED: worked}
    finally:
        for pod in running:
            place.remove(pods, pod)


def _resident_mib(lab: Lab) -> float:
    return counters.status_bytes(lab.agent.pid, "VmRSS") / (1 << 20)


def _is_modest(medians: Medians, _: Case) -> bool:
    return medians[OURS] <= 1 and medians[MEMORY] <= _REST_MIB


AGENT_MEMORY: Final = Row(
    "agent-memory",
    "peak memory of the agent during one checkpoint-and-push (VmHWM, or its cgroup without page cache)",
    "MiB",
    "≤ 128 MiB, flat over sizes",
    at_most(128),
    _memory,
    cases=((LARGE, "half"), (64 << 20, "half"), (4 << 30, "half")),
)
AT_REST: Final = Row(
    "at-rest",
    f"the agent with {CONTAINERS} containers on its node, over {REST_S:.0f} s: percent of one core",
    "%",
    "≤ 1 % of a core, ≤ 80 MiB",
    _is_modest,
    _at_rest,
    cases=((64 << 20, "half"),),
)
