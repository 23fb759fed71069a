"""Rows about what the agent takes from its node."""

from __future__ import annotations

import contextlib
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
def _at_rest(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:  # noqa: ARG001 - a row's signature
    lab.rest  # noqa: B018 - has the programs started
    pods = lab.pods(lab.node)
    running: list[Pod] = []
    try:
        running.extend(pods.run(PodSpec(lab.name("counter"), "counter")) for _ in range(CONTAINERS))
        agent = lab.fresh_agent()

        def run() -> Sample:
            return Sample(counters.cpu_percent(agent.pid, REST_S))

        def memory() -> Sample:
            return Sample(counters.status_bytes(agent.pid, "VmRSS") / (1 << 20))

        yield {OURS: run, MEMORY: memory}
    finally:
        for pod in running:
            place.remove(pods, pod)


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
