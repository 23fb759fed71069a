"""The program: opens the store, has the rooms composed, serves until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc.aio
from aiohttp import web

from controlplane import api, logs
from controlplane.api.serving import Runner
from controlplane.background import Background
from controlplane.composing import ControlPlane, compose
from controlplane.errors import Broken
from controlplane.link import listening
from controlplane.settings import Settings
from controlplane.store.database import open_store
from controlplane.store.secrets import open_sealer

# a stop takes at most 10 s: requests, then agents, then what runs in the background (3 s)
_REQUESTS_S: Final = 4.0
_AGENTS_S: Final = 1.0
_DAY_S: Final = 86_400.0
_log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads certificates and the log's level again.

    Raises:
        Broken: it can't start; the message says why.
    """
    background = Background()
    store = await asyncio.to_thread(open_store, settings.data_dir)
    try:
        sealer = await asyncio.to_thread(open_sealer, settings.data_dir, settings.secret_key_file)
        control = await compose(settings, store, sealer, background)
        await _first_administrator(control)
        async with _agents(control), _requests(control, background):
            await _until_stopped(control)
            # whoever waits for a job answers now, before the listeners close
            control.jobs.close()
            control.hub.close()
        await background.stop()
        await control.services.cluster_apis.close()
    finally:
        await asyncio.to_thread(store.close)
    _log.info("stopped")


async def _first_administrator(control: ControlPlane) -> None:
    made_up = await control.services.users.make_first_administrator(control.settings.admin_password)
    if made_up is not None:  # shown once, on the terminal, never in a log
        sys.stderr.write(f"The first user is admin, its password is {made_up}\n")
        sys.stderr.flush()


@asynccontextmanager
async def _agents(control: ControlPlane) -> AsyncIterator[grpc.aio.Server]:
    """Answer agents for the block."""
    server = await listening.listen(control.settings.grpc_addr, control.certificate, control.link)
    try:
        yield server
    finally:
        await server.stop(_AGENTS_S)


@asynccontextmanager
async def _requests(control: ControlPlane, background: Background) -> AsyncIterator[None]:
    """Answer users for the block, and look after the nodes."""
    settings = control.settings
    runner = Runner(api.application(control.services), _REQUESTS_S)
    await runner.setup()
    context = _http_tls(settings)
    try:
        address = settings.http_addr
        site = web.TCPSite(runner, address.host, address.port, ssl_context=context)
        try:
            await site.start()
        except OSError as cause:
            raise Broken(
                f"SNAP_HTTP_ADDR: {address} can't be listened on ({cause.strerror}).",
                details=str(cause),
            ) from cause
        _log.info("REST on %s://%s", "https" if context else "http", address)
        background.spawn(_forever(control.liveness.run(), "looking after nodes"), "liveness")
        background.spawn(_forever(control.following.run(), "following clusters"), "following")
        background.spawn(_forever(control.recorder.run(), "writing events"), "events")
        background.spawn(_forever(control.services.watchers.run(), "watchers"), "watchers")
        background.spawn(_forever(control.services.hooks.run(), "hooks"), "hooks")
        background.spawn(_forever(control.hook_servers.run(), "admission"), "admission")
        background.spawn(_forever(_daily(control, context), "daily chores"), "daily")
        _on_hangup(control, context, background)
        yield
    finally:
        await runner.cleanup()


async def _until_stopped(control: ControlPlane) -> None:
    """Return at the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _log.info("ready, data in %s", control.settings.data_dir)
    await stop.wait()
    _log.info("stopping")


def _on_hangup(
    control: ControlPlane, context: ssl.SSLContext | None, background: Background
) -> None:
    """Read certificates and the log's level again at SIGHUP."""

    def reload() -> None:
        _log.info("log level is %s", logs.set_level(control.settings))
        background.spawn(_reload(control, context), "reload certificates")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


async def _reload(control: ControlPlane, context: ssl.SSLContext | None) -> None:
    changed = await asyncio.to_thread(control.certificate.reload)
    _log.info("certificate for agents %s", "reloaded" if changed else "unchanged")
    if context is not None:
        try:
            await asyncio.to_thread(_load_chain, context, control.settings)
        except Broken as failure:
            _log.error("the certificate for REST stays as it was: %s", failure.message)


async def _daily(control: ControlPlane, context: ssl.SSLContext | None) -> None:
    """Renew the certificate that was made here, and the nodes' grants, long before they end."""
    while True:
        await asyncio.sleep(_DAY_S)
        await _reload(control, context)
        await control.announcer.refresh()


async def _forever(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - logged, and it ends the program
        # the server without these chores is worse than no server: a supervisor starts it anew
        _log.exception("%s failed; stopping", name)
        signal.raise_signal(signal.SIGTERM)


def _http_tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.http_tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_chain(context, settings)
    return context


def _load_chain(context: ssl.SSLContext, settings: Settings) -> None:
    chain, key = settings.http_tls_cert_file, settings.http_tls_key_file
    try:
        context.load_cert_chain(chain or Path(), key)
    except (OSError, ssl.SSLError) as cause:
        raise Broken(
            f"{chain} and {key} can't be used for REST over TLS.", details=str(cause)
        ) from cause
