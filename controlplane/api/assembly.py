"""The application: every section's routes mounted behind the edge."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from controlplane.api import (
    audit,
    automation,
    checkpoints,
    clusters,
    config_caches,
    config_clusters,
    config_registries,
    config_secrets,
    config_users,
    deprecated,
    documentation,
    hooks,
    imagetags,
    insights,
    jobs,
    nodes,
    openapi,
    operations,
    pods,
    progress,
    registries,
    restores,
    uploads,
    watchers,
)
from controlplane.api.edge import UNREADABLE, Edge, add_headers
from controlplane.api.routing import BODY_LIMIT_BYTES, Route, Section
from controlplane.api.services import Services

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECTIONS: Final[tuple[Section, ...]] = (
    checkpoints.SECTION,
    uploads.SECTION,
    insights.SECTION,
    restores.SECTION,
    clusters.SECTION,
    nodes.SECTION,
    pods.SECTION,
    registries.SECTION,
    config_registries.SECTION,
    config_clusters.SECTION,
    config_caches.SECTION,
    config_users.SECTION,
    config_secrets.SECTION,
    automation.SECTION,
    watchers.SECTION,
    hooks.SECTION,
    imagetags.SECTION,
    jobs.SECTION,
    progress.SECTION,
    operations.SECTION,
    audit.SECTION,
    deprecated.SECTION,
    documentation.SECTION,
)


def routes() -> tuple[Route, ...]:
    """Every route of the API, in the order in which they are tried."""
    found = [route for section in SECTIONS for route in section.routes]
    # literal segments win over parameters: /cluster/status/summary is no cluster's name
    return tuple(sorted(found, key=lambda route: "{" in route.path))


@functools.cache
def description() -> bytes:
    """The API as an OpenAPI 3.1 document (JSON). Made once: routes are the program's own."""
    return msgspec.json.encode(openapi.document(SECTIONS, routes()))


def application(services: Services) -> web.Application:
    """The API as an aiohttp application, ready to be run."""
    endpoints: dict[Handler, Route] = {}
    app = web.Application(client_max_size=BODY_LIMIT_BYTES + 1)
    has_own_head = {route.path for route in routes() if route.method == "HEAD"}
    for route in routes():
        handler = _mounted(route)
        endpoints[handler] = route
        for method in route.methods:
            if method == route.method or route.path not in has_own_head:
                app.router.add_route(method, route.path, handler)
    app[documentation.DESCRIPTION] = description()
    edge = Edge(services, endpoints)
    app[UNREADABLE] = edge.unreadable

    @web.middleware
    async def at_the_edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await edge.handle(request, handler)

    app.middlewares.append(at_the_edge)
    app.on_response_prepare.append(add_headers)
    return app


def _mounted(route: Route) -> Handler:
    """What aiohttp's router finds; the edge knows the route by it and never calls it."""

    async def endpoint(_request: web.Request) -> web.StreamResponse:
        raise AssertionError(f"{route.path} was called without the edge")

    return endpoint
