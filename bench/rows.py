"""All rows, in the table's order."""

from __future__ import annotations

from typing import Final

from bench import checkpoint_rows, footprint_rows, image_rows, restore_rows

ROWS: Final = (
    checkpoint_rows.PAUSE,
    checkpoint_rows.CHECKPOINT,
    image_rows.PUSH,
    image_rows.CHECKPOINT_AND_PUSH,
    restore_rows.COLD,
    restore_rows.WARM,
    restore_rows.LAZY,
    footprint_rows.DELTA,
    footprint_rows.AGENT_MEMORY,
    image_rows.BYTES_WRITTEN,
    footprint_rows.AT_REST,
)
BY_NAME: Final = {row.name: row for row in ROWS}
