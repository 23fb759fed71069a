"""All rows, in the table's order."""

from __future__ import annotations

from typing import Final

from bench import checkpoint_rows, delta_rows, footprint_rows, image_rows, restore_rows

ROWS: Final = (
    checkpoint_rows.PAUSE,
    checkpoint_rows.CHECKPOINT,
    image_rows.PUSH,
    image_rows.CHECKPOINT_AND_PUSH,
    image_rows.BYTES_WRITTEN,
    restore_rows.COLD,
    restore_rows.WARM,
    restore_rows.LAZY,
    delta_rows.DELTA,
    delta_rows.DELTA_TIME,
    footprint_rows.AGENT_MEMORY,
    footprint_rows.AT_REST,
)
BY_NAME: Final = {row.name: row for row in ROWS}
