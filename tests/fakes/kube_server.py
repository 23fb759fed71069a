"""A Kubernetes API server for tests, on loopback: lists in pages, watches, patches, preconditions, evictions.

What it does as the real one does is held to that by tests/contract/kube. Nothing runs the pods that it keeps.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from controlplane.kube.access import Access
from tests.fakes import tls
from tests.fakes.kube_objects import Object, Objects, Place, Refusal, merged, patched, strategic

TOKEN = "canary-token"
VERSION = "v1.37.2"


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests that ``matches`` says yes to."""

    status: int = 0  # 0: no answer at all
    after_s: int = 0
    times: int = 1
    matches: Callable[[web.Request], bool] = lambda _: True


@dataclass
class KubeServer:
    """The server and its switches.

    Attributes:
        asked: how often each "METHOD path" was asked.
        reviews: what TokenReview answers, as its status, by token.
        protected: (namespace, pod) that no eviction is allowed for.
    """

    url: str
    objects: Objects
    ca_pem: bytes = b""
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    asked: Counter[str] = field(default_factory=Counter)
    reviews: dict[str, Object] = field(default_factory=dict)
    protected: set[tuple[str, str]] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    watches: set[asyncio.Event] = field(default_factory=set)
    allows: Callable[[str, Place], bool] = lambda _verb, _place: True

    def access(self, cluster: str = "c1", **changed: Any) -> Access:
        """How it is reached with its token."""
        return Access(cluster, self.url, kubeconfig=self.kubeconfig(), **changed)

    def kubeconfig(self, token: str = TOKEN) -> str:
        """One that carries all it needs."""
        cluster = {"server": self.url}
        if self.ca_pem:
            cluster["certificate-authority-data"] = base64.b64encode(self.ca_pem).decode()
        return json.dumps(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": token}}],
            }
        )

    def put(self, path: str, **content: Any) -> Object:
        """Make the object at ``path``, or change it as a strategic merge does."""
        place = Place.of(path)
        try:
            before = self.objects.get(place)
        except Refusal:
            content.setdefault("metadata", {})["name"] = place.name
            return self.objects.create(place, content)
        return self.objects.replace(place, strategic(before, content))

    def get(self, path: str) -> Object:
        """The object at ``path``."""
        return self.objects.get(Place.of(path))

    def find(self, path: str) -> Object | None:
        """The object at ``path``, if there is one."""
        try:
            return self.get(path)
        except Refusal:
            return None

    def all(self, path: str) -> list[Object]:
        """The objects of a collection."""
        return self.objects.all_of(Place.of(path))

    def delete(self, path: str) -> None:
        """Take the object at ``path`` away."""
        self.objects.delete(Place.of(path), {})

    def drop_watches(self) -> None:
        """End every watch at once, in the middle."""
        for watch in self.watches:
            watch.set()

    def fail(self, fault: Fault) -> None:
        """Let requests go wrong."""
        self.faults.append(fault)

    # -- what is asked

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.asked[f"{request.method} {request.path}"] += 1
        try:
            await self._break(request)
            self._admit(request)
            return await self._do(request)
        except Refusal as refusal:
            headers = {"Retry-After": str(refusal.after_s)} if refusal.after_s else {}
            return web.json_response(refusal.body(), status=refusal.status, headers=headers)

    async def _break(self, request: web.Request) -> None:
        for fault in list(self.faults):
            if not fault.matches(request):
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            if not fault.status:
                await asyncio.Event().wait()
            reason = {410: "Expired", 429: "TooManyRequests"}.get(fault.status, "InternalError")
            raise Refusal(fault.status, reason, "as the test wanted", fault.after_s)

    def _admit(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            raise Refusal(401, "Unauthorized", "Unauthorized")

    async def _do(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"gitVersion": VERSION})
        place = Place.of(request.path)
        body = json.loads(await request.read() or b"null")
        if place.plural in ("selfsubjectaccessreviews", "tokenreviews"):
            return web.json_response(self._review(place, body), status=201)
        verb = _verb(request, place)
        if not self.allows(verb, place):
            what = f'{place.plural} is forbidden: User "u" cannot {verb} resource "{place.plural}"'
            raise Refusal(403, "Forbidden", what)
        if verb == "watch":
            return await self._watch(request, place)
        if verb == "list":
            return web.json_response(self._list(request.query, place))
        ways: Mapping[str, Callable[[], Object]] = {
            "get": lambda: self.objects.get(place),
            "create": lambda: self._create(place, body),
            "update": lambda: self.objects.replace(place, body),
            "patch": lambda: self._patch(place, body, request.content_type),
            "delete": lambda: self.objects.delete(place, (body or {}).get("preconditions") or {}),
        }
        return web.json_response(ways[verb](), status=201 if verb == "create" else 200)

    def _create(self, place: Place, body: Object) -> Object:
        if place.sub == "eviction":
            return self._evict(place, body)
        return self.objects.create(place, body)

    def _evict(self, place: Place, body: Object) -> Object:
        if (place.namespace, place.name) in self.protected:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refusal(429, "TooManyRequests", message, 10)
        conditions = (body.get("deleteOptions") or {}).get("preconditions") or {}
        self.objects.delete(place, conditions)
        return {"kind": "Status", "status": "Success"}

    def _review(self, place: Place, body: Object) -> Object:
        if place.plural == "selfsubjectaccessreviews":
            return body | {"status": {"allowed": True}}
        asked = body["spec"]
        status = self.reviews.get(asked["token"], {"error": "invalid bearer token"})
        known, wanted = status.get("audiences", []), asked.get("audiences") or []
        if status.get("authenticated") and not set(known) & set(wanted):
            status = {"error": f"token audiences {known} is invalid for the target {wanted}"}
        return {"kind": "TokenReview", "apiVersion": place.api, "spec": asked, "status": status}

    def _patch(self, place: Place, body: Any, content_type: str) -> Object:
        try:
            before = self.objects.get(place)
        except Refusal:
            if content_type != "application/apply-patch+yaml":
                raise
            return self.objects.create(place, body)
        ways: Mapping[str, Callable[[Any, Any], Any]] = {
            "application/merge-patch+json": merged,
            "application/strategic-merge-patch+json": strategic,
            "application/json-patch+json": patched,
            "application/apply-patch+yaml": strategic,
        }
        if content_type not in ways:
            raise Refusal(415, "UnsupportedMediaType", f"{content_type} is not supported")
        return self.objects.replace(place, ways[content_type](before, body))

    def _list(self, query: Mapping[str, str], place: Place) -> Object:
        found = [o for o in self.objects.all_of(place) if _is_selected(o, query)]
        metadata: Object = {"resourceVersion": str(self.objects.version)}
        begin = 0
        if query.get("continue"):
            version, _, number = query["continue"].partition(":")
            if int(version) < self.objects.oldest:
                raise Refusal(410, "Expired", "The provided continue parameter is too old")
            begin, metadata["resourceVersion"] = int(number), version
        limit = int(query.get("limit") or 0)
        if limit and begin + limit < len(found):
            metadata["continue"] = f"{metadata['resourceVersion']}:{begin + limit}"
            found = found[: begin + limit]
        items = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in found]
        return {"kind": "List", "metadata": metadata, "items": items[begin:]}

    async def _watch(self, request: web.Request, place: Place) -> web.StreamResponse:
        query = request.query
        at = int(query.get("resourceVersion") or self.objects.version)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        if at < self.objects.oldest:
            status = Refusal(410, "Expired", f"too old resource version: {at}").body()
            await _say(answer, {"type": "ERROR", "object": status})
            return answer
        ends = time.monotonic() + float(query.get("timeoutSeconds") or 60)
        dropped = asyncio.Event()
        self.watches.add(dropped)
        try:
            while not dropped.is_set() and time.monotonic() < ends:
                changed = self.objects.changed
                at = await self._tell(answer, (query, place), at)
                left = ends - time.monotonic()
                await _first_of(changed, dropped, left)
            if not dropped.is_set() and query.get("allowWatchBookmarks"):
                mark = {"metadata": {"resourceVersion": str(self.objects.version)}}
                await _say(answer, {"type": "BOOKMARK", "object": mark})
        finally:
            self.watches.discard(dropped)
        if dropped.is_set() and request.transport is not None:
            request.transport.abort()
        return answer

    async def _tell(
        self, answer: web.StreamResponse, asked: tuple[Mapping[str, str], Place], at: int
    ) -> int:
        query, place = asked
        for one in list(self.objects.log):
            metadata = one.object["metadata"]
            fits = place.namespace in ("", metadata.get("namespace", ""))
            if one.version > at and one.collection == place.collection and fits:
                at = one.version
                kind = one.kind if _is_selected(one.object, query) else "DELETED"
                await _say(answer, {"type": kind, "object": one.object})
        return max(at, self.objects.version)


def _verb(request: web.Request, place: Place) -> str:
    if request.method == "GET":
        if place.name:
            return "get"
        return "watch" if request.query.get("watch") in ("1", "true") else "list"
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    return verbs[request.method]


def _is_selected(found: Object, query: Mapping[str, str]) -> bool:
    """Equality only, of labels and of fields."""
    labels = found["metadata"].get("labels") or {}
    for part in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = part.partition("=")
        if name not in labels or (equals and labels[name] != value.lstrip("=")):
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = part.partition("=")
        at: Any = found
        for step in name.split("."):
            at = (at or {}).get(step)
        if (at or "") != value.lstrip("="):
            return False
    return True


async def _say(answer: web.StreamResponse, event: Object) -> None:
    await answer.write(json.dumps(event).encode() + b"\n")


async def _first_of(changed: asyncio.Event, dropped: asyncio.Event, timeout_s: float) -> None:
    tasks = [asyncio.create_task(one.wait()) for one in (changed, dropped)]
    try:
        await asyncio.wait(tasks, timeout=max(timeout_s, 0), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def running(folder: Path | None = None) -> AsyncIterator[KubeServer]:
    """The server; over TLS, with certificates in ``folder``, if one is given."""
    server = KubeServer("", Objects())
    context = None
    if folder is not None:
        certificates = tls.make()
        chain, key = folder / "kube-chain.pem", folder / "kube-key.pem"
        chain.write_bytes(certificates.leaf)
        key.write_bytes(certificates.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain, key)
        server.ca_pem = certificates.ca
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=0.2, handler_cancellation=True
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        scheme = "https" if context else "http"
        server.url = "{}://{}:{}".format(scheme, *runner.addresses[0][:2])
        yield server
    finally:
        server.drop_watches()
        await runner.cleanup()
