"""``/openapi.json`` and ``/docs``: Swagger UI from the packaged assets of ``offapi``, nothing from elsewhere."""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
from typing import Any, Final

import msgspec
from aiohttp import web

from controlplane.api.calls import Call
from controlplane.api.fields import FileName
from controlplane.api.routing import Section

SECTION: Final = Section("Documentation", "This description, for programs and for people.")
DESCRIPTION: Final = web.AppKey("description", bytes)
_ASSETS: Final = {
    "swagger_bundle.js": "text/javascript",
    "swagger_style.css": "text/css",
}
# the bundle sets styles by itself and draws its icons from data: URLs
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SNAP API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/swagger_style.css"></head>
<body><div id="docs"></div>
<script src="/docs/swagger_bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""
# after a login the token is taken over, so that "try it out" works at once
_START: Final = """window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#docs", deepLinking: true, persistAuthorization: false,
  displayRequestDuration: true, docExpansion: "list", filter: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  responseInterceptor: function (answer) {
    if (answer.url.endsWith("/config/user/login") && answer.ok && answer.body && answer.body.token) {
      window.ui.preauthorizeApiKey("token", answer.body.token);
    }
    return answer;
  }
});
"""


class Asset(msgspec.Struct, frozen=True):
    """One file of the documentation page."""

    file: FileName


@SECTION.route("GET", "/openapi.json", needs=None, gives=dict[str, Any])
async def openapi(call: Call) -> web.Response:
    """This API as OpenAPI 3.1."""
    return web.Response(body=call.request.app[DESCRIPTION], content_type="application/json")


@SECTION.route("GET", "/docs", needs=None, counted=False, media="text/html")
async def docs(call: Call) -> web.Response:  # noqa: ARG001
    """This API as a page to read and try."""
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return web.Response(text=_PAGE, content_type="text/html", headers=headers)


@SECTION.route(
    "GET",
    "/docs/{file}",
    needs=None,
    counted=False,
    takes=Asset,
    media="application/octet-stream",
    errors=("NOT_FOUND",),
)
async def docs_file(call: Call, wanted: Asset) -> web.Response:  # noqa: ARG001
    """Script and style of the page."""
    headers = {"Cache-Control": "public, max-age=86400"}
    if wanted.file == "start.js":
        return web.Response(text=_START, content_type="text/javascript", headers=headers)
    kind = _ASSETS.get(wanted.file)
    if kind is None:
        raise web.HTTPNotFound
    body = await asyncio.to_thread(_asset, wanted.file)
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)


@functools.cache
def _asset(name: str) -> bytes:
    return importlib.resources.files("offapi").joinpath(name).read_bytes()
