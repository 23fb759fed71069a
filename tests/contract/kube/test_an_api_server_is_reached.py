"""What is asked of an API server reaches it with the stored credential, and each way to fail says which it was."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed
from controlplane.kube import api
from controlplane.kube.api import Access
from tests.fakes import tls

TOKEN = "canary-token"
PODS = {"kind": "PodList", "items": [{"metadata": {"name": "test-app"}}]}
CERTIFICATES = tls.make()


class _ApiServer(BaseHTTPRequestHandler):
    """As an API server does for a token that may read pods."""

    def do_GET(self) -> None:
        if self.path == "/moved/version":
            self._say(302, b"", Location="https://elsewhere.example/")
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._say(401, b'{"kind": "Status"}')
        elif self.path == "/version":
            self._say(200, b'{"gitVersion": "v1.34.2"}')
        elif self.path == "/page/version":
            self._say(200, b"<html>")
        else:
            self._say(200, json.dumps(PODS).encode())

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    """Clients that break off are part of the tests."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Access]:
    """How to reach an API server with TLS that knows one token."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(CERTIFICATES.leaf)
    key.write_bytes(CERTIFICATES.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    with _Server(("127.0.0.1", 0), _ApiServer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, name="API server")
        thread.start()
        try:
            url = f"https://127.0.0.1:{server.server_port}"
            yield Access("c1", url, token=TOKEN, verify_ssl=False)
        finally:
            server.shutdown()
            thread.join()


def _kubeconfig(server: str) -> str:
    ca = base64.b64encode(CERTIFICATES.ca).decode()
    return json.dumps(
        {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {"name": "c", "cluster": {"server": server, "certificate-authority-data": ca}}
            ],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }
    )


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_token_opens_it(access: Access) -> None:
    assert await api.version(access) == "v1.34.2"
    assert await api.pods(access) == PODS["items"]


async def test_a_kubeconfig_opens_it_and_leaves_no_file(
    access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = _names(tmp_path)
    given = Access("c1", kubeconfig=_kubeconfig(access.server))
    assert await api.version(given) == "v1.34.2"
    assert _names(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "details"),
    [
        ({"token": "wrong"}, "unauthorized:"),
        ({"verify_ssl": True}, "certificate:"),
        ({"server": "https://127.0.0.1:9"}, "unreachable:"),
    ],
    ids=["token", "certificate", "port"],
)
async def test_each_way_to_fail_is_told(
    access: Access, change: dict[str, object], details: str
) -> None:
    with pytest.raises(Failed) as failure:
        await api.version(replace(access, **change))  # type: ignore[arg-type]
    assert failure.value.code == CLUSTER_CONNECTION_FAILED
    assert failure.value.details.startswith(details)
    assert TOKEN not in f"{failure.value.message} {failure.value.details} {access!r}"
    assert "0x" not in failure.value.details


@pytest.mark.parametrize("folder", ["/moved", "/page"])
async def test_what_is_no_api_server_is_refused(access: Access, folder: str) -> None:
    with pytest.raises(Failed) as failure:
        await api.get(replace(access, server=access.server + folder), "/version")
    assert failure.value.details.startswith("unreachable:")
