"""``/kubectl/login`` and ``/pod/*``: which cluster is looked at, and its pods."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call
from controlplane.api.fields import Name, Namespace, NodeName, PodName
from controlplane.api.routing import Section
from controlplane.checkpoints.naming import Source
from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed
from controlplane.identity import Role

SECTION: Final = Section("Pods", "Which cluster is looked at, and its pods.")
Text = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Labels = Annotated[dict[Text, Text], Meta(max_length=256)]


class ClusterLogin(msgspec.Struct):
    """Which cluster."""

    aliases: ClassVar[dict[str, str]] = {"cluster_name": "cluster_config_name"}
    example: ClassVar[dict[str, Any]] = {"cluster_config_name": "production-cluster"}
    cluster_config_name: Name


class LoggedIn(msgspec.Struct, frozen=True):
    """A cluster was reached; ``reached_by`` is ``kubernetes`` (its API) or ``agents``."""

    cluster_name: str
    reached_by: str
    message: str = "Logged in to the kubernetes cluster"
    success: bool = True


class PodsOf(msgspec.Struct):
    """Of which cluster; without it the one that the user logged in to by ``/kubectl/login``."""

    aliases: ClassVar[dict[str, str]] = {"cluster": "cluster_name"}
    cluster_name: Name | None = None


class PodList(msgspec.Struct, frozen=True):
    """Every pod of a cluster, as JSON in a string: ``kubectl get pods -A -o json``."""

    pods: str
    success: bool = True


class Metadata(msgspec.Struct):
    """Who a pod is."""

    name: PodName | None = None
    generate_name: Text | None = msgspec.field(name="generateName", default=None)
    namespace: Namespace = "default"
    labels: Labels | None = None


class PodContainer(msgspec.Struct):
    """A container of a pod."""

    name: Text = ""
    image: Text = ""


class PodSpec(msgspec.Struct):
    """What a pod runs."""

    containers: Annotated[list[PodContainer], Meta(min_length=1, max_length=256)]


class ContainerStatus(msgspec.Struct):
    """What a container runs."""

    name: Text = ""
    image_id: Text = msgspec.field(name="imageID", default="")


class PodStatus(msgspec.Struct):
    """How a pod is."""

    container_statuses: Annotated[list[ContainerStatus], Meta(max_length=256)] = msgspec.field(
        name="containerStatuses", default_factory=list
    )


class PodData(msgspec.Struct):
    """A pod as Kubernetes has it."""

    metadata: Metadata
    spec: PodSpec
    status: PodStatus | None = None


class PodWanted(msgspec.Struct):
    """A pod that is about to run, and where."""

    example: ClassVar[dict[str, Any]] = {
        "cluster_name": "production-cluster",
        "pod_data": {
            "metadata": {"name": "test-app", "namespace": "default", "labels": {"app": "test-app"}},
            "spec": {"containers": [{"name": "test-app", "image": "test-app:1"}]},
        },
    }
    cluster_name: Name
    pod_data: PodData


class PodImage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether a checkpoint image of such a pod was pushed ("True" or "False"), and its name."""

    exist: str
    generated_image_tag: str | None = None
    image_digest: str | None = None


class MigrateRequest(msgspec.Struct):
    """Which pod goes where."""

    aliases: ClassVar[dict[str, str]] = {"cluster": "cluster_name"}
    pod_name: PodName
    namespace: Namespace
    cluster_name: Name | None = None
    node_name: NodeName | None = None
    target_node: NodeName | None = None


class Migrated(msgspec.Struct, frozen=True):
    """A pod goes on elsewhere."""

    message: str
    pod_name: str
    node_name: str
    success: bool = True


_CLUSTER_ERRORS: Final = ("CLUSTER_NOT_FOUND", CLUSTER_CONNECTION_FAILED)


@SECTION.route("POST", "/kubectl/login", takes=ClusterLogin, gives=LoggedIn, errors=_CLUSTER_ERRORS)
async def log_in_to_cluster(call: Call, wanted: ClusterLogin) -> LoggedIn:
    """Look at a cluster from now on; it is remembered for each user.

    It must be reached, by its API server with the stored credential or by an agent of it.
    """
    reached = await call.services.pods.choose(wanted.cluster_config_name, call.actor.username)
    return LoggedIn(reached.cluster, reached.by)


@SECTION.route("GET", "/pod/list", takes=PodsOf, gives=PodList, errors=_CLUSTER_ERRORS)
async def list_pods(call: Call, wanted: PodsOf) -> PodList:
    """Every pod of a cluster: the named one, the one that the user looks at, or the only one."""
    items = await call.services.pods.of_user(call.actor.username, wanted.cluster_name or "")
    document = {"apiVersion": "v1", "kind": "List", "items": items}
    return PodList(msgspec.json.encode(document).decode())


@SECTION.route(
    "POST",
    "/pod/webhook",
    takes=PodWanted,
    gives=PodImage,
    errors=("CLUSTER_NOT_FOUND", "REGISTRY_NOT_FOUND"),
)
async def image_of_pod(call: Call, wanted: PodWanted) -> PodImage:
    """Whether there is a checkpoint image for a pod's first container, and how it is called."""
    pod = wanted.pod_data
    first = pod.spec.containers[0]
    running = pod.status.container_statuses if pod.status else []
    of_first = [one for one in running if one.name == first.name] or running[:1]
    source = Source(
        cluster=wanted.cluster_name,
        namespace=pod.metadata.namespace,
        pod_name=pod.metadata.name or (pod.metadata.generate_name or "").rstrip("-") or first.name,
        container_name=first.name,
        image_id=of_first[0].image_id if of_first else first.image,
        labels=pod.metadata.labels or {},
        is_one_of_several=len(pod.spec.containers) > 1,
    )
    found = await call.services.placing.image_of(wanted.cluster_name, source)
    if found.known is None:
        return PodImage("False")
    return PodImage("True", found.name, found.known.digest)


@SECTION.route(
    "POST",
    "/pod/migrate",
    takes=MigrateRequest,
    gives=Migrated,
    needs=Role.OPERATOR,
    errors=_CLUSTER_ERRORS,
)
async def migrate(call: Call, wanted: MigrateRequest) -> Migrated:
    """Let a pod go on on another node: needs the cluster's API server, which makes the new pod."""
    name = await call.services.pods.resolve(wanted.cluster_name or "")
    await call.services.cluster_apis.check(name)
    raise Failed(
        f"Cluster {name} answers, but this version of SNAP does not move pods in one call; checkpoint "
        "and push the pod, restore it by POST /checkpoint/{id}/restore, then delete the first one.",
        code=CLUSTER_CONNECTION_FAILED,
    )
