"""JSON schemas for kubeconform, made of the OpenAPI document in Kubernetes' own module; nothing else is fetched.

Source: api/openapi-spec/swagger.json of k8s.io/kubernetes; kubeconform's names of schema files.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from deploy.devcluster import programs, toolchain
from deploy.devnode.rootfs import Say

LOCATION: Final = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_REFERENCE: Final = re.compile(r'"#/definitions/([^"]+)"')

Schema = dict[str, Any]


def document(say: Say) -> Schema:
    """The OpenAPI document of the Kubernetes version that the devcluster runs."""
    go = toolchain.find(say)
    wanted = f"{programs.KUBERNETES.module}@{programs.KUBERNETES.version}"
    with tempfile.TemporaryDirectory(prefix="snap-openapi-") as scratch:
        told = json.loads(go.read(["mod", "download", "-json", wanted], cwd=Path(scratch)))
    found: Schema = json.loads((Path(told["Dir"]) / "api/openapi-spec/swagger.json").read_text())
    return found


def write(openapi: Schema, folder: Path) -> None:
    """One schema per kind into ``folder``; a field that Kubernetes does not know is an error in each."""
    definitions: dict[str, Schema] = {
        name: _strict(one) for name, one in openapi["definitions"].items()
    }
    definitions[QUANTITY] = {"type": ["string", "number"]}
    for name, one in definitions.items():
        for kind in one.get("x-kubernetes-group-version-kind", ()):
            whole = _kind(one, kind) | {"definitions": _needed(definitions, name)}
            (folder / _file(kind)).write_text(json.dumps(whole))


def _file(kind: Mapping[str, str]) -> str:
    group = f"{kind['group'].partition('.')[0]}-" if kind["group"] else ""
    return f"{kind['kind'].lower()}-{group}{kind['version']}.json"


def _kind(schema: Schema, kind: Mapping[str, str]) -> Schema:
    version = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
    named = {"apiVersion": {"enum": [version]}, "kind": {"enum": [kind["kind"]]}}
    return schema | {"properties": {**schema.get("properties", {}), **named}}


def _needed(definitions: dict[str, Schema], name: str) -> dict[str, Schema]:
    """What ``name`` refers to, directly or not."""
    found: dict[str, Schema] = {}
    waiting = set(_REFERENCE.findall(json.dumps(definitions[name])))
    while waiting:
        one = waiting.pop()
        found[one] = definitions[one]
        waiting |= set(_REFERENCE.findall(json.dumps(definitions[one]))) - found.keys()
    return found


def _strict(schema: Any) -> Any:
    """``schema`` with every object closed that has fields of its own."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    made: Schema = {key: _strict(value) for key, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made
