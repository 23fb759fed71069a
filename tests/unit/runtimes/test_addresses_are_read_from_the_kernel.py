"""Which addresses a namespace has, and at which of them a process listens."""

from __future__ import annotations

import os
import socket

from agent.runtimes import addresses, processes
from agent.runtimes.commands import Host

FILES = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.89.4.0/24 2 0 2
        |-- 10.89.4.7
           /32 host LOCAL
        |-- 10.89.4.255
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000a8bb42fffe2e7f10 02 40 20 80     eth0
"""


def test_local_addresses_are_told_from_routes() -> None:
    found = addresses.parse(FILES)
    assert found == {"10.89.4.7", "127.0.0.1", "::1", "fe80::a8bb:42ff:fe2e:7f10"}


async def test_this_machine_has_a_loopback_address() -> None:
    assert "127.0.0.1" in await addresses.of_namespace(Host(), "")


def test_listening_anywhere_or_on_loopback_binds_no_address() -> None:
    with socket.create_server(("127.0.0.1", 0)), socket.create_server(("", 0)):
        assert processes.bound_addresses(Host(), [os.getpid()]) == frozenset()


def test_words_are_in_the_machines_order() -> None:
    assert str(processes._address("0704590A")) == "10.89.4.7"
    assert str(processes._address("0000000000000000FFFF00000704590A")) == "10.89.4.7"
    assert (
        str(processes._address("000080FE00000000FF42BBA8107F2EFE")) == "fe80::a8bb:42ff:fe2e:7f10"
    )
