"""``python -m deploy.images``: build both images; push them where one is asked for or a devnode runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from deploy.devnode import lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.rootfs import BuildFailed
from deploy.images import building

_INSTANCES: Final = ("dev", "cluster")  # those of ./dev node and ./dev cluster that are not named


def main(argv: list[str]) -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="dev images", description=__doc__)
    named = os.environ.get("SNAP_DEV_INSTANCE")
    parser.add_argument(
        "--instance", default=named, help="default: dev and cluster, where they run"
    )
    parser.add_argument("--registry", help="host:port to push to; default: the instance's own")
    parser.add_argument("--ca", type=Path, help="PEM file of the authority that vouches for it")
    args = parser.parse_args(argv)
    targets = [(args.registry, args.ca or building.AUTHORITIES)] if args.registry else []
    for name in () if targets else [args.instance] if args.instance else _INSTANCES:
        running = lifecycle.find(Instance(name))
        if running is not None:
            targets.append((running.base.host, running.base.ca))
    try:
        for layout in building.ready(lambda text: print(text, flush=True)).values():
            print(f"{layout.name}: {layout.size_bytes / 1e6:.1f} MB compressed, {layout.folder}")
            for host, ca in targets:
                print(f"  pushed: {layout.push(host, ca)}")
    except BuildFailed as problem:
        print(f"dev images: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
