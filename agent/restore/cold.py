"""The other answer: a container is not restored, it starts cold, and why."""

from __future__ import annotations

from typing import Self

from agent import errors


class StartCold(Exception):
    """This container is to start cold. ``code`` is short, ``reason`` one sentence, ``details`` a tool's words."""

    def __init__(self, code: str, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.details = details

    @classmethod
    def unfit(cls, cause: errors.SnapError) -> Self:
        """The pod, or the node under it, is not made for this checkpoint."""
        return cls("unfit", f"Not restored: {cause.message}", cause.details)
