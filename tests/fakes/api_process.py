"""The real control plane as a process of its own, to be used, stopped and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from deploy.devnode.ports import free_port
from tests.fakes.node_agent import Place

PASSWORD = "a-password-for-tests"
START_S = 60.0


class ApiProcess:
    """``python -m controlplane`` on free ports of the loopback; kill and start it as you like."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.http_port, self.grpc_port = free_port(), free_port()
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._client: aiohttp.ClientSession | None = None
        self.token = ""

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(f"http://127.0.0.1:{self.http_port}")
        try:
            await self.start()
            answer = await self.call(
                "POST", "/config/user/login", {"username": "admin", "password": PASSWORD}
            )
            self.token = answer["token"]
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {
            "PATH": os.environ["PATH"],
            "SNAP_DATA_DIR": str(self.folder),
            "SNAP_HTTP_ADDR": f"127.0.0.1:{self.http_port}",
            "SNAP_GRPC_ADDR": f"127.0.0.1:{self.grpc_port}",
            "SNAP_ADMIN_PASSWORD": PASSWORD,
            "SNAP_RATE_LIMIT_USER": "0",
            "SNAP_RATE_LIMIT_ANONYMOUS": "0",
        } | self._settings
        log = (self.folder.parent / "api.log").open("ab")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "controlplane", env=environment, stderr=log, stdout=log
            )
        await until(self._is_up, START_S)

    async def kill(self) -> None:
        """End it as a power cut would."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> int:
        """End it by SIGTERM; its exit status."""
        return await self._signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Send SIGHUP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def call(
        self, method: str, path: str, body: Any = None, status: int = 200, **headers: str
    ) -> Any:
        """One request as the administrator; its JSON, after its status was checked."""
        assert self._client is not None
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._client.request(method, path, json=body, headers=sent) as response:
            text = await response.text()
            assert response.status == status, f"{method} {path}: {response.status} {text}"
            return await response.json(content_type=None) if text else None

    async def send(
        self, method: str, path: str, body: Any = None, raw: bytes | None = None
    ) -> tuple[int, bytes]:
        """One request as the administrator, whatever comes of it: status and body."""
        assert self._client is not None
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = raw if raw is not None else json.dumps(body).encode()
        async with self._client.request(method, path, data=content, headers=headers) as response:
            return response.status, await response.read()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    async def read(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """A GET as the administrator: status, headers, body."""
        assert self._client is not None
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        async with self._client.get(path, headers=sent) as response:
            return response.status, response.headers, await response.read()

    async def set_up(self, cluster: str = "dev", node: str = "node-1") -> Place:
        """Make a registry and a cluster; where and as whom an agent of it joins."""
        registry = {
            "name": "reg",
            "url": "https://registry.test:5000",
            "username": "robot",
            "password": "push-secret",
        }
        await self.call("POST", "/config/registry/create", registry)
        config = {
            "name": cluster,
            "api_server_url": "https://api.test:6443",
            "registry_name": "reg",
        }
        await self.call("POST", "/config/clusters/create", config)
        return await self.join_token(cluster, node)

    async def join_token(self, cluster: str = "dev", node: str = "node-1") -> Place:
        """A new join token of a cluster that exists."""
        given = await self.call("POST", f"/config/clusters/{cluster}/agent-token")
        target = f"127.0.0.1:{self.grpc_port}"
        return Place(target, given["ca_pem"], given["token"], cluster, node)

    async def _is_up(self) -> bool:
        assert self._client is not None
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError((self.folder.parent / "api.log").read_text())
        with contextlib.suppress(aiohttp.ClientError):
            async with self._client.get("/ready") as response:
                return response.status == 200
        return False

    async def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(15):
            return await self._process.wait()

    async def _end(self) -> None:
        if self._process is not None:
            await self.kill()
        if self._client is not None:
            await self._client.close()


async def until(condition: Callable[[], Awaitable[bool] | bool], timeout_s: float = 90.0) -> None:
    """Wait for a condition; fail when it is not there in time."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = condition()
            if isinstance(found, bool):
                if found:
                    return
            elif await found:
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[ApiProcess]:
    """A control plane with its data in ``folder``."""
    async with ApiProcess(folder, **settings) as api:
        yield api
