"""The cluster that the control plane itself runs in: set up by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from controlplane.clusters.configs import ClusterConfigs, ClusterDraft
from controlplane.errors import NotFound
from controlplane.kube.access import ACCOUNT_DIR

IN_CLUSTER = "in_cluster"
_log = logging.getLogger(__name__)


async def register(
    configs: ClusterConfigs,
    name: str,
    environ: Mapping[str, str],
    account_dir: Path = ACCOUNT_DIR,
) -> bool:
    """Set up cluster ``name`` with the account of the pod that this runs in; whether anything was changed.

    Outside of a pod, or without a name, nothing is.

    One of that name that was set up by somebody, with an address or a credential, stays as it is.
    """
    in_pod = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    if not name or not in_pod or not await asyncio.to_thread((account_dir / "token").exists):
        return False
    draft = ClusterDraft(name, auth_type=IN_CLUSTER)
    try:
        row = await configs.get(name)
    except NotFound:
        await configs.create(draft)
        _log.info("cluster %s, in which this runs, is set up", name)
        return True
    if row.auth_type == IN_CLUSTER or row.kube_api_url or await configs.credential(name):
        return False
    await configs.update(draft)
    _log.info("cluster %s is reached by the pod's own account from now on", name)
    return True
