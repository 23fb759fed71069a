"""Whether the new container asks for what the checkpointed one was: CRIU brings the old command, environment,
mounts and limits back, silently, or fails on them late.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agent.formats.template import MountFact, Template

# Differ between pods of one template: names and addresses of the pod, service variables, tokens.
IGNORED_ENV: Final = (
    "HOSTNAME",
    "KUBERNETES_*",
    "*_SERVICE_HOST",
    "*_SERVICE_PORT",
    "*_SERVICE_PORT_*",
    "*_PORT",
    "*_PORT_[0-9]*_TCP*",
    "*_PORT_[0-9]*_UDP*",
    "POD_*",
    "NODE_NAME",
    "NODE_IP",
    "HOST_IP",
    "*_TOKEN",
    "*_TOKEN_FILE",
    "TERM",  # CRI-O gives it to every container, containerd to those with a terminal
)
HARMLESS_MOUNTS: Final = frozenset({"/run/.containerenv"})  # CRI-O's own, empty
_SLOW_CPUS: Final = 0.5  # below that a restore was seen to take several times as long
_MEMORY_MARGIN: Final = 0.98  # page tables and the kernel's own share come on top of the pages


def difference(
    old: Template,
    new: Template,
    *,
    memory_bytes: int,
    ignored_env: tuple[str, ...] = IGNORED_ENV,
    is_there: Callable[[str], bool] = lambda _: True,
) -> str:
    """The first thing that makes a restore wrong, as one sentence; "" when there is none.

    Args:
        old: what the checkpointed container asked for.
        new: what the one to be restored asks for.
        memory_bytes: of the checkpoint's pages.
        ignored_env: patterns of names whose values may differ.
        is_there: whether the new node's kernel has a path below /proc or /sys; one that it has not needs no mask.
    """
    for reason in _differences(old, new, memory_bytes, ignored_env):
        return reason
    return _uncovered(old, new, is_there)


def slowness(new: Template) -> str:
    """What makes the restore slow though not wrong, as a clause; "" when nothing does."""
    if not new.cpu_quota or not new.cpu_period or new.cpu_quota >= _SLOW_CPUS * new.cpu_period:
        return ""
    milli = round(1000 * new.cpu_quota / new.cpu_period)
    return f"its CPU limit of {milli}m makes the restore and what follows slower"


def _differences(
    old: Template, new: Template, memory_bytes: int, ignored_env: tuple[str, ...]
) -> Iterator[str]:
    if old.args != new.args:
        yield f"the command differs: {_command(old)} was checkpointed, the pod asks for {_command(new)}"
    if old.cwd != new.cwd:
        yield f"the working directory differs: {old.cwd} was checkpointed, the pod asks for {new.cwd}"
    if changed := sorted(_changed_env(old.env, new.env, ignored_env)):
        yield f"the environment differs in {', '.join(changed[:5])}"  # names only: values may be secrets
    if old.terminal != new.terminal:
        yield (
            "a terminal is asked for"
            if new.terminal
            else "the checkpoint has a terminal, the pod has not"
        )
    if reason := _namespaces(old, new):
        yield reason
    if new.root_read_only and not old.root_read_only:
        yield "the pod's root is read-only, the checkpoint's is not"
    yield from _mounts(old.mounts, new.mounts)
    limit = new.memory_limit_bytes
    if limit and memory_bytes > limit * _MEMORY_MARGIN:
        yield f"the checkpoint's memory ({memory_bytes} bytes) is above the pod's limit ({limit} bytes)"


def _command(template: Template) -> str:
    text = " ".join(template.args)
    return repr(text if len(text) <= 80 else text[:77] + "…")


def _changed_env(old: Iterable[str], new: Iterable[str], ignored: tuple[str, ...]) -> set[str]:
    """Names that only one has, or whose values differ."""
    before, after = _variables(old), _variables(new)
    return {
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)
    }


def _variables(lines: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _namespaces(old: Template, new: Template) -> str:
    """Own, joined or the node's must be as it was for each kind; the node's processes can't be joined at all."""
    if "user" in old.namespaces or "user" in new.namespaces:
        return "user namespaces (hostUsers: false) can't be restored"
    if "pid" not in new.namespaces:
        return "hostPID can't be restored: the old process ids may be taken"
    for kind in sorted(old.namespaces.keys() | new.namespaces.keys()):
        had, asked = old.namespaces.get(kind, "the node's"), new.namespaces.get(kind, "the node's")
        if had != asked:
            return f"the {kind} namespace is {asked} in the pod, {had} in the checkpoint"
    return ""


def _uncovered(old: Template, new: Template, is_there: Callable[[str], bool]) -> str:
    """What the pod would have covered, and the old process sees or changes.

    The lists differ between runtimes (CRI-O masks /sys/fs/selinux, too), and runc passes over what is not there.
    """
    for name, asked, had in (
        ("masked", new.masked_paths, old.masked_paths),
        ("read-only", new.readonly_paths, old.readonly_paths),
    ):
        for path in sorted(set(asked) - set(had)):
            if is_there(path) or not path.startswith(("/proc/", "/sys/")):
                return f"{path} is {name} in the pod, not in the checkpoint"
    return ""


def _mounts(old: Iterable[MountFact], new: Iterable[MountFact]) -> Iterator[str]:
    before = {_destination(mount): mount for mount in old}
    after = {_destination(mount): mount for mount in new}
    for destination in sorted((before.keys() - after.keys()) - HARMLESS_MOUNTS):
        yield f"the checkpoint has a mount at {destination}, the pod has none there"
    for destination in sorted((after.keys() - before.keys()) - HARMLESS_MOUNTS):
        yield f"the pod has a mount at {destination}, the checkpoint has none: it would not be there"
    for destination in sorted(before.keys() & after.keys()):
        if after[destination].read_only and not before[destination].read_only:
            yield f"{destination} is read-only in the pod, not in the checkpoint: it would stay writable"


def _destination(mount: MountFact) -> str:
    return mount.destination.rstrip("/") or "/"
