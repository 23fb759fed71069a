"""Names of images: where a checkpoint's image goes. A name to find it by, never to be parsed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

_APP_LABELS: Final = ("app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/instance")
_HASH_LABELS: Final = ("pod-template-hash", "controller-revision-hash")
_DIGEST: Final = re.compile(
    r"(?:^|@|://)(?:sha256:)([0-9a-f]{12})[0-9a-f]*$|^([0-9a-f]{12})[0-9a-f]{52}$"
)
_TAG_LENGTH: Final = 128  # of the OCI distribution specification; a repository may have 255
_REPOSITORY_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class Source:
    """What an image's name is made of.

    Attributes:
        image_id: the running container's imageID, any form that ends in its digest.
        owner_name: of the pod's controller, if known.
        is_one_of_several: whether the pod has other containers.
    """

    cluster: str
    namespace: str
    pod_name: str
    container_name: str
    image_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    owner_name: str = ""
    is_one_of_several: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A repository (without the registry's host) and a tag."""

    repository: str
    tag: str


def place(source: Source, prefix: str, image_name: str = "", tag: str = "") -> Place:
    """Where the image of ``source`` goes.

    ``<prefix>/<cluster>-<namespace>-<app>:<digest12>-<template hash>``, lower-cased; the container's
    name is appended when the pod has several.

    Args:
        prefix: path and repository of the registry, "" for none.
        image_name, tag: instead of the scheme's.
    """
    name = image_name or f"{source.cluster}-{source.namespace}-{_app(source)}"
    full = "/".join(part for part in (prefix, name) if part)
    label = tag or f"{digest12(source.image_id)}-{_template_hash(source)}"
    if source.is_one_of_several:
        label = f"{label}-{source.container_name}"
    return Place(_repository(full), _tag(label))


def alone(source: Source) -> Source:
    """``source`` without its container's name in the image's name."""
    return replace(source, is_one_of_several=False)


def filename(pod_name: str, checkpoint_id: str) -> str:
    """Under which a checkpoint is downloaded."""
    return f"{pod_name}-{checkpoint_id}.tar"


def digest12(image_id: str) -> str:
    """The first 12 digits of an image's digest; ``no-digest`` if there is none."""
    found = _DIGEST.search(image_id)
    return (found[1] or found[2]) if found else "no-digest"


def _app(source: Source) -> str:
    for label in _APP_LABELS:
        if value := source.labels.get(label):
            return value
    return source.owner_name or source.pod_name


def _template_hash(source: Source) -> str:
    for label in _HASH_LABELS:
        if value := source.labels.get(label):
            return value
    return "no-hash"


def _repository(text: str) -> str:
    """``text`` as a repository's name.

    Source: OCI distribution specification, names: lower-case components of letters and digits with
    single separators between them.
    """
    parts = (re.sub(r"[^a-z0-9._-]+", "-", part) for part in text.lower().split("/"))
    parts = (re.sub(r"([._-])[._-]*", r"\1", part).strip("._-") for part in parts)
    return "/".join(part for part in parts if part)[:_REPOSITORY_LENGTH].rstrip("._-/")


def _tag(text: str) -> str:
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    return cleaned.lstrip(".-")[:_TAG_LENGTH] or "latest"
