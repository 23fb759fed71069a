"""What a container asks for in its pod's spec, kept as digests: two can be compared, and nothing can be read from them.

The restoring node compares what the runtime was told, to the letter, and has the last word. This comparison comes
first, at admission, so that a pod that asks for something else is left alone, and told why.

Source: the Kubernetes API reference, Pod v1: Container, PodSpec, SecurityContext.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_TOKEN_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_NAMESPACES: Final = ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace")
_ON: Final = ("hostUsers",)  # what is true where nothing is said
_TERMINAL: Final = ("tty", "stdin", "stdinOnce")
_SHORT: Final = 16  # bytes of each digest
_encode = msgspec.json.Encoder(order="deterministic").encode


def asks(spec: Mapping[str, Any], container: Mapping[str, Any], key: bytes) -> dict[str, str]:
    """What ``container`` of a pod with ``spec`` asks for: the name of each thing, and a digest of it.

    Args:
        key: digests made with another one can't be compared; keeps short secrets from being guessed.
    """
    return {
        name: hmac.digest(key, name.encode() + b"\0" + _encode(value), hashlib.sha256)[
            :_SHORT
        ].hex()
        for name, value in _things(spec, container)
    }


def container_of(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The container ``name`` of a pod's spec; empty if there is none."""
    return next((c for c in _list(spec.get("containers")) if c.get("name") == name), {})


def claimed_mount(spec: Mapping[str, Any], container: Mapping[str, Any]) -> str:
    """Where the container may write to a volume that has a life of its own; empty: nowhere."""
    claims = {
        str(volume.get("name")): _dict(volume.get("persistentVolumeClaim"))
        for volume in _list(spec.get("volumes"))
        if "persistentVolumeClaim" in volume or "ephemeral" in volume
    }
    mounts, devices = (_list(container.get(one)) for one in ("volumeMounts", "volumeDevices"))
    for mount in (*mounts, *devices):
        claim = claims.get(str(mount.get("name")))
        if claim is not None and not (mount.get("readOnly") or claim.get("readOnly")):
            return str(mount.get("mountPath") or mount.get("devicePath"))
    return ""


def difference(had: Mapping[str, str], wants: Mapping[str, str]) -> str:
    """What the new container asks for otherwise than the checkpointed one, as a phrase; "": nothing."""
    different = sorted(n for n in had.keys() | wants.keys() if had.get(n) != wants.get(n))
    return ", ".join(different[:3]) + (" and more" if len(different) > 3 else "")


def _things(spec: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "image", container.get("image")
    yield "command", [container.get("command") or [], container.get("args") or []]
    yield "working directory", container.get("workingDir") or ""
    for variable in _list(container.get("env")):
        yield f"variable {variable.get('name')}", _present(variable)
    if sources := container.get("envFrom"):
        yield "envFrom", sources
    if terminal := [name for name in _TERMINAL if container.get(name)]:
        yield "terminal", terminal
    # the pod's part is what a container that says nothing gets
    own, pods = (_dict(one.get("securityContext")) for one in (container, spec))
    if context := _present({"pod": _present(pods), "container": _present(own)}):
        yield "security context", context
    if namespaces := [name for name in _NAMESPACES if spec.get(name, name in _ON) != (name in _ON)]:
        yield "namespaces", namespaces
    kinds = {str(v.get("name")): sorted(v.keys() - {"name"}) for v in _list(spec.get("volumes"))}
    for mount in _list(container.get("volumeMounts")):
        path = mount.get("mountPath")
        if path != _TOKEN_MOUNT:  # every pod's has a name of its own
            about = {k: v for k, v in _present(mount).items() if k not in ("name", "mountPath")}
            yield f"mount {path}", [about, kinds.get(str(mount.get("name")), [])]
    for device in _list(container.get("volumeDevices")):
        yield f"device {device.get('devicePath')}", kinds.get(str(device.get("name")), [])


def _present(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` without what says nothing."""
    return {k: v for k, v in value.items() if v is not None and v not in ("", [], {})}


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
