"""The threads of a dump: whatever ``core-*.img`` says of who they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.formats import criu_images, criu_wire
from agent.formats.criu_wire import Core


def threads(images: Path) -> Iterator[tuple[str, Core]]:
    """Name and content of every ``core-*.img`` in ``images``, one for each thread, sorted by name.

    Raises:
        ValueError: one can't be read, or there is none: then nothing is known of the dump's privileges.
    """
    files = sorted(images.glob("core-*.img"))
    if not files:
        raise ValueError("the checkpoint has no core images")
    for file in files:
        try:
            yield file.name, criu_wire.core_of(criu_images.first(file.read_bytes()))
        except ValueError as cause:
            raise ValueError(f"{file.name}: {cause}") from cause


@dataclass(frozen=True, slots=True)
class Memory:
    """What a restore brings in: all pages, those that may come later (private and anonymous), and into how many
    address spaces."""

    pages_bytes: int
    lazy_bytes: int
    address_spaces: int


def memory(images: Path) -> Memory:
    """The pages of ``images`` (flat, no ``parent``).

    Raises:
        ValueError: a pagemap is damaged, or its pages file is shorter than it says. CRIU (4.2.1) does not fail on
            such a file: it reads its end for ever.
    """
    total = lazy = 0
    for file in sorted(images.glob("pagemap-*.img")):
        try:
            head, *runs = criu_images.entries(file.read_bytes())
            wanted = later = 0
            for run in map(criu_wire.page_run_of, runs):
                if run.flags & criu_wire.PRESENT:
                    size = run.pages * criu_images.PAGE_SIZE
                    wanted += size
                    later += size if run.flags & criu_wire.LAZY else 0
            pages = images / f"pages-{criu_wire.pages_id_of(head)}.img"
            present = pages.stat().st_size if pages.exists() else 0
        except ValueError as cause:
            raise ValueError(f"{file.name}: {cause}") from cause
        if present < wanted:
            raise ValueError(f"{pages.name} has {present} bytes, {file.name} needs {wanted}")
        total, lazy = total + wanted, lazy + later
    return Memory(total, lazy, sum(1 for _ in images.glob("mm-*.img")))


def pages_bytes(images: Path) -> int:
    """Size of all pages; raises as ``memory``."""
    return memory(images).pages_bytes
