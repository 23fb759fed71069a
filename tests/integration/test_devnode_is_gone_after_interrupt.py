"""A starter that is interrupted cleans up; one that is killed leaves what the next run removes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.devnode import cgroups, lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.processes import wait_until
from deploy.devnode.world import World

pytestmark = pytest.mark.node
UP = (sys.executable, "-m", "deploy.devnode", "--instance", "cut", "up")


@pytest.fixture
def instance(world: World) -> Iterator[Instance]:
    cut = Instance("cut")
    yield cut
    lifecycle.down(cut)
    cut.lock_file.unlink(missing_ok=True)


def start_up_to(instance: Instance, milestone: str) -> subprocess.Popen[bytes]:
    """Start ``up`` and wait until ``milestone`` is there."""
    process = subprocess.Popen(UP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    there = instance.state / milestone
    wait_until(there.exists, milestone, timeout_s=240)
    return process


def traces(instance: Instance) -> list[str]:
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    found = [
        name for name in (instance.bridge, instance.veth(1), instance.veth(2)) if name in links
    ]
    found += [str(folder) for folder in cgroups.folders_of(instance.cgroup)]
    found += [
        line
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if str(instance.state) in line
    ]
    return found + ([str(instance.state)] if instance.state.exists() else [])


@pytest.mark.parametrize("milestone", ["tls", "base.json", "node1.json", "node2.json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_interrupted_start_leaves_nothing(
    instance: Instance, milestone: str, number: signal.Signals
) -> None:
    process = start_up_to(instance, milestone)
    process.send_signal(number)
    assert process.wait(120) == 130
    assert traces(instance) == []


@pytest.mark.parametrize("milestone", ["base.json", "node1.json"])
def test_what_a_killed_start_leaves_is_removed(instance: Instance, milestone: str) -> None:
    process = start_up_to(instance, milestone)
    process.kill()
    process.wait(60)
    lifecycle.down(instance)
    assert traces(instance) == []


def test_a_killed_start_does_not_hinder_the_next(instance: Instance) -> None:
    process = start_up_to(instance, "node1.json")
    process.kill()
    process.wait(60)
    assert subprocess.run(UP, check=False, stdout=subprocess.DEVNULL, timeout=240).returncode == 0
