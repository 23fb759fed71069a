"""How to reach a cluster's API server, and the credential in the form that a connection takes.

Source: kubernetes.io/docs/reference/config-api/kubeconfig.v1 (fields); kubernetes.io/docs/tasks/run-application/
access-api-from-pod (the pod's own account: its files and environment).
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from controlplane.kube import answers

ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_GOOD_FOR_S: Final = 60.0  # the kubelet rotates it long before it expires


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster's API server; held in memory, never stored or logged.

    Attributes:
        server: ``https://host:port``; with a kubeconfig its own address counts when this is empty.
        token: of a service account.
        kubeconfig: as text.
        in_cluster: the control plane runs as a pod there, and uses its own account.
        account_dir: where that account's token and CA are mounted.
    """

    cluster: str
    server: str = ""
    verify_ssl: bool = True
    token: str = field(default="", repr=False)
    kubeconfig: str = field(default="", repr=False)
    in_cluster: bool = False
    account_dir: Path = ACCOUNT_DIR


class Credential:
    """What a connection needs.

    Attributes:
        server: ``https://host:port[/path]``.
        tls: None for plain HTTP.
    """

    def __init__(self, server: str, tls: ssl.SSLContext | None, token: str = "") -> None:
        self.server: Final = server.rstrip("/")
        self.tls: Final = tls
        self._authorization = f"Bearer {token}" if token else ""
        self._token_file: Path | None = None
        self._read_at = 0.0

    @classmethod
    def rotating(cls, server: str, tls: ssl.SSLContext, token_file: Path) -> Credential:
        """One whose token is read again from a file that is written anew from time to time."""
        made = cls(server, tls)
        made._token_file = token_file
        return made

    @classmethod
    def basic(cls, server: str, tls: ssl.SSLContext | None, login: str) -> Credential:
        """One with ``name:password``."""
        made = cls(server, tls)
        made._authorization = "Basic " + base64.b64encode(login.encode()).decode()
        return made

    async def headers(self) -> dict[str, str]:
        """What proves who asks.

        Raises:
            OSError: the token's file can't be read.
        """
        if self._token_file is not None and time.monotonic() > self._read_at + _TOKEN_GOOD_FOR_S:
            await self._read(self._token_file)
        return {"Authorization": self._authorization} if self._authorization else {}

    async def renew(self) -> bool:
        """Read the token again, after it was refused; whether it is another one now."""
        if self._token_file is None:
            return False
        before = self._authorization
        await self._read(self._token_file)
        return self._authorization != before

    async def _read(self, file: Path) -> None:
        token = await asyncio.to_thread(file.read_text)
        self._authorization, self._read_at = f"Bearer {token.strip()}", time.monotonic()


async def load(access: Access, environ: Mapping[str, str] = os.environ) -> Credential:
    """The credential that ``access`` describes.

    Raises:
        Failed: CLUSTER_CONNECTION_FAILED; it can't be used, ``details`` says why.
    """
    try:
        return await asyncio.to_thread(_load, access, environ)
    except ssl.SSLError as cause:
        raise answers.unusable(access.cluster, f"certificate: {answers.plain(cause)}") from cause
    except OSError as cause:
        raise answers.unusable(access.cluster, f"unreachable: {answers.plain(cause)}") from cause


def _load(access: Access, environ: Mapping[str, str]) -> Credential:
    if access.in_cluster:
        return _own_account(access, environ)
    if access.kubeconfig:
        return _from_kubeconfig(access)
    tls = _context(access.server, access.verify_ssl)
    return Credential(access.server, tls, _proper(access, access.token))


def _own_account(access: Access, environ: Mapping[str, str]) -> Credential:
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT")
    if not host:
        raise answers.unusable(
            access.cluster, "unreachable: the control plane does not run in a cluster"
        )
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    ca = (access.account_dir / "ca.crt").read_text()
    tls = _context(server, access.verify_ssl, ca)
    assert tls is not None  # noqa: S101 - it is https
    return Credential.rotating(server, tls, access.account_dir / "token")


def _from_kubeconfig(access: Access) -> Credential:
    """As a client of Kubernetes reads it; what would run or read something here was refused before."""
    try:
        document = yaml.safe_load(access.kubeconfig)
        context = _named(document, "contexts", document.get("current-context"), "context")
        cluster = _named(document, "clusters", context.get("cluster"), "cluster")
        user = _named(document, "users", context.get("user"), "user")
        ca = _bytes(cluster, "certificate-authority-data").decode("ascii")
        chain, key = _bytes(user, "client-certificate-data"), _bytes(user, "client-key-data")
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as cause:
        details = f"unreachable: the kubeconfig can't be used ({type(cause).__name__})"
        raise answers.unusable(access.cluster, details) from cause
    server = access.server or str(cluster.get("server") or "")
    verify = access.verify_ssl and not cluster.get("insecure-skip-tls-verify")
    tls = _context(server, verify, ca)
    if chain and tls is not None:
        _use_certificate(tls, chain, key)
    if not user.get("token") and user.get("username"):
        login = f"{user['username']}:{user.get('password') or ''}"
        return Credential.basic(server, tls, login)
    return Credential(server, tls, _proper(access, str(user.get("token") or "")))


def _proper(access: Access, token: str) -> str:
    """``token``, which goes into a header, if it can.

    Raises:
        Failed: it has spaces, control characters or letters beyond ASCII.
    """
    if not all("!" <= letter <= "~" for letter in token):
        details = "unauthorized: the stored token has characters that no token has; store it again"
        raise answers.unusable(access.cluster, details)
    return token


def _named(document: Any, kind: str, name: object, inner: str) -> dict[str, Any]:
    """The entry ``name`` of a kubeconfig's list; the first where none has that name."""
    entries = document.get(kind) or []
    for entry in [*(e for e in entries if e.get("name") == name), *entries]:
        found = entry.get(inner) or {}
        if isinstance(found, dict):
            return found
    return {}


def _bytes(entry: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(str(entry.get(key) or ""), validate=True)


def _context(server: str, verify: bool, ca: str = "") -> ssl.SSLContext | None:
    if not server.startswith("https://"):
        return None
    context = ssl.create_default_context(cadata=ca or None)
    # from Python 3.13 on it would refuse the CAs of clusters that older tools made
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:  # whoever sets verify_ssl to false was told what that means
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _use_certificate(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """``ssl`` takes them from a file only: this one has no name and is never on a disk."""
    descriptor = os.memfd_create("snap-client-certificate")
    try:
        os.write(descriptor, chain + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
