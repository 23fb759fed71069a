"""What the fake API server keeps: objects by path, each change numbered and remembered."""

from __future__ import annotations

import asyncio
import copy
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
# how a strategic merge finds the element of a list that is meant
# Source: the x-kubernetes-patch-merge-key entries of kubernetes' own OpenAPI document
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "conditions": "type",
    "taints": "key",
    "ownerReferences": "uid",
    "webhooks": "name",
}
_KINDS = {
    "pods": "Pod",
    "nodes": "Node",
    "namespaces": "Namespace",
    "configmaps": "ConfigMap",
    "events": "Event",
    "serviceaccounts": "ServiceAccount",
    "runtimeclasses": "RuntimeClass",
    "replicasets": "ReplicaSet",
    "deployments": "Deployment",
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
}
_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)


class Refusal(Exception):
    """An answer that is a failure; as Kubernetes' Status."""

    def __init__(self, status: int, reason: str, message: str, after_s: int = 0) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.after_s = status, reason, message, after_s

    def body(self) -> Object:
        """The Status object."""
        details = {"retryAfterSeconds": self.after_s} if self.after_s else {}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.status,
        }


@dataclass(frozen=True)
class Place:
    """A path of the API, taken apart; ``collection`` is that of all namespaces."""

    api: str
    plural: str
    namespace: str
    name: str
    sub: str

    @property
    def collection(self) -> tuple[str, str]:
        return self.api, self.plural

    @classmethod
    def of(cls, path: str) -> Place:
        """Taken apart; a namespace itself is an object in no namespace."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        parts = {name: value or "" for name, value in found.groupdict().items()}
        api = parts["core"] or parts["group"]
        return cls(api, parts["plural"], parts["namespace"], parts["name"], parts["sub"])


@dataclass(frozen=True)
class Happened:
    """A change that watches hear of."""

    version: int
    kind: str
    collection: tuple[str, str]
    object: Object


class Objects:
    """Everything that there is, and what happened since ``oldest``."""

    def __init__(self) -> None:
        self.version = 1000
        self.oldest = 1000  # changes after this version are remembered
        self.log: list[Happened] = []
        self.changed = asyncio.Event()
        self._kept: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}

    def all_of(self, place: Place) -> list[Object]:
        """The objects of a collection, in order of namespace and name."""
        kept = self._kept.get(place.collection, {})
        found = [kept[key] for key in sorted(kept)]
        return [o for o in found if place.namespace in ("", o["metadata"].get("namespace", ""))]

    def get(self, place: Place) -> Object:
        """One object."""
        found = self._kept.get(place.collection, {}).get((place.namespace, place.name))
        if found is None:
            raise Refusal(404, "NotFound", f'{place.plural} "{place.name}" not found')
        return found

    def create(self, place: Place, given: Object) -> Object:
        """A new object, with what a server adds."""
        made = copy.deepcopy(given)
        metadata = made.setdefault("metadata", {})
        name = metadata.get("name") or ""
        if not name and metadata.get("generateName"):
            name = metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        if not name:
            message = "name or generateName is required"
            raise Refusal(422, "Invalid", message)
        if (place.namespace, name) in self._kept.get(place.collection, {}):
            raise Refusal(409, "AlreadyExists", f'{place.plural} "{name}" already exists')
        if place.namespace:
            metadata["namespace"] = place.namespace
        metadata["uid"] = f"{secrets.token_hex(4)}-{secrets.token_hex(6)}"
        metadata["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata["managedFields"] = [{"manager": "fake", "operation": "Update"}]
        made.setdefault("apiVersion", place.api)
        made.setdefault("kind", _KINDS.get(place.plural, place.plural))
        return self._put("ADDED", place, made)

    def replace(self, place: Place, given: Object) -> Object:
        """Another content for an object; its subresource, if ``place`` has one."""
        before = self.get(place)
        wanted = (given.get("metadata") or {}).get("resourceVersion")
        if wanted and wanted != before["metadata"]["resourceVersion"]:
            message = (
                "the object has been modified; please apply your changes to the latest version"
            )
            raise Refusal(409, "Conflict", message)
        made = copy.deepcopy(given)
        if place.sub == "status":
            made = copy.deepcopy(before) | {"status": made.get("status", {})}
        elif "status" in before:
            made["status"] = copy.deepcopy(before["status"])
        for field in ("uid", "creationTimestamp", "namespace", "name"):
            if field in before["metadata"]:
                made["metadata"][field] = before["metadata"][field]
        if {**made, "metadata": _unnumbered(made)} == {**before, "metadata": _unnumbered(before)}:
            return before
        return self._put("MODIFIED", place, made)

    def delete(self, place: Place, conditions: Mapping[str, str]) -> Object:
        """Take an object away, if it is the one that is meant."""
        found = self.get(place)
        metadata = found["metadata"]
        for field in ("uid", "resourceVersion"):
            if conditions.get(field) not in (None, metadata[field]):
                message = f"Precondition failed: {field} in precondition: {conditions[field]}"
                raise Refusal(409, "Conflict", message)
        del self._kept[place.collection][place.namespace, place.name]
        last = copy.deepcopy(found)
        self._tell("DELETED", place, last)
        return last

    def forget(self) -> None:
        """Compact: no watch can be taken up from before now."""
        self.version += 1
        self.oldest = self.version
        self.log.clear()

    def _put(self, kind: str, place: Place, made: Object) -> Object:
        self._tell(kind, place, made)
        key = (place.namespace, made["metadata"]["name"])
        self._kept.setdefault(place.collection, {})[key] = made
        return made

    def _tell(self, kind: str, place: Place, made: Object) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.log.append(Happened(self.version, kind, place.collection, copy.deepcopy(made)))
        self.changed.set()
        self.changed = asyncio.Event()


def _unnumbered(found: Object) -> Object:
    return {k: v for k, v in found["metadata"].items() if k != "resourceVersion"}


def merged(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def strategic(before: Any, patch: Any, field: str = "") -> Any:
    """As ``merged``, but lists whose elements have a key are merged element by element."""
    if isinstance(patch, list) and field in _MERGE_KEYS:
        key = _MERGE_KEYS[field]
        result = {one[key]: one for one in before or ()}
        for one in patch:
            if one.get("$patch") == "delete":
                result.pop(one[key], None)
            else:
                result[one[key]] = strategic(result.get(one[key]), one)
        return list(result.values())
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = strategic(made.get(name), value, name)
    return made


def patched(before: Object, operations: list[Object]) -> Object:
    """RFC 6902: add, replace, remove, test; of objects and by appending to lists."""
    made = copy.deepcopy(before)
    for one in operations:
        *way, last = (
            part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]
        )
        holder: Any = made
        for part in way:
            holder = holder[int(part) if isinstance(holder, list) else part]
        spot: Any = int(last) if isinstance(holder, list) and last != "-" else last
        there = spot in holder if isinstance(holder, dict) else last == "-" or spot < len(holder)
        if one["op"] != "add" and not there:
            raise Refusal(422, "Invalid", f"{one['path']} does not exist")
        if one["op"] == "test" and holder[spot] != one["value"]:
            raise Refusal(422, "Invalid", f"testing path {one['path']} failed")
        if one["op"] == "remove":
            del holder[spot]
        elif one["op"] in ("add", "replace"):
            if isinstance(holder, list) and last == "-":
                holder.append(one["value"])
            elif isinstance(holder, list) and one["op"] == "add":
                holder.insert(spot, one["value"])
            else:
                holder[spot] = one["value"]
    return made
