"""Starting a whole cluster, and finding one that runs; removing it is what removes the instance."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from deploy.devcluster import cluster, controlplane, dns, kubelet, pki, programs, runtimes
from deploy.devcluster.cluster import Cluster
from deploy.devcluster.layout import Layout
from deploy.devnode import lifecycle, network, processes, rlimits, rootfs
from deploy.devnode.instance import NODE_NUMBERS, Instance
from deploy.devnode.node import Node
from deploy.devnode.rootfs import Say
from deploy.devnode.world import World

MANIFESTS: Final = Path(__file__).with_name("manifests")
NODES_READY_S: Final = 240.0
VOLUME: Final = (
    "/var/lib/devcluster-volume"  # of node 1; manifests/base.yaml makes a PersistentVolume of it
)


def up(instance: Instance, say: Say, chosen: Mapping[int, str] | None = None) -> Cluster:
    """Start a cluster of two nodes from nothing; what was left of an earlier run is removed first.

    An error, a Ctrl-C included, removes what had been started.

    Args:
        chosen: the container runtime by node number, ``runtimes.DEFAULT`` where none is named.

    Raises:
        lifecycle.Unsuitable, rootfs.BuildFailed, network.NetworkTaken, processes.NotReady: it could not be.
    """
    lifecycle.check_machine()
    wanted = {n: runtimes.named((chosen or {}).get(n, runtimes.DEFAULT)) for n in NODE_NUMBERS}
    parts = rootfs.ready_parts(say)
    binaries = programs.ready(programs.KUBERNETES, say)
    coredns = programs.ready(programs.COREDNS, say)
    folders = {n: runtime.ready(say) for n, runtime in wanted.items()}
    shared = rlimits.fittings(say)
    layout = Layout(instance)
    began = time.monotonic()
    with lifecycle.removed_on_failure(instance):
        ground = lifecycle.lay_ground(instance, parts, say)
        pki.make(layout)
        names = dns.daemon(layout, coredns)
        daemons = controlplane.daemons(layout, parts, binaries)
        say("starting the control plane")
        controlplane.start(daemons, cluster.kubectl_argv(layout, binaries))
        names.start()
        fittings = {
            n: runtime.fittings(instance, n, ground.certificates.ca, folders[n])
            | shared
            | kubelet.fittings(layout, n, binaries, runtime.socket)
            for n, runtime in wanted.items()
        }
        running = lifecycle.start_nodes(ground, fittings, say)
        made = Cluster(World(running), layout, binaries, (*daemons, names))
        say("waiting for the nodes to become Ready")
        _finish(made)
    say(f"the cluster is ready, {time.monotonic() - began:.0f} s after its start")
    return made


def _finish(made: Cluster) -> None:
    made.node(1).run(["mkdir", "-p", VOLUME])
    made.apply((MANIFESTS / "base.yaml").read_text())
    made.apply(dns.manifest(made.layout))
    for one in made.world.running.nodes:
        _wait_ready(made, one)
    processes.wait_until(
        lambda: made.exists("serviceaccount", "default"),
        "the controller manager",
        timeout_s=NODES_READY_S,
        log=made.daemon("kube-controller-manager").log,
    )
    network.route(made.layout.service_range, made.layout.instance.address(1))


def _wait_ready(made: Cluster, node: Node) -> None:
    processes.wait_until(
        lambda: made.is_ready(node.name),
        f"{node.name} of the cluster",
        timeout_s=NODES_READY_S,
        log=node.log_of("kubelet"),
        alive=lambda: node.is_running,
    )


def find(instance: Instance) -> Cluster | None:
    """The cluster of ``instance``, None if there is none."""
    layout = Layout(instance)
    running = lifecycle.find(instance) if layout.kubeconfig.is_file() else None
    if running is None:
        return None
    binaries = programs.ready(programs.KUBERNETES, lambda _: None)
    daemons = controlplane.daemons(layout, running.parts, binaries)
    names = dns.daemon(layout, programs.ready(programs.COREDNS, lambda _: None))
    return Cluster(World(running), layout, binaries, (*daemons, names))


@contextlib.contextmanager
def opened(
    instance: Instance, say: Say, chosen: Mapping[int, str] | None = None
) -> Iterator[Cluster]:
    """Start a cluster for the block; afterwards nothing of it is left. If the block fails, its logs are kept.

    Raises:
        lifecycle.Unsuitable and whatever ``up`` raises.
    """
    with lifecycle.claimed(instance):
        made = up(instance, say, chosen)
        try:
            yield made
        except Exception:
            say(f"the logs are in {lifecycle.keep_logs(instance)}")
            raise
        finally:
            made.world.close()
            lifecycle.down(instance)
