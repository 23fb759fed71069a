"""Proving who we are to a registry: basic, or a token from the service that it names.

Source: distribution, docs/spec/auth/token.md; RFC 7235 (challenges), RFC 7617 (basic).
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from yarl import URL

from agent.errors import Refused, SnapError
from agent.formats.jobs import RegistryAccess
from agent.image import registry_errors

_PARAMETER: Final = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_EARLY_S: Final = 10.0  # a token is renewed this long before it ends
_DEFAULT_LIFE_S: Final = 60.0  # where the service does not say, by the specification

Get = Callable[[URL, Mapping[str, str]], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    until: float  # time.monotonic()


class Authorizer:
    """Keeps the answers to a registry's challenges, for one scope at a time.

    A token service gets the password, so its address must be of the registry's own host or one that an
    administrator allowed, and TLS where the registry has it.
    """

    def __init__(self, access: RegistryAccess, get: Get, allowed_realms: frozenset[str]) -> None:
        """Take how to ``get`` (url, headers) → (status, body), and hosts allowed besides."""
        self._access = access
        self._get = get
        self._allowed = allowed_realms
        self._service: tuple[URL, str] | None = None  # realm, service
        self._basic_asked = False
        self._tokens: dict[str, _Token] = {}

    async def header(self, scope: str) -> str | None:
        """The ``Authorization`` to send for ``scope``, as far as the registry asked for one.

        Raises:
            Refused, Retryable: the token service gives none.
        """
        if self._service is not None:
            token = self._tokens.get(scope)
            if token is None or token.until < time.monotonic():
                token = self._tokens[scope] = await self._fetch(*self._service, scope)
            return f"Bearer {token.value}"
        if self._basic_asked and self._access.username:
            return self._basic()
        return None

    def learn(self, challenges: list[str], scope: str) -> bool:
        """Take what a 401 asks for; whether there is something new to try.

        Raises:
            Refused: the token service is at a foreign host.
        """
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                wanted = dict(_PARAMETER.findall(rest))
                had = self._tokens.pop(scope, None)
                new = self._service is None
                self._service = self._realm(wanted.get("realm", "")), wanted.get("service", "")
                return new or had is not None
            if scheme.lower() == "basic":
                new = not self._basic_asked and bool(self._access.username)
                self._basic_asked = True
                return new
        return False

    def _basic(self) -> str:
        pair = f"{self._access.username}:{self._access.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()

    def _realm(self, text: str) -> URL:
        host = self._access.host
        try:
            realm = URL(text)
        except ValueError:
            realm = URL()
        own = URL(f"//{host}").host
        if not realm.host or (realm.host != own and realm.host not in self._allowed):
            raise registry_errors.unauthorized(
                host, f"its token service {text[:200]!r} is at another host that nobody allowed"
            )
        if realm.scheme != "https" and not self._access.plain_http:
            raise registry_errors.unauthorized(host, "its token service has no TLS")
        return realm

    async def _fetch(self, realm: URL, service: str, scope: str) -> _Token:
        query = {"service": service} if service else {}
        if scope:
            query["scope"] = scope
        headers = {"Authorization": self._basic()} if self._access.username else {}
        status, body = await self._get(realm.update_query(query), headers)
        if status != 200:
            raise self._denied(status, body)
        try:
            found = json.loads(body)
            value = found.get("token") or found["access_token"]
            life_s = float(found.get("expires_in") or _DEFAULT_LIFE_S)
        except (ValueError, KeyError, AttributeError, TypeError) as cause:
            raise Refused(
                f"The token service of registry {self._access.host} answered no token.",
                code="REGISTRY_CONNECTION_FAILED",
                details="unauthorized: its answer can't be read",
            ) from cause
        return _Token(value, time.monotonic() + max(0.0, life_s - _EARLY_S))

    def _denied(self, status: int, body: bytes) -> SnapError:
        if 400 <= status < 500 and status != 429:
            return registry_errors.unauthorized(self._access.host, f"token service: HTTP {status}")
        return registry_errors.answered(self._access.host, status, {}, body)
