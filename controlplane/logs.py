"""How the log is written: one line per event, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Final

import msgspec

from controlplane.settings import Settings

_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_LOUD: Final = ("aiohttp.access", "asyncio")


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        """``record`` as a line."""
        content = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(content).decode()


def begin(settings: Settings) -> None:
    """Write the log to stderr as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
