"""What can go wrong, sorted by what the reader should do next.

    SnapError                      code, message, details
    ├── Refused                    the caller must change something; nothing was touched
    │   └── NotFound               what was named is not here
    ├── Retryable(after_s)         the same call may work later
    ├── Broken                     a person must look at the node
    └── CommandFailed              a tool of the node failed: argv, status, log_tail

``code`` is a code of the REST API and travels with the job to its user. ``message`` is one sentence: what
happened, to what, what to do. ``details`` is the cause in the tool's own words. No secret enters any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

CHECKPOINT_FAILED: Final = "CHECKPOINT_FAILED"
CHECKPOINT_NOT_FOUND: Final = "CHECKPOINT_NOT_FOUND"
CHECKPOINT_REFUSED: Final = "CHECKPOINT_REFUSED"
CONFLICT: Final = "CONFLICT"
CONTAINER_NOT_FOUND: Final = "CONTAINER_NOT_FOUND"
INSUFFICIENT_STORAGE: Final = "INSUFFICIENT_STORAGE"
INTERNAL_ERROR: Final = "INTERNAL_ERROR"
POD_NOT_FOUND: Final = "POD_NOT_FOUND"
REGISTRY_CONNECTION_FAILED: Final = "REGISTRY_CONNECTION_FAILED"
RESTORE_FAILED: Final = "RESTORE_FAILED"
TIMEOUT: Final = "TIMEOUT"
VALIDATION_ERROR: Final = "VALIDATION_ERROR"


class SnapError(Exception):
    """Root of the tree; never raised itself."""

    default_code = INTERNAL_ERROR

    def __init__(self, message: str, *, code: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.details = details


class Refused(SnapError):
    """Not done, and nothing was touched: the caller must change something."""

    default_code = CHECKPOINT_REFUSED


class NotFound(Refused):
    """What was named is not on this node."""

    default_code = CHECKPOINT_NOT_FOUND


class Retryable(SnapError):
    """Not done now; the same call may work after ``after_s`` seconds."""

    def __init__(
        self, message: str, *, after_s: float = 1.0, code: str = "", details: str = ""
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.after_s = after_s


class Broken(SnapError):
    """Something is as it must not be; a person must look."""


class CommandFailed(SnapError):
    """A tool of the node ended with a failure.

    Attributes:
        argv: what was run. Secrets are never passed by argv.
        status: exit status, negative for a signal, None when it could not be started.
        log_tail: the last lines of what it wrote to stderr.
    """

    def __init__(
        self, message: str, *, argv: Sequence[str], status: int | None, log_tail: str = ""
    ) -> None:
        super().__init__(message, details=log_tail)
        self.argv = tuple(argv)
        self.status = status
        self.log_tail = log_tail
