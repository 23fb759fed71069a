"""Who acts: the three roles, and the user (or part of SNAP) on whose behalf something is done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a user may do; each role may do all that the ones below it may."""

    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    VIEWER = "viewer"


_RANK: Final = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMINISTRATOR: 2}


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who asks for something.

    Attributes:
        namespaces: an operator acts only there; empty means everywhere.
        initiator: which part of SNAP speaks for the user, as progress messages name it
            ("SnapApi", "SnapWatcher", "SnapHook").
        broadcast: whether everybody may see the jobs' progress (watchers and hooks).
        address: from where it is asked, for the audit log; empty for what SNAP does by itself.
    """

    username: str
    role: Role = Role.VIEWER
    namespaces: tuple[str, ...] = ()
    initiator: str = "SnapApi"
    broadcast: bool = False
    address: str = ""

    @property
    def is_administrator(self) -> bool:
        """Whether nothing is kept from this actor."""
        return self.role is Role.ADMINISTRATOR

    def has(self, role: Role) -> bool:
        """Whether the actor's role reaches ``role``."""
        return _RANK[self.role] >= _RANK[role]

    def may_act_in(self, namespace: str) -> bool:
        """Whether the actor's namespaces allow ``namespace``."""
        return self.is_administrator or not self.namespaces or namespace in self.namespaces
