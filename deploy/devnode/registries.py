"""The two TLS registries of an instance: base images for anyone, checkpoint images behind a password.

Source: the distribution registry's configuration reference (version 0.1).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bcrypt

from deploy.devnode import processes
from deploy.devnode.instance import Instance
from deploy.devnode.processes import Launch
from deploy.devnode.rootfs import NodeParts
from deploy.devnode.tls import Certificates

USER: Final = "snap"


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry.

    Attributes:
        host: host:port as image names have it.
        user, password: empty for the one that everybody may use.
        storage: the folder of its content.
    """

    name: str
    host: str
    ca: Path
    state: Path
    cgroup: str
    argv: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def storage(self) -> Path:
        """The folder of its content."""
        return self.state / f"{self.name}-storage"

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.state / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.state / f"{self.name}.json"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            processes.NotReady: it did not come up.
        """
        self._start(self.argv)

    def keep(self) -> None:
        """Start it anew, and again whenever somebody kills it, as long as the instance is up.

        Raises:
            processes.NotReady: it did not come up.
        """
        self.kill()
        self._start(processes.again(*self.argv))

    def _start(self, argv: Sequence[str]) -> None:
        # it must not read this machine's settings of another registry from the environment
        env = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OTEL_"))}
        process = processes.start(Launch(argv, self.cgroup, self.log, env))
        started = processes.start_time(process.pid)
        self._record.write_text(json.dumps({"pid": process.pid, "started": started}))
        processes.wait_until(
            lambda: self.answers,
            f"registry {self.name}",
            timeout_s=60,
            log=self.log,
            alive=lambda: process.poll() is None,
        )

    def kill(self) -> None:
        """``kill -9``; ``start`` brings it back with what it had stored."""
        pid, started = self._seen()
        if pid and processes.is_running(pid, started):
            kept = [(child, processes.start_time(child)) for child in processes.children(pid)]
            for number, began in ((pid, started), *kept):  # first what would start it again
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
                processes.wait_gone(number, began)

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return processes.is_running(*self._seen())

    def _seen(self) -> tuple[int, str]:
        try:
            seen = json.loads(self._record.read_text())
        except FileNotFoundError:
            return 0, ""
        return seen["pid"], seen["started"]

    @property
    def answers(self) -> bool:
        """Whether it can be used."""
        context = ssl.create_default_context(cafile=str(self.ca))
        link = http.client.HTTPSConnection(self.host, timeout=3, context=context)
        try:
            link.request("GET", "/v2/")
            return link.getresponse().status in {200, 401}
        except (OSError, http.client.HTTPException):
            return False
        finally:
            link.close()


def base(instance: Instance, parts: NodeParts, certificates: Certificates) -> Registry:
    """The registry of base images."""
    config = _configure("base", instance, instance.base_registry, certificates, None)
    return Registry(
        "base",
        instance.base_registry,
        certificates.ca,
        instance.state,
        f"{instance.cgroup}/registries",
        (*parts.tool("docker-registry"), "serve", str(config)),
    )


def checkpoints(instance: Instance, parts: NodeParts, certificates: Certificates) -> Registry:
    """The registry of checkpoint images, with a password of this instance's own."""
    kept = instance.state / "checkpoints-password"
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(12))
    password = kept.read_text()
    entry = bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()
    users = instance.state / "htpasswd"
    users.write_text(f"{USER}:{entry}\n")
    config = _configure("checkpoints", instance, instance.checkpoint_registry, certificates, users)
    return Registry(
        "checkpoints",
        instance.checkpoint_registry,
        certificates.ca,
        instance.state,
        f"{instance.cgroup}/registries",
        (*parts.tool("docker-registry"), "serve", str(config)),
        USER,
        password,
    )


def _configure(
    name: str, instance: Instance, host: str, certificates: Certificates, users: Path | None
) -> Path:
    storage = instance.state / f"{name}-storage"
    storage.mkdir(exist_ok=True)
    tls = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage), "maxthreads": 100},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": host, "tls": tls, "secret": secrets.token_hex(8)},
    }
    if users is not None:
        settings["auth"] = {"htpasswd": {"realm": "snap", "path": str(users)}}
    config = instance.state / f"{name}.yml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    return config
