"""The two servers, each one process; what they cost."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.devnode.ports import free_port

START_S: Final = 60.0
PASSWORD: Final = "a-password-for-the-bench"  # noqa: S105 - of a server that lives for a minute
RIVAL: Final = ("fastapi==0.121.*", "uvicorn[standard]==0.38.*", "msgspec>=0.20")


@dataclass(frozen=True, slots=True)
class Served:
    """A running server.

    Attributes:
        token: proves who asks; empty where nobody wants to know.
    """

    port: int
    process: psutil.Process
    token: str = ""

    def cpu_s(self) -> float:
        """Processor time used so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def memory_bytes(self) -> int:
        """Memory of its own (USS)."""
        return int(self.process.memory_full_info().uss)


@contextmanager
def ours(data_dir: Path) -> Iterator[Served]:
    """The control plane on the store in ``data_dir``."""
    port, agents = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "SNAP_DATA_DIR": str(data_dir),
        "SNAP_HTTP_ADDR": f"127.0.0.1:{port}",
        "SNAP_GRPC_ADDR": f"127.0.0.1:{agents}",
        "SNAP_HOOK_ADDR": f"127.0.0.1:{free_port()}",
        "SNAP_ADMIN_PASSWORD": PASSWORD,
        "SNAP_RATE_LIMIT_USER": "0",
        "SNAP_RATE_LIMIT_ANONYMOUS": "0",
        "SNAP_LOG_LEVEL": "info",
    }
    with running([sys.executable, "-m", "controlplane"], environment, port, "/ready") as process:
        yield Served(port, process, log_in(port))


@contextmanager
def rival(folder: Path, database: Path) -> Iterator[Served]:
    """FastAPI under uvicorn with its fast extras, on the same database; ``folder`` keeps its venv."""
    python = _environment(folder)
    port = free_port()
    here = Path(__file__).resolve().parent
    argv = [str(python), "-m", "uvicorn", "rival:app", "--app-dir", str(here)]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "error"]
    environment = {"PATH": os.environ["PATH"], "RIVAL_DATABASE": str(database)}
    with running(argv, environment, port, "/cluster/statistics") as process:
        yield Served(port, process)


def _environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if not (folder / "bin" / "uvicorn").exists():
        install = [str(python), "-m", "pip", "install", "--quiet", *RIVAL]
        subprocess.run(install, check=True, stdin=subprocess.DEVNULL)
    return python


@contextmanager
def running(
    argv: list[str], environment: Mapping[str, str], port: int, path: str
) -> Iterator[psutil.Process]:
    """The process ``argv``, from when it answers ``path`` on.

    Raises:
        RuntimeError: it does not start.
    """
    process = subprocess.Popen(
        argv, env=dict(environment), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[:4]} did not start")
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def log_in(port: int, username: str = "admin") -> str:
    """A token of a user, whose password is the bench's."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps({"username": username, "password": PASSWORD})
    connection.request("POST", "/config/user/login", body, {"Content-Type": "application/json"})
    token: str = json.load(connection.getresponse())["token"]
    connection.close()
    return token
