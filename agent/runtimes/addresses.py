"""The addresses of a network namespace, read from the kernel's own files.

Source: proc(5); /proc/net/fib_trie lists the local addresses as leaves with "/32 host LOCAL",
/proc/net/if_inet6 those of IPv6 in its first column.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agent.runtimes import commands
from agent.runtimes.commands import Host

_LEAF: Final = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
_CALL_S: Final = 5.0


async def of_namespace(host: Host, path: str) -> frozenset[str]:
    """The addresses in the network namespace at ``path`` on the node; "": the node's own.

    Raises:
        CommandFailed, Retryable: they can't be read.
    """
    # through self: the files of whoever is in the namespace
    read = ["cat", "/proc/self/net/fib_trie", "/proc/self/net/if_inet6"]
    enter = ["nsenter", f"--net={path}", "--"] if path else []
    done = await commands.run(host, [*enter, *read], timeout_s=_CALL_S)
    if not path or done.stdout:  # a kernel without IPv6 has no second file
        return parse(done.text)
    done.check("The addresses of the pod can't be read.")
    return frozenset()


def parse(text: str) -> frozenset[str]:
    """The addresses in the two files, one after the other."""
    found = set(_LEAF.findall(text))
    for line in text.splitlines():
        first = line.split(" ")[0]
        if re.fullmatch(r"[0-9a-f]{32}", first):
            found.add(str(ipaddress.IPv6Address(bytes.fromhex(first))))
    return frozenset(found)
