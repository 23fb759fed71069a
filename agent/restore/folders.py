"""Where restores keep what they need on the node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are on the node.

    Attributes:
        state: the wrapper's state and undo lists (``/run/snap/state``).
        work: CRIU's logs of restores, one folder for each container (``/var/lib/snap/restores``).
    """

    state: str = "/run/snap/state"
    work: str = "/var/lib/snap/restores"
