"""A node's readiness as a table for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.node.facts import NodeFacts, Readiness

_ROWS: Final[tuple[tuple[str, Callable[[NodeFacts], str]], ...]] = (
    ("Operating system", lambda facts: facts.os),
    ("Kernel", lambda facts: f"{facts.kernel} {facts.architecture}".strip()),
    ("Container runtime", lambda facts: f"{facts.runtime} {facts.runtime_version}".strip()),
    ("OCI runtime", lambda facts: f"{facts.oci_runtime} {facts.oci_runtime_version}".strip()),
    ("CRIU", lambda facts: facts.criu_version),
    ("CRIU features", lambda facts: ", ".join(facts.criu_features)),
    ("Kubelet", lambda facts: facts.kubelet_version),
    ("Cgroups", lambda facts: facts.cgroup_version),
    ("Checkpoint engines", lambda facts: ", ".join(facts.engines)),
    ("Restore drivers", lambda facts: ", ".join(facts.restore_drivers)),
)


def render(node: str, found: Readiness) -> str:
    """The table, with what is missing and what to do below it."""
    lines = [f"Node {node}: {'ready' if found.ready else 'not ready'}", ""]
    lines += [f"  {name:<20}{read(found.facts) or '-'}" for name, read in _ROWS]
    for reason in found.reasons:
        sign = "✗" if reason.blocking else "!"
        lines += ["", f"  {sign} {reason.message} ({reason.code})", f"    {reason.remedy}"]
    return "\n".join(lines) + "\n"
