"""A client of one Kubernetes API server, kept open: read, list, watch, write.

Source: kubernetes.io/docs/reference/using-api/api-concepts (lists in pieces, watches, bookmarks, patches,
preconditions); …/kubernetes-api/policy-resources/eviction-v1.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

from controlplane.errors import Expired
from controlplane.kube import access as credentials
from controlplane.kube import answers, requests, watching
from controlplane.kube.access import Access, Credential
from controlplane.kube.requests import Params, PatchKind, Request
from controlplane.kube.resources import ACCESS_REVIEWS, PODS, Object, version_of
from controlplane.kube.watching import Event

CONNECT_S: Final = 4.0
CALL_S: Final = 15.0  # above CONNECT_S, so that its reason comes first
WATCH_S: Final = 240.0  # the server ends a watch after so long; it is taken up again
MARGIN_S: Final = 15.0  # a watch that lasts so much longer is of a server that is gone
PAGE: Final = 500
FIELD_MANAGER: Final = "snap"
_THREAD_BYTES: Final = 256 << 10  # decoding more than this would hold up others
_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Listing:
    """A list at one moment; watch on from ``resource_version``."""

    items: tuple[Object, ...]
    resource_version: str


class KubeClient:
    """Asks one API server. Its methods raise what ``answers`` says, and nothing else.

    A call that is cancelled may have taken effect; one that raises Retryable too.
    """

    def __init__(self, access: Access, credential: Credential) -> None:
        self.access: Final = access
        self._credential = credential
        connector = aiohttp.TCPConnector(
            ssl=credential.tls or True, limit=_CONNECTIONS, socket_factory=_socket
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers={"Accept": requests.JSON, "User-Agent": "snap-api"},
        )

    @property
    def cluster(self) -> str:
        """The name of its cluster."""
        return self.access.cluster

    async def close(self) -> None:
        """Close its connections; calls that run fail with Retryable."""
        await self._session.close()

    async def version(self) -> str:
        """The server's version, such as ``v1.37.2``; it answers, and takes the credential."""
        attributes = {"verb": "get", "resource": "nodes"}
        review = {"spec": {"resourceAttributes": attributes}}
        # /version answers to anybody
        await self._ask(Request("POST", ACCESS_REVIEWS.path(), body=review))
        return str((await self.get("/version")).get("gitVersion", ""))

    async def get(
        self, path: str, params: Params | None = None, *, timeout_s: float = CALL_S
    ) -> Object:
        """What is at ``path``."""
        return await self._ask(Request("GET", path, params), timeout_s)

    async def list(
        self,
        path: str,
        params: Params | None = None,
        *,
        keep: Callable[[Object], Object] | None = None,
        timeout_s: float = CALL_S,
    ) -> Listing:
        """Everything at ``path``, read in pages of one moment.

        Args:
            keep: what stays of each object; None for all of it.
            timeout_s: for each page.
        """
        try:
            return await self._pages(path, {"limit": str(PAGE), **(params or {})}, keep, timeout_s)
        except Expired:  # the pages took longer than the server remembers: all at once, then
            return await self._pages(path, dict(params or {}), keep, timeout_s)

    async def _pages(
        self,
        path: str,
        params: dict[str, str],
        keep: Callable[[Object], Object] | None,
        timeout_s: float,
    ) -> Listing:
        found: list_of_objects = []
        while True:
            page = await self.get(path, params, timeout_s=timeout_s)
            items = [item for item in page.get("items") or () if isinstance(item, dict)]
            found += map(keep, items) if keep else items
            left = str((page.get("metadata") or {}).get("continue") or "")
            if not left:
                return Listing(tuple(found), version_of(page))
            params = params | {"continue": left}

    @asynccontextmanager
    async def watch(
        self,
        path: str,
        resource_version: str,
        params: Params | None = None,
        *,
        timeout_s: float = WATCH_S,
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """What changes at ``path`` from ``resource_version`` on, bookmarks among it.

        The block begins when the server has accepted the watch. The iterator ends when the server ends
        it, after ``timeout_s`` at the latest; it raises Expired when that version is too old, Retryable
        when the connection breaks or stays silent for MARGIN_S longer than that.
        """
        asked = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_s))),
            **(params or {}),
        }
        limit = aiohttp.ClientTimeout(
            total=timeout_s + MARGIN_S, sock_connect=CONNECT_S, sock_read=timeout_s + MARGIN_S
        )
        async with self._in_time(CALL_S):
            answer = await self._open(Request("GET", path, asked), limit)
        try:
            yield watching.events(answer, self.cluster, path)
        finally:
            answer.close()  # not released: there may be more to come on this connection

    async def create(
        self,
        path: str,
        body: Object,
        *,
        params: Params | None = None,
        timeout_s: float = CALL_S,
    ) -> Object:
        """Make an object in the collection, or ask the subresource, at ``path``."""
        asked = {"fieldManager": FIELD_MANAGER, **(params or {})}
        return await self._ask(Request("POST", path, asked, body), timeout_s)

    async def replace(self, path: str, body: Object, *, timeout_s: float = CALL_S) -> Object:
        """Put ``body`` in an object's place; Conflict if its resource version is not the latest."""
        asked = {"fieldManager": FIELD_MANAGER}
        return await self._ask(Request("PUT", path, asked, body), timeout_s)

    async def patch(
        self,
        path: str,
        body: object,
        kind: PatchKind = PatchKind.MERGE,
        *,
        params: Params | None = None,
        timeout_s: float = CALL_S,
    ) -> Object:
        """Change an object. APPLY makes it where there is none, and takes fields over that it names."""
        asked = {"fieldManager": FIELD_MANAGER, **(params or {})}
        if kind is PatchKind.APPLY:
            asked.setdefault("force", "true")
        return await self._ask(Request("PATCH", path, asked, body, kind), timeout_s)

    async def delete(
        self,
        path: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_s: int | None = None,
        timeout_s: float = CALL_S,
    ) -> Object:
        """Delete an object; Conflict if it has another UID or version by now."""
        options = requests.delete_options(uid, resource_version, grace_s)
        return await self._ask(Request("DELETE", path, body=options), timeout_s)

    async def evict(
        self,
        namespace: str,
        pod: str,
        *,
        uid: str = "",
        grace_s: int | None = None,
        timeout_s: float = CALL_S,
    ) -> Object:
        """Delete a pod as far as its disruption budget allows; Retryable while that forbids it."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": requests.delete_options(uid, "", grace_s),
        }
        path = PODS.path(namespace, pod, "eviction")
        return await self._ask(Request("POST", path, body=eviction), timeout_s)

    async def _ask(self, request: Request, timeout_s: float = CALL_S) -> Object:
        """What a whole answer says."""
        async with self._in_time(timeout_s), await self._open(request) as answer:
            content = await answer.read()
        try:
            if len(content) > _THREAD_BYTES:
                return await asyncio.to_thread(_decode, content)
            return _decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as cause:
            details = "unreachable: what answers there is no API server"
            raise answers.unusable(self.cluster, details) from cause

    @asynccontextmanager
    async def _in_time(self, timeout_s: float) -> AsyncIterator[None]:
        """Raise Retryable when the connection breaks in the block, or the block lasts longer."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except answers.CONNECTION_OVER as cause:
            raise answers.broken_off(self.cluster, cause) from cause

    async def _open(
        self, request: Request, limit: aiohttp.ClientTimeout | None = None
    ) -> aiohttp.ClientResponse:
        """An answer whose body is still to be read; it is a success."""
        more: dict[str, Any] = {} if limit is None else {"timeout": limit}
        for is_last in (False, True):
            answer = await self._session.request(
                request.method,
                URL(self._credential.server + request.path, encoded=True),
                params=request.params,
                data=request.data,
                headers=request.headers | await self._credential.headers(),
                allow_redirects=False,  # nobody else is shown the credential
                **more,
            )
            if answer.status in (200, 201, 202):
                return answer
            async with answer:
                said = await answer.read()
            if answer.status != 401 or is_last or not await self._credential.renew():
                break
        asked = f"{request.method} {request.path}"
        raise answers.refusal(self.cluster, asked, answer.status, said, answer.headers)


list_of_objects = list[Object]  # inside the class, list is its method


async def connect(access: Access) -> KubeClient:
    """A client for ``access``; the caller closes it. Nothing is asked yet.

    Raises:
        Failed: CLUSTER_CONNECTION_FAILED; the credential can't be used.
    """
    return KubeClient(access, await credentials.load(access))


def _decode(content: bytes) -> Object:
    return msgspec.json.decode(content, type=dict[str, Any])


def _socket(address: Any) -> socket.socket:
    """A socket that finds out within a minute that the other side is gone, though nothing is sent."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    except OSError:
        made.close()
        raise
    return made
