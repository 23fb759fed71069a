"""The threads of a dump: whatever ``core-*.img`` says of who they are."""

from __future__ import annotations

from collections.abc import Iterator
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


def pages_bytes(images: Path) -> int:
    """Size of all pages that a restore from ``images`` (flat, no ``parent``) brings in.

    Raises:
        ValueError: a pagemap is damaged, or its pages file is shorter than it says. CRIU (4.2.1) does not fail on
            such a file: it reads its end for ever.
    """
    total = 0
    for file in sorted(images.glob("pagemap-*.img")):
        try:
            head, *runs = criu_images.entries(file.read_bytes())
            wanted = sum(
                run.pages * criu_images.PAGE_SIZE
                for run in map(criu_wire.page_run_of, runs)
                if run.flags & criu_wire.PRESENT
            )
            pages = images / f"pages-{criu_wire.pages_id_of(head)}.img"
            present = pages.stat().st_size if pages.exists() else 0
        except ValueError as cause:
            raise ValueError(f"{file.name}: {cause}") from cause
        if present < wanted:
            raise ValueError(f"{pages.name} has {present} bytes, {file.name} needs {wanted}")
        total += wanted
    return total
