"""The names, addresses and folders of one instance: several can run side by side on a machine."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE_ROOT: Final = Path("/var/lib/snap-dev")
NODE_NUMBERS: Final = (1, 2)
BASE_REGISTRY_PORT: Final = 5000
CHECKPOINT_REGISTRY_PORT: Final = 5001
_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,7}")  # a bridge's name holds 15 characters


def cache_root() -> Path:
    """Where downloads and built trees are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "snap-dev"


@dataclass(frozen=True, slots=True)
class Instance:
    """One set of nodes and registries, told apart from others by its name alone.

    Raises:
        ValueError: the name can't name a bridge.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} can't name an instance: 1-8 of a-z and 0-9, a letter first"
            )

    @property
    def subnet(self) -> int:
        """The third number of its addresses: 0 for ``dev``, else drawn from the name."""
        return 0 if self.name == "dev" else 1 + zlib.crc32(self.name.encode()) % 254

    @property
    def bridge(self) -> str:
        """The bridge that joins its nodes and this machine."""
        return f"snap-{self.name}"

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge; the registries listen there."""
        return f"10.66.{self.subnet}.1"

    def address(self, node: int) -> str:
        """Node ``node``'s address on the bridge."""
        return f"10.66.{self.subnet}.{10 + node}"

    def pod_range(self, node: int) -> str:
        """The addresses of pods on node ``node``."""
        return f"10.{88 + node}.{self.subnet}.0/24"

    def veth(self, node: int) -> str:
        """This machine's end of node ``node``'s cable."""
        return f"snv-{self.name}-{node}"

    @property
    def state(self) -> Path:
        """Everything that lives only as long as the instance."""
        return STATE_ROOT / self.name

    @property
    def lock_file(self) -> Path:
        """Held by whoever starts, uses or stops the instance."""
        return STATE_ROOT / f"{self.name}.lock"

    @property
    def cgroup(self) -> str:
        """Parent of every cgroup that the instance's processes are in."""
        return f"snap-dev-{self.name}"

    @property
    def base_registry(self) -> str:
        """host:port of the registry of base images (anyone may pull)."""
        return f"{self.gateway}:{BASE_REGISTRY_PORT}"

    @property
    def checkpoint_registry(self) -> str:
        """host:port of the registry of checkpoint images (behind a password)."""
        return f"{self.gateway}:{CHECKPOINT_REGISTRY_PORT}"
