"""One Kubernetes API server: reach it, read from it.

Source: the ``kubernetes`` client's ``Configuration`` and ``ApiClient``; the Kubernetes API reference for paths.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

CONNECT_S: Final = 4.0
READ_S: Final = 15.0
CALL_S: Final = (
    CONNECT_S + READ_S + 6.0
)  # above the client's own two, so that its reason comes first


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster's API server; for one call, never stored or logged.

    Attributes:
        server: ``https://host:port``; with a kubeconfig its own address counts when this is empty.
        token: of a service account.
        kubeconfig: as text.
        in_cluster: the control plane runs as a pod there, and uses its own account.
    """

    cluster: str
    server: str = ""
    verify_ssl: bool = True
    token: str = field(default="", repr=False)
    kubeconfig: str = field(default="", repr=False)
    in_cluster: bool = False


async def version(access: Access) -> str:
    """The server's version, such as ``v1.34.2``: it answers, and takes the credential.

    Raises:
        Failed: CLUSTER_CONNECTION_FAILED; ``details`` begins with ``unauthorized:``, ``unreachable:`` or
            ``certificate:``.
    """
    await get(access, "/api/v1/namespaces?limit=1")  # /version answers to anybody
    found = await get(access, "/version")
    return str(found.get("gitVersion", ""))


async def pods(access: Access) -> list[dict[str, Any]]:
    """Every pod of the cluster, as the API server has it; raises as ``version``."""
    found = await get(access, "/api/v1/pods")
    items = found.get("items") or []
    return [item for item in items if isinstance(item, dict)]


async def get(access: Access, path: str) -> dict[str, Any]:
    """What a GET of ``path`` answers; raises as ``version``."""
    try:
        async with asyncio.timeout(CALL_S):
            return await asyncio.to_thread(_get, access, path)
    except TimeoutError as cause:
        raise _failed(access, f"unreachable: no answer within {CALL_S:g} s") from cause


def _get(access: Access, path: str) -> dict[str, Any]:
    import urllib3  # noqa: PLC0415 - with kubernetes half a second, for those without a cluster too
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415

    # whoever sets verify_ssl to false was told what that means
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    try:
        with _client(access) as client:
            # the pool below the generated client: its own methods differ between its releases
            answer = client.rest_client.pool_manager.request(
                "GET",
                client.configuration.host + path,
                headers=_headers(client.configuration.auth_settings()),
                timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
                retries=False,
                redirect=False,  # nobody else is shown the credential
            )
            status, body = answer.status, answer.data
    except urllib3.exceptions.SSLError as cause:
        raise _failed(access, f"certificate: {_plain(cause)}") from cause
    except (urllib3.exceptions.HTTPError, ConfigException, OSError, ValueError) as cause:
        raise _failed(access, f"unreachable: {_plain(cause)}") from cause
    if status in (401, 403):
        raise _failed(access, f"unauthorized: the API server answered {status}")
    if status != HTTPStatus.OK:
        raise _failed(access, f"unreachable: the API server answered {status}")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as cause:
        raise _failed(access, "unreachable: what answers there is no API server") from cause


def _headers(auth: Mapping[str, Any]) -> dict[str, str]:
    """What proves who asks, as the client's configuration has it."""
    headers = {"Accept": "application/json"}
    for way in auth.values():
        if way.get("in") == "header" and way.get("value"):
            headers[str(way["key"])] = str(way["value"])
    return headers


@contextmanager
def _client(access: Access) -> Iterator[ApiClient]:
    """A client for the block; the files that a kubeconfig's certificates need are gone after it."""
    from kubernetes import client, config  # noqa: PLC0415

    settings = client.Configuration()
    with tempfile.TemporaryDirectory(prefix="snap-kube-") as folder:
        if access.in_cluster:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        elif access.kubeconfig:
            config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]
                yaml.safe_load(access.kubeconfig),
                client_configuration=settings,
                persist_config=False,
                temp_file_path=folder,
            )
        else:
            settings.api_key = {"authorization": f"Bearer {access.token}"} if access.token else {}
        if access.server and not access.in_cluster:
            settings.host = access.server
        settings.verify_ssl = settings.verify_ssl and access.verify_ssl
        with client.ApiClient(settings) as made:
            try:
                yield made
            finally:
                made.rest_client.pool_manager.clear()  # closes the connection; its own end does not


def _plain(cause: object) -> str:
    """The client's words on one line, without the objects' addresses in memory."""
    text = " ".join(str(cause).split())
    return text.rpartition("object at 0x")[2].partition(">: ")[2] or text[:300]


def _failed(access: Access, details: str) -> Failed:
    return Failed(
        f"The API server of cluster {access.cluster} can't be used with the stored credential; "
        "check its address and credential.",
        code=CLUSTER_CONNECTION_FAILED,
        details=details,
    )
