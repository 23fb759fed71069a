"""The real nodes: started once for all tests, gone afterwards.

``SNAP_DEV_INSTANCE`` names the instance (default ``test``); another name lets two runs go on side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.devnode import lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.node import Node
from deploy.devnode.pods import Pods
from deploy.devnode.world import Deployment, World, opened

NO_ROOT = "the real nodes need root"


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Two nodes, two registries, no agent and no control plane yet."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail(NO_ROOT, pytrace=False)
        pytest.skip(NO_ROOT)
    try:
        with opened(Instance(os.environ.get("SNAP_DEV_INSTANCE", "test")), print) as started:
            yield started
    except lifecycle.Unsuitable as problem:
        pytest.fail(str(problem), pytrace=False)


@pytest.fixture(scope="session")
def node1(world: World) -> Node:
    """Where containers run first."""
    return world.node(1)


@pytest.fixture(scope="session")
def node2(world: World) -> Node:
    """Where they are restored."""
    return world.node(2)


@pytest.fixture
def pods1(world: World) -> Iterator[Pods]:
    """CRI of node 1; the test's pods are removed afterwards."""
    yield world.pods(1)
    world.pods(1).remove_all()


@pytest.fixture
def pods2(world: World) -> Iterator[Pods]:
    """CRI of node 2; the test's pods are removed afterwards."""
    yield world.pods(2)
    world.pods(2).remove_all()


@pytest.fixture(scope="session")
def deployed(world: World) -> Iterator[Deployment]:
    """A control plane on this machine and an agent on both nodes, connected.

    A test that kills one of them starts it again before it ends.
    """
    made = world.deploy()
    made.wait_connected()
    yield made
    world.stop_services()
