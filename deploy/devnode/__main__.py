"""``python -m deploy.devnode up|down|status|exec|refresh``: the nodes by hand."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from deploy.devnode import lifecycle, node
from deploy.devnode.instance import Instance
from deploy.devnode.lifecycle import Running


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev node", description="Real container nodes on this machine."
    )
    parser.add_argument("--instance", default=os.environ.get("SNAP_DEV_INSTANCE", "dev"))
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start two nodes and two registries")
    up.add_argument("--nodes", type=int, choices=(1, 2), default=2)
    commands.add_parser("down", help="stop and remove them")
    commands.add_parser("status", help="show addresses, sockets, passwords")
    commands.add_parser("refresh", help="copy snap-runc and snap-dump into the nodes again")
    run = commands.add_parser("exec", help="run a command inside a node")
    run.add_argument("node", type=int, choices=(1, 2))
    run.add_argument("argv", nargs=argparse.REMAINDER)
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(text, flush=True)


def _show(running: Running) -> None:
    for one in running.nodes:
        print(f"{one.name}: {one.address}, init {one.init_pid}, CRI unix://{one.cri_socket}")
    for registry in (running.base, running.checkpoints):
        state = "running" if registry.is_running else "down"
        secret = f", user {registry.user}, password {registry.password}" if registry.user else ""
        print(f"registry {registry.name}: https://{registry.host} ({state}{secret})")
    print(f"CA: {running.base.ca}")


def _exec(running: Running, number: int, argv: list[str]) -> int:
    words = argv[1:] if argv[:1] == ["--"] else argv
    found = [n for n in running.nodes if n.number == number]
    if not found:
        print(f"node{number} is not running", file=sys.stderr)
        return 1
    return subprocess.call(found[0].argv(words or ["bash", "-l"]), env=dict(node.ENVIRONMENT))


def main(argv: list[str]) -> int:
    """Do what the command line says; the exit status."""
    args = _parse(argv)
    instance = Instance(args.instance)
    if args.command in {"up", "down"}:
        with lifecycle.claimed(instance):
            if args.command == "down":
                lifecycle.down(instance)
                return 0
            _show(lifecycle.up(instance, _say, nodes=tuple(range(1, args.nodes + 1))))
            return 0
    running = lifecycle.find(instance)
    if running is None:
        print(f"instance {instance.name} is down", file=sys.stderr)
        return 1
    if args.command == "exec":
        return _exec(running, args.node, args.argv)
    if args.command == "refresh":
        for one in running.nodes:
            one.refresh()
        return 0
    _show(running)
    return 0


def run(argv: list[str]) -> int:
    """``main``, with one sentence instead of a traceback for what a person can put right."""
    lifecycle.interrupt_on_signals()
    try:
        return main(argv)
    except lifecycle.PROBLEMS as problem:
        print(f"dev node: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
