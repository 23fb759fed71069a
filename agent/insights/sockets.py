"""Sockets: internet, unix, netlink and packet, with addresses, ports and states."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agent.formats.criu_entries import Socket
from agent.insights.bounds import Bounds, Row, clipped
from agent.insights.dump import Dump, Task

# Source: linux/socket.h, linux/net.h, linux/in.h, linux/netlink.h, net/tcp_states.h
FAMILIES: Final = {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}
TYPES: Final = {
    1: "STREAM",
    2: "DGRAM",
    3: "RAW",
    4: "RDM",
    5: "SEQPACKET",
    6: "DCCP",
    10: "PACKET",
}
PROTOCOLS: Final = {
    0: "IP",
    1: "ICMP",
    2: "IGMP",
    6: "TCP",
    17: "UDP",
    58: "ICMPV6",
    132: "SCTP",
    136: "UDPLITE",
    255: "RAW",
    262: "MPTCP",
}
NETLINK: Final = {
    0: "NETLINK_ROUTE",
    2: "NETLINK_USERSOCK",
    4: "NETLINK_SOCK_DIAG",
    6: "NETLINK_XFRM",
    7: "NETLINK_SELINUX",
    9: "NETLINK_AUDIT",
    11: "NETLINK_CONNECTOR",
    12: "NETLINK_NETFILTER",
    15: "NETLINK_KOBJECT_UEVENT",
    16: "NETLINK_GENERIC",
    21: "NETLINK_CRYPTO",
}
STATES: Final = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
}
_UNIX, _NETLINK = 1, 16
_INTERNET: Final = frozenset({2, 10})


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A socket's two ends in words; None where it has none."""

    source: str | None
    source_port: int | None
    destination: str | None
    destination_port: int | None


def report(dump: Dump, bounds: Bounds) -> dict[str, Any]:
    """Sockets by process; processes without any are left out."""
    found = []
    for task in dump.tasks():
        kept = bounds.keep(row(fd, socket) for fd, socket in of_task(dump, task))
        if kept:
            found.append({"pid": task.pid, "command": task.core.command, "sockets": kept})
    return {"processes": found}


def of_task(dump: Dump, task: Task) -> Iterator[tuple[int, Socket]]:
    """(descriptor, socket) of a process."""
    for descriptor in dump.descriptors(task):
        file = dump.files.get(descriptor.file_id)
        if file is not None and file.socket is not None:
            yield descriptor.fd, file.socket


def row(fd: int, socket: Socket) -> Row:
    """One socket of a report."""
    ends = endpoints(socket)
    return {
        "fd": fd,
        "family": family(socket),
        "type": TYPES.get(socket.kind, str(socket.kind)),
        "protocol": protocol(socket),
        "state": state(socket),
        "source_address": ends.source,
        "source_port": ends.source_port,
        "destination_address": ends.destination,
        "destination_port": ends.destination_port,
        "inode": socket.inode,
        "peer_inode": socket.peer or None,
        "send_buffer_bytes": socket.send_buffer_bytes,
        "receive_buffer_bytes": socket.receive_buffer_bytes,
    }


def endpoints(socket: Socket) -> Endpoints:
    """Who talks to whom."""
    if socket.family in _INTERNET:
        ends = (address(socket.source), socket.source_port)
        return Endpoints(*ends, address(socket.destination), socket.destination_port)
    if socket.family == _NETLINK:
        return Endpoints(None, socket.source_port, None, socket.destination_port)
    if socket.family == _UNIX:
        other = f"[{socket.peer}]" if socket.peer else None
        return Endpoints(_unix_name(socket.source), None, other, None)
    return Endpoints(None, None, None, None)


def address(raw: bytes) -> str | None:
    """An internet address; None for bytes that are none."""
    if len(raw) not in (4, 16):
        return None
    return str(ipaddress.ip_address(raw))


def family(socket: Socket) -> str:
    """The kernel's name of the address family."""
    return FAMILIES.get(socket.family, f"AF_{socket.family}")


def protocol(socket: Socket) -> str | None:
    """The protocol's name; unix sockets have none."""
    if socket.family == _UNIX:
        return None
    names = NETLINK if socket.family == _NETLINK else PROTOCOLS
    return names.get(socket.protocol, str(socket.protocol))


def state(socket: Socket) -> str | None:
    """The state's name; None where there is none."""
    return STATES.get(socket.state)


def words(socket: Socket) -> str:
    """A socket on one line: ``TCP 0.0.0.0:6379 LISTEN``."""
    ends = endpoints(socket)
    said = [protocol(socket) or family(socket).removeprefix("AF_")]
    if ends.source:
        said.append(_with_port(ends.source, ends.source_port))
    if socket.family in _INTERNET and socket.destination_port:
        said.append("-> " + _with_port(ends.destination or "", ends.destination_port))
    return " ".join([*said, state(socket) or ""]).strip() + f" socket:[{socket.inode}]"


def _with_port(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unix_name(raw: bytes) -> str | None:
    """A path, or an abstract name with @ for its NUL as ``ss`` writes it."""
    if not raw:
        return None
    if raw.startswith(b"\0"):
        return clipped("@" + raw[1:].decode("utf-8", "backslashreplace"))
    return clipped(raw.rstrip(b"\0").decode("utf-8", "backslashreplace"))
