"""What a container asks for, read from its OCI configuration."""

from __future__ import annotations

from typing import Any

import pytest

from agent.formats import template

PODS = "/var/lib/kubelet/pods/u1"


@pytest.mark.parametrize(
    ("source", "kind", "name"),
    [
        (f"{PODS}/volumes/kubernetes.io~empty-dir/cache", "emptydir", "cache"),
        (f"{PODS}/volumes/kubernetes.io~configmap/cfg", "configmap", "cfg"),
        (f"{PODS}/volumes/kubernetes.io~projected/token", "projected", "token"),
        (f"{PODS}/volume-subpaths/cache/app/0", "subpath", "cache"),
        (f"{PODS}/etc-hosts", "runtime", ""),
        ("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm", "runtime", ""),
        ("/srv/files", "host", ""),
    ],
)
def test_kinds_of_binds(source: str, kind: str, name: str) -> None:
    mount = {"destination": "/x", "type": "bind", "source": source, "options": ["rbind", "ro"]}
    (found,) = template.from_spec({"mounts": [mount]}).mounts
    assert (found.kind, found.name, found.read_only) == (kind, name, True)


def test_namespaces_and_security() -> None:
    spec: dict[str, Any] = {
        "process": {
            "args": ["/app"],
            "user": {"uid": 7, "gid": 8, "additionalGids": [9, 3]},
            "capabilities": {"bounding": ["CAP_B", "CAP_A"], "ambient": None},
            "noNewPrivileges": True,
        },
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
            "resources": {"memory": {"limit": 5}, "cpu": {"quota": -1}},
        },
    }
    found = template.from_spec(spec)
    assert found.namespaces == {"pid": "own", "network": "joined"}
    assert (found.uid, found.gid, found.additional_gids) == (7, 8, (3, 9))
    assert found.capabilities == {"bounding": ("CAP_A", "CAP_B")}
    assert (found.seccomp, found.no_new_privileges) == (True, True)
    assert (found.memory_limit_bytes, found.cpu_quota) == (5, 0)


def test_an_empty_configuration_asks_for_nothing() -> None:
    assert template.from_spec({}) == template.Template()


def test_what_is_told_to_others_holds_no_values() -> None:
    spec = {"process": {"args": ["app", "--password=s3cret"], "env": ["TOKEN=s3cret", "HOME=/"]}}
    told = template.without_secrets(template.from_spec(spec))
    assert (told.env, told.args) == (("HOME", "TOKEN"), ())
