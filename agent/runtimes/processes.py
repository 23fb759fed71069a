"""What processes of the node hold, read from /proc: memory, mappings, open files.

Source: proc(5).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator

from agent.runtimes.commands import Host

_MEMORY = ("RssAnon:", "RssShmem:", "VmSwap:")  # what a dump writes; file-backed pages come again


def dumped_bytes(host: Host, pids: Iterable[int]) -> int:
    """How much memory of ``pids`` a dump writes, at most: shared pages count several times."""
    total = 0
    for pid in pids:
        for line in _lines(host, pid, "status"):
            if line.startswith(_MEMORY):
                total += int(line.split()[1]) << 10
    return total


def has_sysv_memory(host: Host, pids: Iterable[int]) -> bool:
    """Whether one of ``pids`` has a System V shared memory segment attached."""
    return any("/SYSV" in line for pid in pids for line in _lines(host, pid, "maps"))


def used_paths(host: Host, pids: Iterable[int]) -> frozenset[str]:
    """The files that ``pids`` have open or mapped, and their working folders, by their own names."""
    found = set()
    for pid in pids:
        found.update(_open_files(host, pid))
        for line in _lines(host, pid, "maps"):
            found.update(line.split(maxsplit=5)[5:])
        with contextlib.suppress(OSError):
            found.add(str(host.path(f"/proc/{pid}/cwd").readlink()))
    return frozenset(path for path in found if path.startswith("/"))


def bound_addresses(host: Host, pids: Iterable[int]) -> frozenset[str]:
    """The addresses, other than loopback and "any", at which ``pids`` listen or take datagrams.

    Source: proc(5), /proc/<pid>/net/tcp and udp: hexadecimal words in the machine's order; state 0A listens.
    """
    pids = tuple(pids)
    sockets = {
        file for pid in pids for file in _open_files(host, pid) if file.startswith("socket:[")
    }
    found = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in _lines(host, pids[0], f"net/{kind}")[1:] if pids else ():
            fields = line.split()
            listens = kind.startswith("udp") or fields[3] == "0A"
            if listens and f"socket:[{fields[9]}]" in sockets:
                found.add(_address(fields[1].partition(":")[0]))
    return frozenset(
        str(one) for one in found if not (one.is_loopback or one.is_unspecified or one.is_multicast)
    )


def _address(words: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ordered = [bytes.fromhex(words[at : at + 8]) for at in range(0, len(words), 8)]
    if sys.byteorder == "little":
        ordered = [word[::-1] for word in ordered]
    address = ipaddress.ip_address(b"".join(ordered))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def namespace(host: Host, pid: int | str, kind: str) -> str:
    """The identity of a process's namespace (``net:[4026531840]``); empty when it is gone."""
    try:
        return str(host.path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def _lines(host: Host, pid: int, file: str) -> list[str]:
    try:
        return host.path(f"/proc/{pid}/{file}").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return []


def name(host: Host, pid: int) -> str:
    """What a process is called (``sleep``); its number when it is gone."""
    return (_lines(host, pid, "comm") or [str(pid)])[0]


def is_stopped(host: Host, pid: int) -> bool:
    """Whether a signal stopped it (SIGSTOP, Ctrl-Z)."""
    return _status(host, pid, "State").startswith("T")


def is_traced(host: Host, pid: int) -> bool:
    """Whether another process traces it."""
    return _status(host, pid, "TracerPid") not in ("", "0")


def _status(host: Host, pid: int, key: str) -> str:
    start = f"{key}:"
    found = (line for line in _lines(host, pid, "status") if line.startswith(start))
    return next(found, start).removeprefix(start).strip()


def protocol(descriptor: str) -> str:
    """The kernel's name of a socket's protocol (``TCP``, ``MPTCPv6``, ``UNIX-STREAM``); empty when it is gone.

    Source: Linux, net/socket.c, sockfs_xattr_get: the attribute that lsof reads too.
    """
    try:
        return os.getxattr(descriptor, "system.sockprotoname").rstrip(b"\0").decode()
    except OSError:
        return ""


def message_queues(host: Host, pid: int) -> int:
    """The device number of the POSIX message queues that a process sees; 0 when it sees none."""
    try:
        return host.path(f"/proc/{pid}/root/dev/mqueue/.").stat().st_dev
    except OSError:
        return 0


def is_on(descriptor: str, target: str, device: int) -> bool:
    """Whether an open file without a folder in its name, as message queues are, is on ``device``."""
    try:
        return target.rfind("/") == 0 and os.stat(descriptor).st_dev == device  # noqa: PTH116 - thousands of them
    except OSError:
        return False


def descriptors(host: Host, pid: int) -> Iterator[tuple[str, str]]:
    """The open files of a process: where they are found, and what they are."""
    try:
        with os.scandir(host.path(f"/proc/{pid}/fd")) as entries:
            for entry in entries:
                try:
                    yield entry.path, os.readlink(entry.path)  # noqa: PTH115 - thousands of them
                except OSError:
                    continue
    except (FileNotFoundError, ProcessLookupError):
        return


def _open_files(host: Host, pid: int) -> list[str]:
    return [target for _, target in descriptors(host, pid)]
