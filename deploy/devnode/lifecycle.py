"""Starting and removing a whole instance."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from deploy.devnode import cgroups, network, node, processes, publishing, registries, rootfs, tls
from deploy.devnode.instance import NODE_NUMBERS, STATE_ROOT, Instance, cache_root
from deploy.devnode.node import Fittings, Node
from deploy.devnode.registries import Registry
from deploy.devnode.rootfs import NodeParts, Say
from deploy.devnode.tls import Certificates

NEEDED_BYTES = 4 << 30


class Unsuitable(RuntimeError):
    """This machine or user can't run nodes; the message says why in one sentence."""


PROBLEMS = (
    Unsuitable,
    rootfs.BuildFailed,
    network.NetworkTaken,
    processes.NotReady,
    TimeoutError,
    ValueError,
)  # what a person can put right; the message is a sentence


@dataclass(frozen=True, slots=True)
class Running:
    """What of an instance is there."""

    instance: Instance
    parts: NodeParts
    base: Registry
    checkpoints: Registry
    nodes: tuple[Node, ...]


def check_machine() -> None:
    """Find out whether nodes can run here.

    Raises:
        Unsuitable: they can't.
    """
    if os.geteuid() != 0:
        raise Unsuitable("the nodes need root: run this as root")
    for tool in ("debootstrap", "ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            raise Unsuitable(f"{tool} is not installed: run ./dev, which installs what is missing")
    if not cgroups.hierarchies():
        raise Unsuitable("no cgroup hierarchy is mounted on this machine")
    free = cgroups.free_space_bytes(STATE_ROOT)
    if free < NEEDED_BYTES:
        raise Unsuitable(f"{STATE_ROOT} has {free >> 20} MiB of room, the nodes need 4 GiB")


@contextlib.contextmanager
def claimed(instance: Instance) -> Iterator[None]:
    """Be the only one who starts, uses or stops ``instance`` for the block.

    Raises:
        Unsuitable: somebody else is.
    """
    STATE_ROOT.mkdir(parents=True, exist_ok=True)
    with instance.lock_file.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unsuitable(f"instance {instance.name} is in use by another run") from None
        yield


@dataclass(frozen=True, slots=True)
class Ground:
    """What nodes stand on: the bridge, the authority that they trust and two running registries.

    ``filled`` tells whether the base images are there already.
    """

    instance: Instance
    parts: NodeParts
    certificates: Certificates
    base: Registry
    checkpoints: Registry
    filled: bool


def up(instance: Instance, say: Say, *, nodes: tuple[int, ...] = NODE_NUMBERS) -> Running:
    """Start everything from nothing; what was left of an earlier run is removed first.

    An error, a Ctrl-C included, removes what had been started.

    Raises:
        Unsuitable, rootfs.BuildFailed, network.NetworkTaken, processes.NotReady: it could not be.
    """
    check_machine()
    parts = rootfs.ready_parts(say)
    with removed_on_failure(instance):
        ground = lay_ground(instance, parts, say)
        ca = ground.certificates.ca
        return start_nodes(ground, {n: node.fittings(instance, n, ca) for n in nodes}, say)


@contextlib.contextmanager
def removed_on_failure(instance: Instance) -> Iterator[None]:
    """Begin the block without a trace of ``instance``, and leave none if it fails, by Ctrl-C too."""
    down(instance)
    try:
        yield
    except BaseException:
        down(instance)
        raise


def lay_ground(instance: Instance, parts: NodeParts, say: Say) -> Ground:
    """Make the state folder and the bridge, and start the registries.

    Raises:
        network.NetworkTaken, processes.NotReady: it could not be.
    """
    instance.state.mkdir(parents=True)
    _put_on_a_plain_file_system(instance)
    instance.state.chmod(0o700)
    network.make_bridge(instance)
    certificates = tls.make(instance.state / "tls", instance.gateway)
    base, checkpoints = _registries(instance, parts, certificates)
    say(f"starting registries and nodes of instance {instance.name}")
    filled = publishing.restore_storage(base, parts)
    base.start()
    checkpoints.start()
    return Ground(instance, parts, certificates, base, checkpoints, filled)


def start_nodes(ground: Ground, fittings: Mapping[int, Fittings], say: Say) -> Running:
    """Start the nodes of these numbers and wait until their runtimes answer.

    Raises:
        processes.NotReady: one did not come up.
    """
    instance, parts = ground.instance, ground.parts
    started = tuple(node.start(instance, n, parts, fitted) for n, fitted in fittings.items())
    if not ground.filled:
        publishing.publish(ground.base, parts, say)
    for one in started:
        node.wait_ready(one)
    return Running(instance, parts, ground.base, ground.checkpoints, started)


def _put_on_a_plain_file_system(instance: Instance) -> None:
    """In a container our own / may be an overlay, which can't hold the upper side of another: use memory."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(instance.state)],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    if kind.stdout.strip() == "overlayfs":
        argv = ["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(instance.state)]
        subprocess.run(argv, check=True, capture_output=True, timeout=20)


def _registries(
    instance: Instance, parts: NodeParts, certificates: Certificates
) -> tuple[Registry, Registry]:
    return (
        registries.base(instance, parts, certificates),
        registries.checkpoints(instance, parts, certificates),
    )


def find(instance: Instance) -> Running | None:
    """What is running of ``instance``, None if it was never started or is down."""
    folder = instance.state / "tls"
    if not folder.is_dir():
        return None
    parts = rootfs.ready_parts(lambda _: None)
    certificates = Certificates(folder / "ca.crt", folder / "registry.crt", folder / "registry.key")
    base, checkpoints = _registries(instance, parts, certificates)
    found = [node.find(instance, number) for number in NODE_NUMBERS]
    return Running(instance, parts, base, checkpoints, tuple(n for n in found if n))


def keep_logs(instance: Instance) -> Path:
    """Copy every log of ``instance`` to the cache, so that they outlive it; the folder."""
    folder = cache_root() / f"logs-{instance.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = [*instance.state.glob("*.log"), *instance.state.glob("node*/init.log")]
    found += instance.state.glob("node*/upper/var/log/*.log")
    for log in found:
        name = "-".join(log.relative_to(instance.state).parts)
        shutil.copyfile(log, folder / name.replace("-upper-var-log", ""))
    return folder


def down(instance: Instance) -> None:
    """Remove every process, mount, namespace, interface, cgroup and file of ``instance``; safe to repeat.

    Raises:
        TimeoutError: a process or cgroup would not go.
    """
    with _undisturbed():
        cgroups.kill(instance.cgroup)
        processes.reap()
        network.remove(instance)
        _unmount_below(instance)
        cgroups.remove(instance.cgroup)
        if instance.state.is_dir():
            shutil.rmtree(instance.state)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no Ctrl-C or polite kill reach the block or the tools it runs: half a clean-up is none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt_on_signals() -> None:
    """Make a polite kill and a closed terminal what Ctrl-C is: KeyboardInterrupt, so that all is cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _unmount_below(instance: Instance) -> None:
    """Unmount what is there: nothing where our / is no overlay, nodes mount in namespaces of their own."""
    with open("/proc/self/mounts") as mounts:  # noqa: PTH123
        points = [line.split()[1] for line in mounts]
    for point in sorted(points, reverse=True):
        if Path(point).is_relative_to(instance.state):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True, timeout=20)
