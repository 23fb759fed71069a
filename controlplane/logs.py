"""How the log is written: one line per event, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

from controlplane.settings import LEVELS, Settings

_LOUD: Final = ("aiohttp.access", "asyncio")


class TextLines(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO    controlplane.app: …``; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """``record`` as a line."""
        flat = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {flat}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """``record`` as a line."""
        content = {
            "time": _time(record),
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
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(settings)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_level(settings: Settings) -> str:
    """Write only events of the level that the settings, or the file that they name, say now; returns it."""
    level = settings.log_level
    if settings.log_level_file is not None:
        try:
            level = settings.log_level_file.read_text().strip() or level
        except (OSError, UnicodeDecodeError):
            logging.getLogger(__name__).warning(
                "%s can't be read; the level is %s", settings.log_level_file, level
            )
    if level.lower() not in LEVELS:
        logging.getLogger(__name__).warning("the log level file holds no level")
        level = settings.log_level
    logging.getLogger().setLevel(level.upper())
    return level.lower()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
