"""How the agent logs: one line per event, for people or for collectors."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO    link.session  joined …``; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """One event."""
        name = record.name.removeprefix("agent.")
        line = f"{_time(record)} {record.levelname:<7} {name}: {_flat(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line; a traceback is its field ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        """One event."""
        event = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False)


def set_up(level: str, style: str) -> None:
    """Log to stderr from now on.

    Args:
        level: debug, info, warning or error.
        style: text or json.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":  # what other libraries tell about themselves
        for name in ("asyncio", "grpc", "aiohttp"):
            logging.getLogger(name).setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flat(message: str) -> str:
    """``message`` on one line: a newline from outside must not look like another event."""
    return message.replace("\r", "\\r").replace("\n", "\\n")
