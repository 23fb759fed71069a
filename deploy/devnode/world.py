"""The handle on a running instance that tests and the demo hold: nodes, registries, pods, the two programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.devnode import lifecycle, processes
from deploy.devnode.instance import NODE_NUMBERS, Instance
from deploy.devnode.lifecycle import Running
from deploy.devnode.node import Node
from deploy.devnode.pods import Pods
from deploy.devnode.ports import free_port
from deploy.devnode.registries import Registry
from deploy.devnode.rest import Rest
from deploy.devnode.rootfs import NodeParts, Say
from deploy.devnode.services import Agent, ControlPlane, new_password

CLUSTER = "dev"
REGISTRY = "checkpoints"


@dataclass(frozen=True, slots=True)
class Deployment:
    """The two programs of an instance, running. ``rest`` is the administrator's; agents by node number."""

    control_plane: ControlPlane
    rest: Rest
    agents: Mapping[int, Agent]

    def wait_connected(self, *numbers: int) -> None:
        """Wait until the control plane calls these nodes (all, if none are named) ready and connected.

        Raises:
            processes.NotReady: it did not in time; the message ends with an agent's log.
        """
        wanted = {number: self.agents[number] for number in numbers or self.agents}

        def are_ready() -> bool:
            status, answer = self.rest.call("GET", f"/cluster/status/{CLUSTER}")
            nodes = answer.get("nodes", []) if status == 200 else []
            # ready alone may be of an agent from before
            names = {n["name"] for n in nodes if n["status"] == "ready" and n["connected"]}
            return {agent.node.name for agent in wanted.values()} <= names

        logs = [agent.log for agent in wanted.values() if not agent.is_running]
        processes.wait_until(
            are_ready,
            "the agents' connection",
            timeout_s=120,
            log=logs[0] if logs else next(iter(wanted.values())).log,
            alive=lambda: all(agent.is_running for agent in wanted.values()),
        )


@dataclass
class World:
    """Everything of one instance. Make it with ``opened``."""

    running: Running
    _pods: dict[int, Pods] = field(default_factory=dict)
    _services: list[Agent | ControlPlane] = field(default_factory=list)

    @property
    def instance(self) -> Instance:
        """Names and addresses."""
        return self.running.instance

    @property
    def parts(self) -> NodeParts:
        """What nodes are made of; ``parts.tool("skopeo")`` runs the tree's tools on this machine."""
        return self.running.parts

    @property
    def base(self) -> Registry:
        """The registry of base images."""
        return self.running.base

    @property
    def checkpoints(self) -> Registry:
        """The registry of checkpoint images, behind a password."""
        return self.running.checkpoints

    @property
    def ca_file(self) -> Path:
        """The CA of both registries."""
        return self.base.ca

    def node(self, number: int) -> Node:
        """Node 1 or 2."""
        return next(node for node in self.running.nodes if node.number == number)

    def pods(self, number: int) -> Pods:
        """The CRI of node ``number``; one connection, kept."""
        if number not in self._pods:
            self._pods[number] = Pods(self.node(number))
        return self._pods[number]

    def control_plane(
        self, name: str = "controlplane", env: Mapping[str, str] | None = None
    ) -> ControlPlane:
        """A control plane that is not started yet, with data of its own (``name``)."""
        state = self.instance.state
        # instances that start at once would find the same port free
        wanted = 8000 if self.instance.name == "dev" else 0
        made = ControlPlane(
            state / f"{name}.log",
            self.instance,
            state / name,
            free_port("127.0.0.1", wanted),
            free_port(self.instance.gateway, 8001),
            new_password(),
            dict(env or {}),
        )
        self._services.append(made)
        return made

    def agent(
        self,
        number: int,
        control_plane: ControlPlane,
        cluster: str = CLUSTER,
        env: Mapping[str, str] | None = None,
    ) -> Agent:
        """The agent of node ``number``, not started yet."""
        node = self.node(number)
        log = self.instance.state / f"agent-{node.name}.log"
        made = Agent(log, node, control_plane, cluster, dict(env or {}))
        self._services.append(made)
        return made

    def deploy(
        self, *numbers: int, env: Mapping[str, str] | None = None, restarts: bool = False
    ) -> Deployment:
        """Start a control plane, tell it of registry and cluster, and an agent on each of these nodes.

        ``env`` is added to the agents' environment. ``wait_connected`` waits for them. ``restarts``: a program
        that is killed comes back, the registries too.
        """
        for registry in (self.base, self.checkpoints) if restarts else ():
            registry.keep()
        plane = self.control_plane()
        plane.restarts = restarts
        plane.start()
        rest = plane.login()
        rest.post("/config/registry/create", {"name": REGISTRY, **self.registry_details()})
        rest.post("/config/clusters/create", {"name": CLUSTER, "registry_name": REGISTRY})
        agents = {number: self.agent(number, plane, env=env) for number in numbers or NODE_NUMBERS}
        for agent in agents.values():
            agent.enrol(rest)
            agent.restarts = restarts
            agent.start()
        return Deployment(plane, rest, agents)

    def registry_details(self) -> dict[str, Any]:
        """The checkpoint registry as a registry config."""
        registry = self.checkpoints
        return {
            "url": f"https://{registry.host}",
            "username": registry.user,
            "password": registry.password,
            "verify_ssl": True,
            "ca_pem": registry.ca.read_text(),
        }

    def stop_services(self) -> None:
        """Stop agents and control planes that were started here."""
        for service in reversed(self._services):
            if service.is_running:
                service.stop()
        self._services.clear()

    def close(self) -> None:
        """Stop the services and close connections; nodes and registries stay."""
        self.stop_services()
        for pods in self._pods.values():
            pods.close()
        self._pods.clear()


@contextlib.contextmanager
def opened(instance: Instance, say: Say, *, keep: bool = False) -> Iterator[World]:
    """Start an instance for the block; afterwards nothing of it is left (unless ``keep`` and it went well).

    If the block fails, the logs are kept in the cache.

    Raises:
        lifecycle.Unsuitable and whatever ``lifecycle.up`` raises.
    """
    with lifecycle.claimed(instance):
        world = World(lifecycle.up(instance, say))
        try:
            yield world
        except Exception:
            keep = False
            say(f"the logs are in {lifecycle.keep_logs(instance)}")
            raise
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                world.close()
                lifecycle.down(instance)
