"""A real cluster: started once for all tests, gone afterwards.

``SNAP_DEV_INSTANCE`` names the instance (default ``e2e``); another name lets two runs go on side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.devcluster import lifecycle
from deploy.devcluster.cluster import Cluster
from deploy.devnode.instance import Instance
from deploy.devnode.lifecycle import Unsuitable


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with containerd 2.1.9, Ready, with nothing in them yet."""
    try:
        with lifecycle.opened(Instance(os.environ.get("SNAP_DEV_INSTANCE", "e2e")), print) as made:
            yield made
    except Unsuitable as problem:
        pytest.fail(str(problem), pytrace=False)
