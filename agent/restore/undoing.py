"""The list by which the wrapper takes back what was prepared, written line by line before each change.

Format (``/run/snap/state/<id>.undo``, read by ``snap-runc.sh``, paths of the node): ``remove=P``; ``from=P`` then
``to=Q`` = put P in Q's place if P is there; ``mode=0755`` then ``on=P``; ``refresh=P`` = forget what the overlay
mounted at P remembers of its names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class UndoList:
    """The list in ``file``. With the agent or the wrapper killed at any point it says what is left to do."""

    file: Path

    def begin(self) -> None:
        """Start an empty list."""
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.file.write_bytes(b"")

    def remove(self, path: str) -> None:
        """``path`` is about to be made."""
        self._add(f"remove={path}")

    def put_back(self, kept: str, place: str) -> None:
        """What is at ``place`` is about to be moved or copied to ``kept``."""
        self._add(f"from={kept}", f"to={place}")

    def mode(self, path: str, mode: int) -> None:
        """The mode of ``path``, now ``mode``, is about to be changed."""
        self._add(f"mode={mode:04o}", f"on={path}")

    def refresh(self, mount: str) -> None:
        """After what was said before, the overlay at ``mount`` must be read anew."""
        self._add(f"refresh={mount}")

    def _add(self, *lines: str) -> None:
        if any("\n" in line for line in lines):
            raise ValueError("a path with a newline can't be undone")
        with self.file.open("ab") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
