"""What makes two containers of a cluster the same workload: a checkpoint of one is good for the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """One container of the pods that one controller makes from one template.

    Attributes:
        owner_kind, owner_name: of the controller (a ReplicaSet's Deployment). The name of the pod itself under a
            StatefulSet, whose pods are not alike, and without a controller (what its name was generated from).
        template_hash: ``pod-template-hash`` or ``controller-revision-hash``; empty without either.
        image_digest: ``sha256:…`` of the image that runs; empty where it is not known (yet).
    """

    cluster: str
    namespace: str
    owner_kind: str
    owner_name: str
    container: str
    template_hash: str = ""
    image_digest: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.owner_kind}/{self.owner_name}/{self.container}"
