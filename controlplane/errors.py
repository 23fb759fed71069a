"""What can go wrong, sorted by what the reader should do next.

    SnapError                      code, message, details
    ├── Refused                    the caller must change something; nothing was done
    │   ├── NotFound               what was named does not exist
    │   ├── Conflict               it exists already, or is in a state that forbids this
    │   ├── Unauthenticated        nobody known asked
    │   └── Denied                 somebody known asked for what is not theirs
    ├── Retryable(after_s)         the same call may work later
    │   ├── AgentUnavailable       no agent of that node is connected
    │   └── Expired                the other side has forgotten that point: begin anew
    ├── Failed                     it was tried and did not work; the code says what
    └── Broken                     a person must look at this installation

``code`` is a code of the REST API (its status is chosen by ``api/problems.py`` alone). ``message``
is one sentence: what happened, to what, what to do. ``details`` is the cause in the tool's own
words. No secret enters any of them.
"""

from __future__ import annotations

from typing import Final

AGENT_UNAVAILABLE: Final = "AGENT_UNAVAILABLE"
AUTHENTICATION_FAILED: Final = "AUTHENTICATION_FAILED"
CHECKPOINT_FAILED: Final = "CHECKPOINT_FAILED"
CHECKPOINT_NOT_FOUND: Final = "CHECKPOINT_NOT_FOUND"
CHECKPOINT_REFUSED: Final = "CHECKPOINT_REFUSED"
CLUSTER_CONNECTION_FAILED: Final = "CLUSTER_CONNECTION_FAILED"
CLUSTER_NOT_FOUND: Final = "CLUSTER_NOT_FOUND"
CONFLICT: Final = "CONFLICT"
CONTAINER_NOT_FOUND: Final = "CONTAINER_NOT_FOUND"
HOOK_NOT_FOUND: Final = "HOOK_NOT_FOUND"
INSUFFICIENT_STORAGE: Final = "INSUFFICIENT_STORAGE"
INTERNAL_ERROR: Final = "INTERNAL_ERROR"
JOB_NOT_FOUND: Final = "JOB_NOT_FOUND"
METHOD_NOT_ALLOWED: Final = "METHOD_NOT_ALLOWED"
NODE_NOT_FOUND: Final = "NODE_NOT_FOUND"
NOT_FOUND: Final = "NOT_FOUND"
PAYLOAD_TOO_LARGE: Final = "PAYLOAD_TOO_LARGE"
PERMISSION_DENIED: Final = "PERMISSION_DENIED"
POD_NOT_FOUND: Final = "POD_NOT_FOUND"
RANGE_NOT_SATISFIABLE: Final = "RANGE_NOT_SATISFIABLE"
RATE_LIMITED: Final = "RATE_LIMITED"
REGISTRY_CONNECTION_FAILED: Final = "REGISTRY_CONNECTION_FAILED"
REGISTRY_NOT_FOUND: Final = "REGISTRY_NOT_FOUND"
REQUEST_TIMEOUT: Final = "REQUEST_TIMEOUT"
RESTORE_FAILED: Final = "RESTORE_FAILED"
SECRET_NOT_FOUND: Final = "SECRET_NOT_FOUND"  # noqa: S105 - a code
TIMEOUT: Final = "TIMEOUT"
UNSUPPORTED_MEDIA_TYPE: Final = "UNSUPPORTED_MEDIA_TYPE"
USER_NOT_FOUND: Final = "USER_NOT_FOUND"
VALIDATION_ERROR: Final = "VALIDATION_ERROR"
WATCHER_NOT_FOUND: Final = "WATCHER_NOT_FOUND"


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

    default_code = VALIDATION_ERROR


class NotFound(Refused):
    """What was named does not exist; ``code`` says which kind of thing."""

    default_code = NOT_FOUND


class Conflict(Refused):
    """It exists already, or its state forbids this."""

    default_code = CONFLICT


class Unauthenticated(Refused):
    """No valid proof of who asks."""

    default_code = AUTHENTICATION_FAILED


class Denied(Refused):
    """Known, but not allowed."""

    default_code = PERMISSION_DENIED


class Retryable(SnapError):
    """Not done now; the same call may work after ``after_s`` seconds."""

    default_code = TIMEOUT

    def __init__(
        self, message: str, *, after_s: float = 1.0, code: str = "", details: str = ""
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.after_s = after_s


class AgentUnavailable(Retryable):
    """No agent of that node is connected, so nothing was started."""

    default_code = AGENT_UNAVAILABLE


class Expired(Retryable):
    """What was to be gone on from is forgotten there; begin from the start."""


class Failed(SnapError):
    """It was tried and did not work; ``code`` and ``details`` are the agent's or the registry's."""


class Broken(SnapError):
    """Something of this installation is as it must not be; a person must look."""
