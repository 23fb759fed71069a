"""Nothing of a cluster stays: after ``down``, after Ctrl-C in the middle, and after a kill and the next ``down``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.devcluster.cluster import Cluster
from deploy.devnode import cgroups, lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.processes import wait_until

pytestmark = pytest.mark.cluster
COMMAND = (sys.executable, "-m", "deploy.devcluster", "--instance", "cut")
TUNABLES = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


@pytest.fixture
def instance(cluster: Cluster) -> Iterator[Instance]:
    """Another one beside ``cluster``, which made everything that is kept between runs."""
    cut = Instance("cut")
    yield cut
    lifecycle.down(cut)
    cut.lock_file.unlink(missing_ok=True)


def shown(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def traces(instance: Instance) -> list[str]:
    """Every process, interface, route, mount, cgroup and file that the machine has because of ``instance``."""
    ours = re.compile(
        rf"{re.escape(str(instance.state))}\b|{instance.bridge}\b|{instance.veth(1)[:-1]}|{instance.cgroup}\b"
    )
    told = [shown("ip", "-o", "link"), shown("ip", "route"), shown("ip", "netns")]
    told += [Path(f"/proc/self/{name}").read_text() for name in ("mounts", "mountinfo")]
    told += [processes()]
    found = [line for text in told for line in text.splitlines() if ours.search(line)]
    found += [str(folder) for folder in cgroups.folders_of(instance.cgroup)]
    return found + ([str(instance.state)] if instance.state.exists() else [])


def processes() -> str:
    """Command line and cgroups of every process but ourselves."""
    lines = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (entry / "cgroup").read_text().replace("\n", " ")
        except (NotADirectoryError, FileNotFoundError, ProcessLookupError):
            continue
        lines.append(f"{entry.name} {words} {groups}")
    return "\n".join(lines)


def start_up_to(instance: Instance, milestone: str) -> subprocess.Popen[bytes]:
    """Start ``up`` and wait until ``milestone`` is there."""
    process = subprocess.Popen([*COMMAND, "up"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until((instance.state / milestone).exists, milestone, timeout_s=240)
    return process


@pytest.mark.parametrize(
    "milestone", ["kubernetes/admin.kubeconfig", "kubernetes/kube-scheduler.json", "node2.json"]
)
def test_an_interrupted_start_leaves_nothing(instance: Instance, milestone: str) -> None:
    process = start_up_to(instance, milestone)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=180)
    assert process.returncode == 130, told
    assert traces(instance) == []


def test_a_killed_start_does_not_hinder_the_next_and_down_leaves_nothing(
    instance: Instance,
) -> None:
    before = [Path("/proc/sys", name).read_text() for name in TUNABLES]
    process = start_up_to(instance, "node1.json")
    process.kill()
    process.communicate(timeout=60)
    shown_by_up = subprocess.run(
        [*COMMAND, "up"], check=True, capture_output=True, text=True, timeout=400
    ).stdout
    assert shown_by_up.count(" Ready ") == 2
    assert traces(instance) != []
    assert subprocess.run([*COMMAND, "down"], check=False, timeout=180).returncode == 0
    assert traces(instance) == []
    assert [Path("/proc/sys", name).read_text() for name in TUNABLES] == before
