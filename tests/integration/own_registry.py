"""A docker-registry of one's own: TLS, a password, killable, with whatever port is free."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import bcrypt

from agent.formats.jobs import RegistryAccess
from deploy.devnode import rootfs, tls
from deploy.devnode.ports import free_port

USER, PASSWORD = "snap", "secret"
_READY_S = 60.0


class OwnRegistry:
    """The real registry as a child process; ``folder`` keeps its content over ``kill`` and ``start``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.port = free_port()
        made = tls.make(folder / "tls", "127.0.0.1")
        self.ca_pem = made.ca.read_text()
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
        self._config = folder / "config.yml"
        self._config.write_text(
            f"version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/storage}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}', "
            f"tls: {{certificate: {made.certificate}, key: {made.key}}}}}\n"
            f"auth: {{htpasswd: {{realm: snap, path: {folder}/htpasswd}}}}\n"
        )
        self._coming: threading.Timer | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def access(self) -> RegistryAccess:
        return RegistryAccess(self.host, USER, PASSWORD, ca_pem=self.ca_pem)

    @property
    def uploads(self) -> list[Path]:
        """Blobs that are half-done."""
        return list((self._folder / "storage").rglob("_uploads/*/data"))

    @property
    def stored_blobs(self) -> dict[Path, int]:
        """Every blob's file and when it was written."""
        found = (self._folder / "storage").rglob("blobs/sha256/*/*/data")
        return {path: path.stat().st_mtime_ns for path in found}

    @property
    def tags(self) -> list[Path]:
        """What is visible."""
        return list((self._folder / "storage").rglob("_manifests/tags/*"))

    def blob_files(self, hexdigest: str) -> list[Path]:
        """The file of a blob."""
        return list((self._folder / "storage").rglob(f"blobs/sha256/*/{hexdigest}/data"))

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("docker-registry")
        argv = [program] if program else rootfs.ready_parts(print).tool("docker-registry")
        env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, "serve", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env | {"OTEL_TRACES_EXPORTER": "none"},
            )
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)  # polling a process that has no better way to say it is there
            else:
                return
        raise AssertionError((self._folder / "log").read_text())

    def kill_and_come_back(self, after_s: float) -> None:
        """``kill -9`` now, ``start`` in a while; ``wait_back`` waits for it."""
        self.kill()
        self._coming = threading.Timer(after_s, self.start)
        self._coming.start()

    def wait_back(self) -> None:
        """Return when it is there again."""
        if self._coming is not None:
            self._coming.join()

    def kill(self) -> None:
        """``kill -9``; killing it twice is harmless."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
