"""What is asked of an API server: one request as a record, the kinds of patches, what a deletion says.

Source: kubernetes.io/docs/reference/using-api/api-concepts (patches, preconditions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.kube.resources import Object

JSON: Final = "application/json"
Params = Mapping[str, str]


class PatchKind(StrEnum):
    """How a patch is meant; its content type."""

    STRATEGIC = "application/strategic-merge-patch+json"
    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``body`` is sent as JSON, None for none."""

    method: str
    path: str
    params: Params | None = None
    body: object = None
    content_type: str = JSON

    @property
    def data(self) -> bytes | None:
        """The body as it is sent."""
        return None if self.body is None else msgspec.json.encode(self.body)

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the body."""
        return {} if self.body is None else {"Content-Type": self.content_type}


def delete_options(uid: str, resource_version: str, grace_s: int | None) -> Object:
    """How an object is deleted: only if it has this UID and version, and how long it may take."""
    conditions = {"uid": uid, "resourceVersion": resource_version}
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if any(conditions.values()):
        options["preconditions"] = {k: v for k, v in conditions.items() if v}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    return options
