"""What a registry or the way to it did wrong, as the agent's errors: one table.

Details begin with ``unauthorized:``, ``certificate:`` or ``unreachable:`` (everything else).
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import aiohttp

from agent.errors import REGISTRY_CONNECTION_FAILED, NotFound, Refused, Retryable, SnapError

_MAX_WORDS: Final = 300  # of the registry's own words kept in details
_CERTIFICATE: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    ssl.SSLCertVerificationError,
)
_BROKEN: Final = (
    TimeoutError,
    aiohttp.ClientError,
    http.client.HTTPException,
    OSError,
    EOFError,
)
_WRONG_SETTINGS: Final = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)


@contextmanager
def mapped(host: str) -> Iterator[None]:
    """Turn the client library's errors within the block into ours.

    Raises:
        Refused: the certificate is not trusted, or the address is none.
        Retryable: the registry can't be reached, or the connection broke.
    """
    try:
        yield
    except _CERTIFICATE as cause:
        raise _refused(
            f"The certificate of registry {host} is not trusted; give its CA or turn verify_ssl off.",
            f"certificate: {_words(cause)}",
        ) from cause
    except aiohttp.ClientSSLError as cause:
        raise _refused(
            f"Registry {host} does not speak TLS as expected.", f"certificate: {_words(cause)}"
        ) from cause
    except _WRONG_SETTINGS as cause:
        raise _refused(f"{host!r} is no address.", f"unreachable: {_words(cause)}") from cause
    except _BROKEN as cause:
        raise unreachable(host, _words(cause) or "no answer in time") from cause


def unreachable(host: str, why: str) -> Retryable:
    """The registry can't be used now."""
    return Retryable(
        f"Registry {host} can't be reached.",
        code=REGISTRY_CONNECTION_FAILED,
        details=f"unreachable: {why}",
    )


def unauthorized(host: str, why: str) -> Refused:
    """The registry does not take the credentials, or they are not enough."""
    return _refused(
        f"Registry {host} refused the login or the right to this repository.",
        f"unauthorized: {why}",
    )


def answered(host: str, status: int, headers: Mapping[str, str], body: bytes) -> SnapError:
    """What an answer other than the one hoped for means."""
    said = _said(status, body)
    if status in (401, 403):
        return unauthorized(host, said)
    if status == 404:
        return NotFound(
            f"Registry {host} does not have what was asked for (a repository, or part of an image).",
            code=REGISTRY_CONNECTION_FAILED,
            details=f"unreachable: {said}",
        )
    if status == 429 or status >= 500:
        wait = headers.get("Retry-After", "")
        after_s = min(60.0, float(wait)) if wait.isdigit() else 1.0
        return Retryable(
            f"Registry {host} can't answer now.",
            after_s=after_s,
            code=REGISTRY_CONNECTION_FAILED,
            details=f"unreachable: {said}",
        )
    return _refused(f"Registry {host} refused the request.", f"unreachable: {said}")


def _refused(message: str, details: str) -> Refused:
    return Refused(message, code=REGISTRY_CONNECTION_FAILED, details=details)


def _words(cause: BaseException) -> str:
    return str(cause)[:_MAX_WORDS] or type(cause).__name__


def _said(status: int, body: bytes) -> str:
    """``HTTP 400 NAME_INVALID: invalid repository name``, from the specification's error body."""
    try:
        errors = json.loads(body)["errors"]
        words = "; ".join(f"{one.get('code', '')}: {one.get('message', '')}" for one in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        words = body[:_MAX_WORDS].decode(errors="replace").strip()
    return f"HTTP {status} {words}".strip()[:_MAX_WORDS]
