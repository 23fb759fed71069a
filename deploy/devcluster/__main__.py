"""``python -m deploy.devcluster up|down|status|kubectl|helm|exec``: the cluster by hand."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from deploy.devcluster import lifecycle, programs, runtimes
from deploy.devcluster.cluster import Cluster, KubectlFailed
from deploy.devnode import lifecycle as instances
from deploy.devnode import node
from deploy.devnode.instance import Instance

DEFAULT_INSTANCE = "cluster"
_TOOLS = ("kubectl", "helm")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev cluster", description="A real Kubernetes cluster of two nodes on this machine."
    )
    parser.add_argument("--instance", default=os.environ.get("SNAP_DEV_INSTANCE", DEFAULT_INSTANCE))
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start control plane, registries and two nodes")
    for number in (1, 2):
        up.add_argument(
            f"--runtime{number}",
            choices=runtimes.NAMES,
            default=runtimes.DEFAULT,
            help=f"container runtime of node {number} (default: %(default)s)",
        )
    commands.add_parser("down", help="stop and remove everything")
    commands.add_parser("status", help="show addresses, kubeconfig, registries, nodes and pods")
    for name in _TOOLS:
        commands.add_parser(
            name, help=f"{name} as the administrator: {name} ARGUMENTS", add_help=False
        )
    run = commands.add_parser("exec", help="run a command inside a node: exec node1 COMMAND")
    run.add_argument("node", choices=("node1", "node2"))
    run.add_argument("argv", nargs=argparse.REMAINDER)
    # what comes after a tool's name is the tool's, options too
    first = next((n for n, word in enumerate(argv) if word in commands.choices), len(argv))
    is_tool = argv[first : first + 1] and argv[first] in _TOOLS
    args = parser.parse_args(argv[: first + 1] if is_tool else argv)
    if is_tool:
        args.argv = argv[first + 1 :]
    return args


def _say(text: str) -> None:
    print(text, flush=True)


def _show(cluster: Cluster) -> None:
    running = cluster.world.running
    print(f"API server: {cluster.layout.api_server}")
    print(f"kubeconfig: {cluster.layout.kubeconfig}")
    for daemon in cluster.daemons:
        print(f"{daemon.name}: {'running' if daemon.is_running else 'down'}, log {daemon.log}")
    for one in running.nodes:
        print(f"{one.name}: {one.address}, init {one.init_pid}, CRI unix://{one.cri_socket}")
    for registry in (running.base, running.checkpoints):
        state = "running" if registry.is_running else "down"
        secret = f", user {registry.user}, password {registry.password}" if registry.user else ""
        print(f"registry {registry.name}: https://{registry.host} ({state}{secret})")
    print(f"registries' CA: {running.base.ca}")
    sys.stdout.flush()
    for kind in ("nodes", "pods"):
        subprocess.call(cluster.argv("get", kind, "-A", "-owide", "--request-timeout=10s"))


def _exec(cluster: Cluster, name: str, argv: list[str]) -> int:
    words = argv[1:] if argv[:1] == ["--"] else argv
    found = [one for one in cluster.world.running.nodes if one.name == name]
    if not found:
        print(f"{name} is not running", file=sys.stderr)
        return 1
    return subprocess.call(found[0].argv(words or ["bash", "-l"]), env=dict(node.ENVIRONMENT))


def main(argv: list[str]) -> int:
    """Do what the command line says; the exit status."""
    args = _parse(argv)
    instance = Instance(args.instance)
    if args.command in {"up", "down"}:
        with instances.claimed(instance):
            if args.command == "down":
                instances.down(instance)
                return 0
            _show(lifecycle.up(instance, _say, {1: args.runtime1, 2: args.runtime2}))
            return 0
    cluster = lifecycle.find(instance)
    if cluster is None:
        print(f"cluster {instance.name} is down: dev cluster up starts it", file=sys.stderr)
        return 1
    if args.command == "exec":
        return _exec(cluster, args.node, args.argv)
    if args.command == "kubectl":
        return subprocess.call(cluster.argv(*args.argv))
    if args.command == "helm":
        helm = programs.ready(programs.HELM, lambda text: print(text, file=sys.stderr)) / "helm"
        here = {**os.environ, "KUBECONFIG": str(cluster.layout.kubeconfig)}
        return subprocess.call([str(helm), *args.argv], env=here)
    _show(cluster)
    return 0


def run(argv: list[str]) -> int:
    """``main``, with one sentence instead of a traceback for what a person can put right."""
    instances.interrupt_on_signals()
    try:
        return main(argv)
    except (*instances.PROBLEMS, KubectlFailed) as problem:
        print(f"dev cluster: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
