"""Names and addresses of devnode instances, and what is read from the machine's cgroup mounts."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from deploy.devnode import cgroups
from deploy.devnode.instance import Instance


@pytest.mark.parametrize("name", ["", "Dev", "9a", "toolongname", "a-b", "a/b", "../x"])
def test_unusable_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't name an instance"):
        Instance(name)


def test_demo_and_tests_do_not_meet() -> None:
    dev, test = Instance("dev"), Instance("test")
    assert dev.gateway == "10.66.0.1"
    for of in ("gateway", "bridge", "cgroup", "state", "base_registry"):
        assert getattr(dev, of) != getattr(test, of)


def test_interface_names_fit_the_kernel() -> None:
    longest = Instance("a2345678")
    assert all(len(name) <= 15 for name in (longest.bridge, longest.veth(1), longest.veth(2)))


def test_pods_of_both_nodes_have_ranges_of_their_own() -> None:
    ranges = [
        ipaddress.ip_network(Instance(i).pod_range(n)) for i in ("dev", "test") for n in (1, 2)
    ]
    assert not any(a.overlaps(b) for a in ranges for b in ranges if a is not b)


V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
"""
V2 = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
EMPTY_V2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def test_version_1_is_used_where_it_has_the_controllers() -> None:
    found = cgroups.parse(V1 + EMPTY_V2)
    assert [(h.mount.name, h.options) for h in found] == [
        ("cpu,cpuacct", "cpu,cpuacct"),
        ("memory", "memory"),
        ("systemd", "none,name=systemd"),
    ]


def test_version_2_is_used_where_it_is_alone() -> None:
    assert cgroups.parse(V2) == (cgroups.Hierarchy(Path("/sys/fs/cgroup"), "", 2),)
