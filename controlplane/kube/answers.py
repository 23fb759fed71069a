"""What an API server's refusals and a connection's failures mean: the one table of it.

    401, 403              Failed      ``unauthorized:``
    404                   NotFound    NOT_FOUND; who asked knows what it was
    409                   Conflict    ``details`` begins with the reason: ``AlreadyExists:`` or ``Conflict:``
    410                   Expired     list anew
    other 4xx             Refused     the object is not accepted
    408, 429, 5xx         Retryable   ``after_s`` as the server says
    no trusted certificate  Failed    ``certificate:``
    no connection, no answer in time, broken off
                          Retryable   ``unreachable:``
    something else answers  Failed    ``unreachable:``

Failed and Retryable have the code CLUSTER_CONNECTION_FAILED.

Source: kubernetes.io/docs/reference/kubernetes-api/common-definitions/status (reasons and their statuses).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import msgspec

from controlplane.errors import (
    CLUSTER_CONNECTION_FAILED,
    Conflict,
    Expired,
    Failed,
    NotFound,
    Refused,
    Retryable,
    SnapError,
)

# what a connection raises; anything else is a fault of ours
CONNECTION_OVER: Final = (aiohttp.ClientError, OSError, TimeoutError)
_AFTER_S: Final = 1.0
_AFTER_MOST_S: Final = 300.0
_SHOWN: Final = 500
_AT_LATER: Final = frozenset({408, 429})
_ADDRESS: Final = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


def refusal(
    cluster: str, asked: str, status: int, body: bytes, headers: Mapping[str, str]
) -> SnapError:
    """The error for an answer that is not what was asked for.

    Args:
        asked: method and path, for the message.
    """
    told = _status(body)
    if told is None and status not in (401, 403, 404, 429) and status < 500:
        return unusable(cluster, "unreachable: what answers there is no API server")
    reason = str((told or {}).get("reason") or "")
    words = plain((told or {}).get("message") or "")
    return of_status(cluster, asked, (status, reason, words), _after_s(headers, told))


def of_status(
    cluster: str, asked: str, said: tuple[int, str, str], after_s: float = _AFTER_S
) -> SnapError:
    """The error for what a server said: status, reason and message."""
    status, reason, words = said
    if status in (401, 403):
        told = f": {words}" if status == 403 and words else ""
        return unusable(cluster, f"unauthorized: the API server answered {status}{told}")
    if status in _AT_LATER or status >= 500:
        return _later(cluster, f"unreachable: the API server answered {status}: {words}", after_s)
    message = f"The API server of cluster {cluster} refused {asked}."
    if status == 404:
        return NotFound(f"Cluster {cluster} has nothing at {asked}.", details=words)
    if status == 409:
        return Conflict(message, details=f"{reason}: {words}")
    if status == 410:
        return Expired(
            f"The API server of cluster {cluster} has forgotten where {asked} was.", details=words
        )
    return Refused(message, details=f"{status} {reason}: {words}")


def broken_off(cluster: str, cause: BaseException) -> SnapError:
    """The error for a connection that failed."""
    if isinstance(cause, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return unusable(cluster, f"certificate: {plain(cause)}")
    if isinstance(cause, aiohttp.InvalidURL):
        return unusable(cluster, "unreachable: its address is not one of a server")
    if isinstance(cause, aiohttp.ClientPayloadError):  # its own words are of HTTP's chunks
        return _later(cluster, "unreachable: its answer ended in the middle")
    words = "no answer in time" if isinstance(cause, TimeoutError) else plain(cause)
    return _later(cluster, f"unreachable: {words or type(cause).__name__}")


def unusable(cluster: str, details: str) -> Failed:
    """The stored address or credential does not work; trying again would not help."""
    return Failed(
        f"The API server of cluster {cluster} can't be used with the stored credential; "
        "check its address and credential.",
        code=CLUSTER_CONNECTION_FAILED,
        details=details,
    )


def plain(cause: object) -> str:
    """Words of a library on one line, without objects' addresses in memory."""
    return _ADDRESS.sub("", " ".join(str(cause).split())).strip()[:_SHOWN]


def _later(cluster: str, details: str, after_s: float = _AFTER_S) -> Retryable:
    return Retryable(
        f"The API server of cluster {cluster} does not answer now; try again later.",
        after_s=after_s,
        code=CLUSTER_CONNECTION_FAILED,
        details=details,
    )


def _status(body: bytes) -> dict[str, Any] | None:
    """The ``Status`` object that an API server answers with; None if it is none."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return told if told.get("kind") == "Status" else None


def _after_s(headers: Mapping[str, str], told: Mapping[str, Any] | None) -> float:
    details = (told or {}).get("details")
    hint = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    try:
        wanted = float(headers.get("Retry-After") or hint or _AFTER_S)
    except (TypeError, ValueError):
        return _AFTER_S
    return min(max(wanted, 0.0), _AFTER_MOST_S)
