"""What a container asks of its node (``snap/template.json``), read from its OCI configuration.

Taken from the checkpointed container's and from the new one's ``config.json`` by one function, so
that the two can be compared field by field before a restore.

Source: OCI runtime specification, config.md and config-linux.md; Linux capability names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.formats import layout

_VOLUMES: Final = "/volumes/kubernetes.io~"  # …/pods/<uid>/volumes/kubernetes.io~<kind>/<name>


class MountFact(msgspec.Struct, frozen=True, kw_only=True):
    """One mount of a container.

    Attributes:
        kind: ``emptydir``, ``configmap``, ``secret``, ``projected``, ``downward-api`` … for volumes
            of the kubelet, ``runtime`` for what the runtime makes itself (/etc/hosts, /dev/shm …),
            ``host`` for other binds, else the file system's type (``proc``, ``tmpfs`` …).
        name: of the kubelet's volume, else empty.
        source: on the node that it was taken on.
    """

    destination: str
    kind: str
    read_only: bool = False
    name: str = ""
    source: str = ""
    sub_path: bool = False


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What a container's configuration asks for.

    Attributes:
        namespaces: kind → ``own`` or ``joined`` (the sandbox's or another container's); a kind that
            is absent is the node's.
        capabilities: set (bounding, effective, permitted, inheritable, ambient) → sorted names.
        seccomp: whether a filter is set.
        memory_limit_bytes, cpu_quota, cpu_period: 0 = none.
    """

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    terminal: bool = False
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    capabilities: dict[str, tuple[str, ...]] = {}
    no_new_privileges: bool = False
    seccomp: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    root_read_only: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    namespaces: dict[str, str] = {}
    mounts: tuple[MountFact, ...] = ()
    memory_limit_bytes: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0


def from_spec(spec: Mapping[str, Any]) -> Template:
    """The template of a container with the OCI configuration ``spec`` (decoded ``config.json``)."""
    process = spec.get("process") or {}
    user = process.get("user") or {}
    linux = spec.get("linux") or {}
    resources = linux.get("resources") or {}
    cpu = resources.get("cpu") or {}
    return Template(
        args=tuple(process.get("args") or ()),
        env=tuple(process.get("env") or ()),
        cwd=process.get("cwd") or "/",
        terminal=bool(process.get("terminal")),
        uid=user.get("uid") or 0,
        gid=user.get("gid") or 0,
        additional_gids=tuple(sorted(user.get("additionalGids") or ())),
        capabilities=_capabilities(process),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        seccomp=bool(linux.get("seccomp")),
        apparmor_profile=process.get("apparmorProfile") or "",
        selinux_label=process.get("selinuxLabel") or "",
        root_read_only=bool((spec.get("root") or {}).get("readonly")),
        masked_paths=tuple(sorted(linux.get("maskedPaths") or ())),
        readonly_paths=tuple(sorted(linux.get("readonlyPaths") or ())),
        namespaces={
            n["type"]: "joined" if n.get("path") else "own" for n in linux.get("namespaces") or ()
        },
        mounts=tuple(_mount(mount) for mount in spec.get("mounts") or ()),
        memory_limit_bytes=max((resources.get("memory") or {}).get("limit") or 0, 0),
        cpu_quota=max(cpu.get("quota") or 0, 0),
        cpu_period=cpu.get("period") or 0,
    )


def without_secrets(template: Template) -> Template:
    """What may be told to others: variables by name only, and no command line, for both can hold secrets."""
    names = tuple(sorted(line.partition("=")[0] for line in template.env))
    return msgspec.structs.replace(template, env=names, args=())


def _capabilities(process: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    sets = process.get("capabilities") or {}
    return {name: tuple(sorted(names)) for name, names in sorted(sets.items()) if names}


def _mount(mount: Mapping[str, Any]) -> MountFact:
    source = mount.get("source") or ""
    options = mount.get("options") or ()
    kind, name = mount.get("type") or "", ""
    if kind in ("", "bind", "none") or "bind" in options or "rbind" in options:
        kind, name = _bind(source)
    return MountFact(
        destination=mount["destination"],
        kind=kind,
        read_only="ro" in options,
        name=name,
        source=source,
        sub_path="/volume-subpaths/" in source,
    )


def _bind(source: str) -> tuple[str, str]:
    """Kind and volume name of a bind from ``source``.

    Source: kubelet's directory layout (pods/<uid>/volumes/<plugin>/<volume>, etc-hosts,
    containers/…); containerd's and CRI-O's sandbox folders.
    """
    if _VOLUMES in source:
        plugin, _, rest = source.partition(_VOLUMES)[2].partition("/")
        return plugin.replace("empty-dir", "emptydir"), rest.split("/")[0]
    if "/volume-subpaths/" in source:
        return "subpath", source.partition("/volume-subpaths/")[2].split("/")[0]
    runtimes = (
        "/run/containerd/",
        "/var/lib/containerd/",
        "/run/containers/",
        "/var/lib/containers/",
    )
    if source.startswith(runtimes) or source.endswith("/etc-hosts") or "/pods/" in source:
        return "runtime", ""
    return "host", ""


def read(parts: Path) -> Template:
    """The template of the checkpoint in ``parts``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it can't be read.
    """
    try:
        return msgspec.json.decode((parts / layout.TEMPLATE).read_bytes(), type=Template)
    except msgspec.MsgspecError as cause:
        raise ValueError(f"{layout.TEMPLATE} is damaged: {cause}") from cause


def encode(template: Template) -> bytes:
    """Its JSON, the same bytes for the same template."""
    return msgspec.json.encode(template, order="deterministic")
