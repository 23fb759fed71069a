"""What keeps the control plane running: is it alive, is it ready, its figures."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from controlplane import __version__
from controlplane.api import metrics
from controlplane.api.calls import Call, Reply
from controlplane.api.routing import Section

SECTION: Final = Section("Operations", "For load balancers, Kubernetes and Prometheus.")


class About(msgspec.Struct, frozen=True):
    """What answers here."""

    name: str
    version: str
    message: str
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    success: bool = True


class Health(msgspec.Struct, frozen=True):
    """Alive."""

    status: str = "ok"
    success: bool = True


class CheckAnswer(msgspec.Struct, frozen=True):
    """One thing that must work."""

    name: str
    ok: bool
    message: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests can be served, and if not why."""

    success: bool
    status: str
    checks: list[CheckAnswer]


@SECTION.route("GET", "/", needs=None, gives=About)
async def about(call: Call) -> About:  # noqa: ARG001 - the same for everybody
    """What answers here."""
    return About("SNAP", __version__, "SNAP API: see /docs")


@SECTION.route("GET", "/health", needs=None, counted=False, gives=Health)
async def health(call: Call) -> Health:  # noqa: ARG001
    """Whether the process lives."""
    return Health()


@SECTION.route("GET", "/ready", needs=None, counted=False, gives=Readiness, accepts=(503,))
async def ready(call: Call) -> Reply:
    """Whether the store and the listeners work; 503 if not."""
    checks = await call.services.checks()
    fine = all(check.ok for check in checks)
    answer = Readiness(
        success=fine,
        status="ready" if fine else "not_ready",
        checks=[CheckAnswer(c.name, c.ok, c.message) for c in checks],
    )
    return Reply(answer, 200 if fine else 503)


@SECTION.route("GET", "/metrics", needs=None, counted=False, media="text/plain")
async def figures(call: Call) -> web.Response:
    """Figures for Prometheus; they can be closed, then they need a token."""
    if not call.services.settings.metrics_open:
        _ = call.actor
    return web.Response(
        body=call.services.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE}
    )
