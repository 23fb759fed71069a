"""Kubeconfigs: kept when they carry all they need, refused when they reach for anything else."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from controlplane.clusters import kubeconfig
from controlplane.errors import Refused

FINE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "two",
    "contexts": [
        {"name": "one", "context": {"cluster": "c1", "user": "u"}},
        {"name": "two", "context": {"cluster": "c2", "user": "u"}},
    ],
    "clusters": [
        {"name": "c1", "cluster": {"server": "https://one:6443"}},
        {"name": "c2", "cluster": {"server": "https://two:6443"}},
    ],
    "users": [{"name": "u", "user": {"token": "t0ken"}}],
}


def _encoded(document: object) -> str:
    return base64.b64encode(msgspec.json.encode(document)).decode()


def _with(kind: str, inner: str, entry: dict[str, Any]) -> str:
    return _encoded(FINE | {kind: [{"name": "x", inner: {"server": "https://x"} | entry}]})


def test_the_current_context_names_the_server() -> None:
    read = kubeconfig.read(_encoded(FINE))
    assert read.server == "https://two:6443"
    assert "t0ken" not in repr(read)


@pytest.mark.parametrize(
    "content",
    [
        _with("users", "user", {"exec": {"command": "/bin/sh"}}),
        _with("users", "user", {"auth-provider": {"name": "gcp"}}),
        _with("users", "user", {"client-certificate": "/etc/x.pem"}),
        _with("users", "user", {"client-key": "/etc/x.key"}),
        _with("users", "user", {"tokenFile": "/var/run/token"}),
        _with("clusters", "cluster", {"certificate-authority": "/etc/ca.pem"}),
        _with("clusters", "cluster", {"proxy-url": "http://169.254.169.254"}),
        _encoded(FINE | {"clusters": []}),
        _encoded(FINE | {"users": "x"}),
        _encoded(FINE | {"users": [{"name": "u", "user": "x"}]}),
        _encoded(["no", "config"]),
        base64.b64encode(b"a: [1, b: {").decode(),
        base64.b64encode(b"!!python/object/apply:os.system ['true']").decode(),
        base64.b64encode(b"[" * 20_000).decode(),
        base64.b64encode(b"\xff\xfe").decode(),
        "not base64!",
        "A" * 400_000,
    ],
)
def test_these_are_refused(content: str) -> None:
    with pytest.raises(Refused) as refused:
        kubeconfig.read(content)
    assert "kubeconfig_content" in refused.value.message
