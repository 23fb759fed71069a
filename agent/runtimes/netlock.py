"""The lock that CRIU puts on a network namespace while it dumps, for when CRIU died and left it there.

Source: CRIU, criu/netfilter.c and criu/net.c: iptables chain ``CRIU`` hooked into INPUT and OUTPUT;
nftables table ``inet CRIU-<pid>``.
"""

from __future__ import annotations

from typing import Final

from agent.runtimes import commands, processes
from agent.runtimes.commands import Host

_CALL_S: Final = 15.0
_REMOVE: Final = r"""
for tool in iptables ip6tables; do
  command -v "$tool" >/dev/null || continue
  "$tool" -w -n -L CRIU >/dev/null 2>&1 || continue
  for hook in INPUT OUTPUT; do
    while "$tool" -w -D "$hook" -j CRIU 2>/dev/null; do :; done
  done
  "$tool" -w -F CRIU && "$tool" -w -X CRIU && echo removed
done
command -v nft >/dev/null || exit 0
nft list tables 2>/dev/null | while read -r word family name; do
  case $name in CRIU-*) nft delete table "$family" "$name" && echo removed ;; esac
done
exit 0
"""


async def remove(host: Host, pid: int) -> bool:
    """Take away a lock that CRIU left in the network namespace of process ``pid``.

    The node's own namespace is left alone: a rule there is not for us to touch.

    Returns:
        Whether there was one.
    """
    namespace = processes.namespace(host, pid, "net")
    if not namespace or namespace == processes.namespace(host, 1, "net"):
        return False
    argv = ["nsenter", "-t", str(pid), "-n", "--", "sh", "-c", _REMOVE]
    done = await commands.run(host, argv, timeout_s=_CALL_S)
    return "removed" in done.text
