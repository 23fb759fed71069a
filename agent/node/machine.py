"""What the node's files say of the machine: kernel, architecture, CPU, cgroups.

Source: proc(5), os-release(5), uname(2); architectures are named as the OCI image specification
does (GOARCH).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from agent.runtimes.commands import Host

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine under the node. ``cpu_features`` are the flags of its first CPU, sorted."""

    os: str
    kernel: str
    architecture: str
    cgroup_version: str
    cpu_features: tuple[str, ...]
    boot_id: str


def read(host: Host) -> Machine:
    """The machine, from the files of ``host``; what can't be read stays empty."""
    name = os.uname()
    return Machine(
        os=_os_name(_text(host, "/etc/os-release")),
        kernel=name.release,
        architecture=_ARCHITECTURES.get(name.machine, name.machine),
        cgroup_version=_cgroup_version(host),
        cpu_features=_cpu_features(_text(host, "/proc/cpuinfo")),
        boot_id=_text(host, "/proc/sys/kernel/random/boot_id").strip(),
    )


def _cgroup_version(host: Host) -> str:
    return "v2" if host.path("/sys/fs/cgroup/cgroup.controllers").is_file() else "v1"


def _cpu_features(cpuinfo: str) -> tuple[str, ...]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return tuple(sorted(found[1].split())) if found else ()


def _os_name(os_release: str) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', os_release, re.MULTILINE)
    return found[1] if found else ""


def _text(host: Host, path: str) -> str:
    try:
        return host.path(path).read_text(errors="replace")
    except OSError:
        return ""
