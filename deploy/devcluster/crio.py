"""CRI-O on a node, built from source, with runc and the handler ``snap``.

Source: crio.conf(5), containers-policy.json(5), containers-storage.conf(5) of CRI-O 1.34.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.devcluster import programs
from deploy.devcluster.gomodules import Recipe
from deploy.devnode import containerd
from deploy.devnode.instance import Instance
from deploy.devnode.node import Fittings
from deploy.devnode.rootfs import Say

_PROGRAMS: Final = "/opt/crio"
_RUNC: Final = "usr/local/bin/runc"
_SETTINGS: Final = """\
[crio]
root = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
storage_driver = "overlay"
log_dir = "/var/log/crio/pods"
version_file = "/run/crio/version"
[crio.api]
listen = "{socket}"
[crio.image]
pause_image = "{pause}"
pause_command = ""
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["/usr/lib/cni"]
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{programs}/pinns"
default_runtime = "runc"
enable_criu_support = true
apparmor_profile = "unconfined"
seccomp_profile = ""
[crio.runtime.runtimes.runc]
runtime_path = "/{runc}"
runtime_root = "/run/runc"
monitor_path = "/usr/bin/conmon"
"""
HANDLER: Final = "etc/crio/crio.conf.d/50-handler.conf"  # not the file that preparing a node writes
_HANDLER: Final = """\
[crio.runtime.runtimes.snap]
runtime_path = "{wrapper}"
runtime_root = "/run/runc"
monitor_path = "/usr/bin/conmon"
"""
# Machines that are containers themselves may lack the hugetlb controller and CAP_SYS_RESOURCE; CRI-O, unlike
# containerd, has no setting for either.
_ADAPTED_RUNC: Final = """\
config= previous=
for word; do
    case $previous in -b | --bundle) config=$word/config.json ;; esac
    case $word in --bundle=*) config=${word#*=}/config.json ;; esac
    previous=$word
done
if [ -n "$config" ] && [ -f "$config" ]; then
    jq 'del(.linux.resources.hugepageLimits) | if .process.oomScoreAdj < 0 then .process.oomScoreAdj = 0 else . end' \\
        "$config" > "$config.adapted" && cat "$config.adapted" > "$config"
    rm -f "$config.adapted"
fi
exec /usr/sbin/runc "$@\""""


@dataclass(frozen=True, slots=True)
class Crio:
    """CRI-O as a node's runtime."""

    recipe: Recipe
    socket: str = "/run/crio/crio.sock"

    @property
    def name(self) -> str:
        """Its name and version."""
        return self.recipe.name

    def ready(self, say: Say) -> Path | None:
        """The folder of its programs, built now if need be."""
        return programs.ready(self.recipe, say)

    def fittings(self, instance: Instance, number: int, ca: Path, built: Path | None) -> Fittings:
        """What node ``number`` needs for it."""
        settings = _SETTINGS.format(
            socket=self.socket,
            pause=f"{instance.base_registry}/pause:latest",
            programs=_PROGRAMS,
            runc=_RUNC,
        )
        anything = {"default": [{"type": "insecureAcceptAnything"}]}
        return Fittings(
            files={
                **containerd.shared_files(instance, number, ca),
                "etc/crio/crio.conf": settings,
                HANDLER: _HANDLER.format(wrapper=containerd.WRAPPER),
                "etc/containers/policy.json": json.dumps(anything),
            },
            binds={_PROGRAMS: built} if built else {},
            services={"crio": f"exec {_PROGRAMS}/crio --config /etc/crio/crio.conf"},
            programs={
                _RUNC: _ADAPTED_RUNC,
                "usr/local/bin/crio": f'exec {_PROGRAMS}/crio "$@"',  # where people and agents look
            },
        )
