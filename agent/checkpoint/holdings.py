"""What processes hold that CRIU can't dump, or would hang on, each with its remedy.

Source: CRIU 4.2.1, files-ext.c, sk-inet.c, sockets.c, namespaces.c, seize.c. Each was seen to fail, but for
KVM, AF_ALG, SCTP, SMC, TIPC and AF_XDP, of which only the source says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent import errors
from agent.runtimes import processes
from agent.runtimes.commands import Host

_PROFILE: Final = "or use the seccomp profile RuntimeDefault"
# the beginning of a link in /proc/<pid>/fd: what that is, and what to do
_FILES: Final = {
    "anon_inode:[io_uring]": (
        "an io_uring ring open",
        f"turn io_uring off in the application {_PROFILE}",
    ),
    "anon_inode:[userfaultfd]": ("a userfaultfd open", f"turn that off in it {_PROFILE}"),
    "anon_inode:bpf-": ("a BPF program or map open", "end what uses BPF before the checkpoint"),
    "anon_inode:[perf_event]": ("a perf event open", "end the profiling before the checkpoint"),
    "anon_inode:[fanotify]": ("a fanotify watch", "have it use inotify"),
    "anon_inode:kvm-": ("a virtual machine", "stop it before the checkpoint"),
    "/secretmem": ("secret memory (memfd_secret)", "have it use ordinary memory"),
    "/dev/fuse": ("/dev/fuse open", "unmount what it serves before the checkpoint"),
    "/dev/kvm": ("/dev/kvm open", "stop the virtual machine before the checkpoint"),
}
_CLOSED: Final = "have it closed before the checkpoint"
# the beginning of a socket's protocol, as the kernel calls it
_SOCKETS: Final = {
    "MPTCP": (
        "a Multipath TCP socket open",
        "have it use TCP (Go programs: the environment GODEBUG=multipathtcp=0)",
    ),
    "AF_VSOCK": ("a vsock socket open", _CLOSED),
    "ALG": ("a socket of the kernel's cryptography (AF_ALG) open", _CLOSED),
    "SCTP": ("an SCTP socket open", _CLOSED),
    "SMC": ("an SMC socket open", _CLOSED),
    "TIPC": ("a TIPC socket open", _CLOSED),
    "XDP": ("an AF_XDP socket open", _CLOSED),
}
_SANDBOX: Final = "start that program without its sandbox (unshare, bubblewrap, Chromium's)"


def refuse(host: Host, name: str, first: int, pids: tuple[int, ...]) -> None:
    """Refuse what can't be dumped. Blocks.

    Args:
        host: the node.
        name: of the container.
        first: its first process.
        pids: all of them.

    Raises:
        Refused: the message says what a process holds, and the remedy.
    """
    for pid in pids:
        for what, remedy in _found(host, first, pid):
            raise errors.Refused(
                f"Process {processes.name(host, pid)} of container {name} {what}, which CRIU can't dump; "
                f"{remedy}."
            )


def _found(host: Host, first: int, pid: int) -> Iterator[tuple[str, str]]:
    # CRIU would wait for it for ever, with everything else frozen
    if processes.is_stopped(host, pid):
        yield "is stopped (SIGSTOP)", "have it go on (kill -CONT), or end it"
    if processes.is_traced(host, pid):
        yield "is traced by another one (strace, a debugger)", "end that before the checkpoint"
    for kind, called in (("user", "user"), ("pid", "PID")):
        own = processes.namespace(host, pid, kind)
        if own and own != processes.namespace(host, first, kind):
            yield f"has a {called} namespace of its own", _SANDBOX
    queues = processes.message_queues(host, pid)
    for place, target in processes.descriptors(host, pid):
        if target.startswith("socket:"):
            protocol = processes.protocol(place)
            found = [said for start, said in _SOCKETS.items() if protocol.startswith(start)]
        else:
            found = [said for start, said in _FILES.items() if _is(target, start)]
        for what, remedy in found:
            yield f"has {what}", remedy
        if queues and processes.is_on(place, target, queues):
            yield "has a POSIX message queue open", _CLOSED


def _is(target: str, start: str) -> bool:
    """Whether a link names that: all of it, but for kinds with a name behind, and "(deleted)"."""
    whole = target.removesuffix(" (deleted)")
    return whole == start or (start.endswith("-") and whole.startswith(start))
