"""Speaking to a registry over HTTP: prove the credentials, delete a manifest.

Source: OCI distribution specification 1.1; distribution's token authentication
(https://distribution.github.io/distribution/spec/auth/token/).
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from controlplane.errors import REGISTRY_CONNECTION_FAILED, Failed
from controlplane.store.records import RegistryAccess

_DEADLINE_S: Final = 15.0
_ANSWER_LIMIT_BYTES: Final = 256 << 10
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
# Source: docs.docker.com/reference/api/registry/auth: Docker Hub's token service has a host of its own
_KNOWN_REALMS: Final = {"registry-1.docker.io": "auth.docker.io", "docker.io": "auth.docker.io"}
_MANIFESTS: Final = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants to see (its WWW-Authenticate header)."""

    scheme: str
    realm: str = ""
    service: str = ""


class RegistryClient:
    """Speaks to one registry.

    Args:
        realms: further hosts that its token service may be on; credentials go nowhere else.
    """

    def __init__(self, access: RegistryAccess, realms: Iterable[str] = ()) -> None:
        self._access = access
        self._realms = frozenset(realms)
        self._base = f"{'http' if access.plain_http else 'https'}://{access.host}"

    async def login(self) -> None:
        """Prove that the credentials are good (or that none are needed).

        Raises:
            Failed: REGISTRY_CONNECTION_FAILED; ``details`` begins with ``unauthorized:``,
                ``unreachable:`` or ``certificate:``.
        """
        async with self._session() as session:
            headers = await self._authorization(session, "")
            if not headers:
                return
            status, _ = await self._status(session, "GET", "/v2/", headers)
            if status in {401, 403}:
                raise self._unauthorized(f"the registry answered {status} to these credentials")
            if status >= 400:
                raise self._unreachable(f"the registry answered {status} to GET /v2/")

    async def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest; one that is gone already is no error.

        Raises:
            Failed: the registry can't be reached, or does not allow it.
        """
        async with self._session() as session:
            scope = f"repository:{repository}:pull,delete"
            headers = await self._authorization(session, scope) | {"Accept": _MANIFESTS}
            path = f"/v2/{quote(repository)}/manifests/{quote(digest)}"
            status, body = await self._status(session, "DELETE", path, headers)
        if status in {200, 202, 404}:
            return
        if status in {401, 403}:
            raise self._unauthorized(f"the registry answered {status} to DELETE {path}")
        sentence = f"The registry {self._access.host} did not delete the image (status {status})."
        if status == 405:
            sentence = f"The registry {self._access.host} has deleting switched off."
        raise Failed(sentence, code=REGISTRY_CONNECTION_FAILED, details=body[:500])

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """A session whose failures are told apart: certificate, or not reached."""
        connector = aiohttp.TCPConnector(ssl=await self._tls(), limit=2)
        timeout = aiohttp.ClientTimeout(total=_DEADLINE_S)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                yield session
        except (aiohttp.ClientSSLError, ssl.SSLError) as cause:
            raise self._certificate(_reason(cause)) from cause
        except aiohttp.ClientError as cause:
            raise self._unreachable(_reason(cause)) from cause
        except TimeoutError as cause:
            raise self._unreachable(f"no answer within {_DEADLINE_S:.0f} s") from cause

    async def _tls(self) -> ssl.SSLContext | bool:
        if self._access.plain_http or not self._access.verify_ssl:
            return False
        context = await asyncio.to_thread(ssl.create_default_context)
        if self._access.ca_pem:
            try:
                context.load_verify_locations(cadata=self._access.ca_pem)
            except (ssl.SSLError, TypeError) as cause:  # TypeError: not ASCII
                raise self._certificate("the CA given for this registry is not PEM") from cause
        return context

    async def _authorization(self, session: aiohttp.ClientSession, scope: str) -> dict[str, str]:
        """Headers that satisfy the registry; none if it asks for nothing and we have no name."""
        async with session.get(f"{self._base}/v2/", allow_redirects=False) as answer:
            status, said = answer.status, answer.headers.get("WWW-Authenticate", "")
            is_registry = "Docker-Distribution-Api-Version" in answer.headers
        if status == 200:
            return self._basic() if self._access.username else {}
        if status != 401:
            raise self._unreachable(f"GET /v2/ answered {status}; this seems to be no registry")
        challenge = parse_challenge(said)
        if challenge.scheme == "basic":
            if not self._access.username:
                raise self._unauthorized("the registry wants a user name and a password")
            return self._basic()
        if challenge.scheme != "bearer" or not challenge.realm:
            kind = "a registry" if is_registry else "no registry"
            raise self._unreachable(f"{kind} that wants an unknown authentication: {said[:100]}")
        return {"Authorization": f"Bearer {await self._token(session, challenge, scope)}"}

    async def _token(self, session: aiohttp.ClientSession, challenge: Challenge, scope: str) -> str:
        realm = urlsplit(challenge.realm)
        own = urlsplit(self._base).hostname
        known = _KNOWN_REALMS.get(self._access.host)
        if realm.hostname not in {own, known, *self._realms}:
            raise self._unauthorized(
                f"its token service is on {realm.hostname}, another host; credentials were not sent"
            )
        if realm.scheme != "https" and not self._access.plain_http:
            raise self._unauthorized("its token service is not on https; credentials were not sent")
        parameters = {"service": challenge.service, "client_id": "snap", "scope": scope}
        if self._access.username:
            parameters["account"] = self._access.username
        given = {name: value for name, value in parameters.items() if value}
        headers = self._basic() if self._access.username else {}
        async with session.get(
            challenge.realm, params=given, headers=headers, allow_redirects=False
        ) as answer:
            if answer.status in {401, 403}:
                raise self._unauthorized(f"the token service answered {answer.status}")
            if answer.status != 200:
                raise self._unreachable(f"the token service answered {answer.status}")
            content = await answer.content.read(_ANSWER_LIMIT_BYTES)
        return self._read_token(content)

    def _read_token(self, content: bytes) -> str:
        try:
            answer = msgspec.json.decode(content, type=_TokenAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as cause:
            raise self._unreachable("the token service's answer is no token") from cause
        token = answer.token or answer.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise self._unreachable("the token service's answer has no token")
        return token

    async def _status(
        self, session: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str]
    ) -> tuple[int, str]:
        url = URL(self._base + path, encoded=True)
        async with session.request(method, url, headers=headers, allow_redirects=False) as answer:
            body = await answer.content.read(4096)
            return answer.status, body.decode(errors="replace")

    def _basic(self) -> dict[str, str]:
        pair = f"{self._access.username}:{self._access.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def _unauthorized(self, reason: str) -> Failed:
        sentence = f"The registry {self._access.host} refused the credentials; check them."
        return _failed(sentence, f"unauthorized: {reason}")

    def _unreachable(self, reason: str) -> Failed:
        sentence = f"The registry {self._access.host} can't be reached; check its address."
        return _failed(sentence, f"unreachable: {reason}")

    def _certificate(self, reason: str) -> Failed:
        sentence = (
            f"The registry {self._access.host} has a certificate that is not trusted; "
            "give its CA or set verify_ssl to false."
        )
        return _failed(sentence, f"certificate: {reason}")


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def parse_challenge(header: str) -> Challenge:
    """What ``WWW-Authenticate`` asks for; the first challenge counts."""
    scheme, _, rest = header.strip().partition(" ")
    said = dict(_CHALLENGE.findall(rest))
    return Challenge(scheme.lower(), said.get("realm", ""), said.get("service", ""))


def _failed(sentence: str, details: str) -> Failed:
    return Failed(sentence, code=REGISTRY_CONNECTION_FAILED, details=details)


def _reason(cause: BaseException) -> str:
    return str(cause)[:300] or type(cause).__name__
