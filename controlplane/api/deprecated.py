"""What the older server did on nodes by ssh and playbooks, and what agents do by themselves now."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from controlplane.api.calls import Call
from controlplane.api.routing import Section

SECTION: Final = Section(
    "Deprecated", "Nodes are set up by their agents; these endpoints say so and do nothing."
)


class Anything(msgspec.Struct):
    """Whatever is sent to an endpoint that does nothing any more."""

    cluster_name: Any = None


class NothingDone(msgspec.Struct, frozen=True):
    """What a deprecated endpoint says."""

    message: str
    success: bool = False


@SECTION.route("GET", "/config/cluster/node", takes=Anything, gives=NothingDone, lenient=True)
async def get_node_config(call: Call, wanted: Anything) -> NothingDone:  # noqa: ARG001
    """Deprecated: ask GET /cluster/status/{cluster_name}."""
    return NothingDone(
        "This endpoint is deprecated. Nodes are configured automatically by the DaemonSet."
    )


@SECTION.route("PUT", "/config/cluster/nodes/edit", takes=Anything, gives=NothingDone, lenient=True)
async def edit_nodes(call: Call, wanted: Anything) -> NothingDone:  # noqa: ARG001
    """Deprecated: nodes are found by their agents."""
    return NothingDone(
        "This endpoint is deprecated. Nodes are configured automatically by the DaemonSet."
    )


@SECTION.route("GET", "/config/playbooks/list", gives=NothingDone)
async def list_playbooks(call: Call) -> NothingDone:  # noqa: ARG001
    """Deprecated: there are no playbooks any more."""
    return NothingDone("This endpoint is deprecated. Playbooks are replaced by the DaemonSet.")


@SECTION.route("PUT", "/config/playbooks/update", takes=Anything, gives=NothingDone, lenient=True)
async def update_playbooks(call: Call, wanted: Anything) -> NothingDone:  # noqa: ARG001
    """Deprecated: there are no playbooks any more."""
    return NothingDone("This endpoint is deprecated. Playbooks are replaced by the DaemonSet.")


@SECTION.route(
    "POST", "/config/cluster/nodes/upload-ssh-key", takes=Anything, gives=NothingDone, lenient=True
)
async def upload_ssh_key(call: Call, wanted: Anything) -> NothingDone:  # noqa: ARG001
    """Deprecated: nodes are never entered by ssh; what is sent is thrown away."""
    return NothingDone(
        "This endpoint is deprecated. Nodes are reached by their agents; the key was not kept."
    )


@SECTION.route(
    "GET", "/config/cluster/nodes/list-ssh-keys", takes=Anything, gives=NothingDone, lenient=True
)
async def list_ssh_keys(call: Call, wanted: Anything) -> NothingDone:  # noqa: ARG001
    """Deprecated: there are no ssh keys any more."""
    return NothingDone(
        "This endpoint is deprecated. Nodes are reached by their agents; no ssh keys are kept."
    )
