"""The nodes' root tree and what is laid into it, made once per recipe and kept in the cache.

Every builder works in a folder of its own and renames it into place, so a run that was killed leaves nothing that
looks finished, and two runs at once don't meet.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.devnode.instance import cache_root

SUITE: Final = "forky"
MIRROR: Final = "http://deb.debian.org/debian"
PACKAGES: Final = (
    "criu",
    "runc",
    "crun",
    "libcriu2",
    "conmon",
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "nftables",
    "conntrack",
    "kmod",
    "busybox-static",
    "catatonit",
    "jq",
    "procps",
    "ca-certificates",
    "checkpointctl",
    "skopeo",
    "umoci",
    "docker-registry",
    "etcd-server",
    "redis-server",
    "python3",
    "python3-minimal",
)
LEASHED: Final = ("setpriv", "--pdeathsig", "KILL", "--")  # ends with us, even if we are killed
SCRIPTS: Final = Path("/usr/share/debootstrap/scripts")
REPOSITORY: Final = Path(__file__).resolve().parents[2]

Say = Callable[[str], None]


class BuildFailed(RuntimeError):
    """A part of the nodes could not be made; the message says which and where its log is."""


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What every node is made of: the root tree, and the agent's Python packages for its interpreter."""

    root: Path
    site: Path

    def tool(self, name: str) -> list[str]:
        """argv that runs a program of the tree on this machine, on this machine's own paths."""
        loader = next(self.root.glob("usr/lib/*/ld-linux*.so.*"), None) or next(
            self.root.glob("usr/lib64/ld-linux*.so.*")
        )
        libraries = next(self.root.glob("usr/lib/*-linux-gnu*"))
        return [str(loader), "--library-path", str(libraries), str(self.root / "usr/bin" / name)]

    @property
    def python_version(self) -> str:
        """Of the tree's interpreter, as ``3.14``."""
        return (self.root / "usr/bin/python3").readlink().name.removeprefix("python")


def ready_parts(say: Say) -> NodeParts:
    """Find or make everything nodes are made of (under a minute and a half when nothing is cached).

    Raises:
        BuildFailed: debootstrap or pip failed.
    """
    root = cached("root", [SUITE, *PACKAGES], lambda out, log: debootstrap(out, log, PACKAGES), say)
    partial = NodeParts(root, root)
    wanted = [partial.python_version, *_agent_requirements()]
    site = cached("site", wanted, lambda out, log: _pip_install(partial, out, log), say)
    return NodeParts(root, site)


def _agent_requirements() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["agent"]]


def cached(name: str, recipe: list[str], build: Callable[[Path, Path], None], say: Say) -> Path:
    """The folder that ``build(folder, log)`` made from ``recipe``, built now if it is not there yet.

    Raises:
        BuildFailed: it could not be made; the message names the log.
    """
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    cache = cache_root()
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / f"{name}-{key}"
    with locked(cache / f"{name}.lock"):
        if done.is_dir():
            return done
        say(f"making the nodes' {name} (kept in {done})")
        partial, log = cache / f"{name}-{key}.partial", cache / f"{name}.log"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            build(partial, log)
        except (subprocess.CalledProcessError, OSError) as cause:
            raise BuildFailed(f"the nodes' {name} could not be made; see {log}") from cause
        else:
            partial.rename(done)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # there only if it is not whole
    return done


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file lock ``path``; waits for whoever has it."""
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def debootstrap(out: Path, log: Path, packages: Sequence[str], suite: str = SUITE) -> None:
    """A tree of one of Debian's suites with ``packages``.

    Older debootstraps don't know the newest names yet but follow sid's script. In namespaces of its own: what it
    starts and mounts below ``out`` is gone with it, also when it is killed.
    """
    apart = [*LEASHED, "unshare", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "--"]
    argv = [
        *apart,
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        suite,
        str(out),
    ]
    script = [] if (SCRIPTS / suite).exists() else [str(SCRIPTS / "sid")]
    with log.open("w") as sink:
        subprocess.run(
            [*argv, MIRROR, *script], check=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
    for unneeded in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(out / unneeded, ignore_errors=True)


def _pip_install(parts: NodeParts, out: Path, log: Path) -> None:
    """The agent's dependencies as wheels for the tree's interpreter: nodes have no way to the internet."""
    argv = [
        *LEASHED,
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--target",
        str(out),
    ]
    only = [
        "--python-version",
        parts.python_version,
        "--implementation",
        "cp",
        "--only-binary=:all:",
    ]
    with log.open("w") as sink:
        subprocess.run(
            [*argv, *only, *_agent_requirements()],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
