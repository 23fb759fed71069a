"""The container runtimes that a node of the cluster can have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.devcluster import programs
from deploy.devcluster.crio import Crio
from deploy.devcluster.gomodules import Recipe
from deploy.devnode import node
from deploy.devnode.instance import Instance
from deploy.devnode.node import Fittings
from deploy.devnode.rootfs import Say

DEFAULT: Final = "containerd-2.1.9"  # Debian's, in the nodes' tree
_PROGRAMS: Final = "/opt/containerd"


@dataclass(frozen=True, slots=True)
class Containerd:
    """containerd, Debian's or one that is built (``recipe``)."""

    name: str
    recipe: Recipe | None = None
    socket: str = "/run/containerd/containerd.sock"

    def ready(self, say: Say) -> Path | None:
        """The folder of its programs, built now if need be."""
        return None if self.recipe is None else programs.ready(self.recipe, say)

    def fittings(self, instance: Instance, number: int, ca: Path, built: Path | None) -> Fittings:
        """What node ``number`` needs for it."""
        common = node.fittings(instance, number, ca)
        if built is None:
            return common
        script = f"PATH={_PROGRAMS}:$PATH; exec containerd --config /etc/containerd/config.toml"
        return common | Fittings(binds={_PROGRAMS: built}, services={"containerd": script})


Runtime = Containerd | Crio
_ALL: Final[tuple[Runtime, ...]] = (
    Containerd(DEFAULT),
    *(Containerd(name, recipe) for name, recipe in programs.CONTAINERD.items()),
    Crio(programs.CRIO),
)
_RUNTIMES: Final = {runtime.name: runtime for runtime in _ALL}
NAMES: Final = tuple(_RUNTIMES)


def named(name: str) -> Runtime:
    """The runtime called ``name``.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in _RUNTIMES:
        raise ValueError(f"there is no runtime {name}; choose one of {', '.join(NAMES)}")
    return _RUNTIMES[name]
