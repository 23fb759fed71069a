"""The measured servers, each with a core to itself, and the processes that load them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from bench.api import servers
from bench.api.servers import Served
from bench.fleet import plan
from controlplane.link import certificates
from deploy.devnode.ports import free_port

_REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Home:
    """A control plane's data and ports, which a restart keeps."""

    data_dir: Path
    http_port: int
    grpc_port: int

    def environment(self) -> dict[str, str]:
        """The control plane's settings."""
        return {
            "PATH": os.environ["PATH"],
            "SNAP_DATA_DIR": str(self.data_dir),
            "SNAP_HTTP_ADDR": f"127.0.0.1:{self.http_port}",
            "SNAP_GRPC_ADDR": f"127.0.0.1:{self.grpc_port}",
            "SNAP_HOOK_ADDR": f"127.0.0.1:{free_port()}",
            "SNAP_ADMIN_PASSWORD": servers.PASSWORD,
            "SNAP_RATE_LIMIT_USER": "0",
            "SNAP_RATE_LIMIT_ANONYMOUS": "0",
            "SNAP_LOG_LEVEL": "warning",
        }


@contextmanager
def control_plane(home: Home) -> Iterator[Served]:
    """The control plane at ``home``, on the measured core."""
    argv = plan.on_measured_core([sys.executable, "-m", "controlplane"])
    with servers.running(argv, home.environment(), home.http_port, "/ready") as process:
        yield Served(home.http_port, process, servers.log_in(home.http_port))


@contextmanager
def echo(folder: Path) -> Iterator[tuple[psutil.Process, str, str]]:
    """The bare server on the measured core: its process, address and CA."""
    made = certificates.made(folder, ())
    port = free_port()
    files = str(folder / "server.pem"), str(folder / "server.key")
    argv = plan.on_measured_core([sys.executable, "-m", "bench.fleet.echo", *files, str(port)])
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd=_REPOSITORY)
    try:
        yield psutil.Process(process.pid), f"127.0.0.1:{port}", made.ca_pem.decode()
    finally:
        process.terminate()
        process.wait(20)


class Helper:
    """A process of ours that is told lines and answers each by one of JSON."""

    def __init__(self, module: str, first: msgspec.Struct) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_REPOSITORY,
        )
        self._tell(msgspec.json.encode(first))

    def ask(self, words: str) -> Mapping[str, Any]:
        """Say ``words``; the answer. Blocks.

        Raises:
            RuntimeError: the process has ended.
        """
        self._tell(words.encode())
        return self.answer()

    def answer(self) -> Mapping[str, Any]:
        """The next answer. Blocks.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it; its sessions with it."""
        self._process.kill()
        self._process.wait(20)


@contextmanager
def helper(module: str, first: msgspec.Struct) -> Iterator[Helper]:
    """A ``Helper`` for the block."""
    started = Helper(module, first)
    try:
        yield started
    finally:
        started.close()
