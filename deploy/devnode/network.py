"""The network of an instance: one bridge on this machine and a cable to each node."""

from __future__ import annotations

import subprocess

from deploy.devnode.instance import NODE_NUMBERS, Instance


class NetworkTaken(RuntimeError):
    """Addresses that the instance needs are already in use on this machine."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


def make_bridge(instance: Instance) -> None:
    """Make the bridge with this machine's address on it.

    Raises:
        NetworkTaken: another interface has that address.
    """
    shown = subprocess.run(
        ["ip", "-o", "-4", "addr", "show", "to", f"{instance.gateway}/24"],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    if shown.stdout.strip():
        taken = shown.stdout.split()[1]
        raise NetworkTaken(
            f"{instance.gateway}/24 is in use by {taken}; choose another instance name"
        )
    _ip("link", "add", instance.bridge, "type", "bridge")
    _ip("addr", "add", f"{instance.gateway}/24", "dev", instance.bridge)
    _ip("link", "set", instance.bridge, "up")


def plug_in(instance: Instance, node: int, init_pid: int) -> None:
    """Lay the cable from the bridge into the network namespace of ``init_pid`` (there it is ``eth0``)."""
    veth = instance.veth(node)
    _ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", str(init_pid))
    _ip("link", "set", veth, "master", instance.bridge, "up")


def route_pods(instance: Instance, node: int) -> None:
    """Let this machine reach the pods of ``node`` at their own addresses."""
    route(instance.pod_range(node), instance.address(node))


def route(addresses: str, via: str) -> None:
    """Let this machine reach ``addresses`` through the node at ``via``; it ends with the bridge."""
    _ip("route", "replace", addresses, "via", via)


def remove(instance: Instance) -> None:
    """Remove cables and bridge, whatever of them is there."""
    for link in (*(instance.veth(node) for node in NODE_NUMBERS), instance.bridge):
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False, timeout=20)
