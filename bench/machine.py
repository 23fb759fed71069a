"""The machine that figures were taken on: what it is, and what its processor and disk can do on their own."""

from __future__ import annotations

import hashlib
import mmap
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zstandard

from bench.lab import Lab

_STEP: Final = 4 << 20
_WRITE_STEPS: Final = 128
_VERSIONS: Final = {
    "runc": ("runc", "--version"),
    "criu": ("criu", "--version"),
    "containerd": ("containerd", "--version"),
    "registry": ("docker-registry", "--version"),
}


def outline() -> dict[str, object]:
    """Processor, cores, kernel, and how busy the machine is."""
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def facts(lab: Lab) -> dict[str, object]:
    """The outline, and memory, disk, versions, the limits of this minute."""
    return {
        **outline(),
        "memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1
        ),
        "disk": _output(["stat", "-f", "-c", "%T", str(lab.scratch)]),
        **{name: lab.node.run(argv).stdout.splitlines()[0] for name, argv in _VERSIONS.items()},
        "buildah": _output(["buildah", "--version"]),
        **_limits(lab),
    }


def _limits(lab: Lab) -> dict[str, float]:
    """MB/s of one core hashing and compressing heap-like pages, and of the disk."""
    page = os.urandom(2048) + bytes(2048)
    block = b"".join(os.urandom(2048) + page[2048:] for _ in range(_STEP // 4096))
    compress = zstandard.ZstdCompressor(level=1).compress
    return {
        "sha256_mb_per_s": _rate(lambda: hashlib.sha256(block).digest()),
        "zstd1_mb_per_s": _rate(lambda: compress(block)),
        **_disk_rates(lab.scratch / "written", block),
    }


def _rate(step: Callable[[], object]) -> float:
    began, rounds = time.monotonic(), 0
    while time.monotonic() < began + 0.5:
        step()
        rounds += 1
    return round(rounds * _STEP / 1e6 / (time.monotonic() - began))


def _disk_rates(path: Path, block: bytes) -> dict[str, float]:
    """Written and on the disk; read from the disk."""
    os.sync()
    began = time.monotonic()
    with path.open("wb") as out:
        for _ in range(_WRITE_STEPS):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    written_s = time.monotonic() - began
    began, buffer = time.monotonic(), mmap.mmap(-1, _STEP)  # direct reads want whole pages
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    while os.readv(descriptor, [buffer]):
        pass
    os.close(descriptor)
    read_s = time.monotonic() - began
    path.unlink()
    size_mb = _WRITE_STEPS * _STEP / 1e6
    return {
        "disk_write_mb_per_s": round(size_mb / written_s),
        "disk_read_mb_per_s": round(size_mb / read_s),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return platform.machine()


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
