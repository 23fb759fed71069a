"""``/imagetag/*``: the names of checkpoint images. They are names to find, and best not parsed."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call
from controlplane.api.fields import IMAGE_PATTERN, Name, Namespace
from controlplane.api.routing import Section
from controlplane.checkpoints import naming

SECTION: Final = Section("Image names", "How checkpoint images are called.")
_TAG: Final = re.compile(
    r"^(?:(?P<registry>[^/]+)/)?(?P<repo>.+/)?(?P<name>[^/:]+):(?P<digest>[^-:]+)-(?P<hash>[^:]+)$"
)
Word = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^\s\x00-\x1f\x7f]*$(?!\n)")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{12,64}$(?!\n)")]
Hash = Annotated[str, Meta(max_length=63, pattern=r"^[A-Za-z0-9.-]*$(?!\n)")]
Prefix = Annotated[str, Meta(max_length=255, pattern=r"^[A-Za-z0-9._:/-]*$(?!\n)")]
ImageName = Annotated[
    str,
    Meta(
        max_length=512,
        pattern=IMAGE_PATTERN,
        examples=[
            "nexus.company.com/snap_images/production-cluster-default-test-app:0123456789ab-5d4f8c7b9"
        ],
    ),
]
Part = Literal[
    "registry", "repo", "cluster", "namespace", "app", "origImageShortDigest", "PodTemplateHash"
]


class TagParts(msgspec.Struct):
    """What an image's name is made of."""

    aliases: ClassVar[dict[str, str]] = {
        "cluster_name": "cluster",
        "orig_image_short_digest": "origImageShortDigest",
        "pod_template_hash": "PodTemplateHash",
    }
    example: ClassVar[dict[str, Any]] = {
        "cluster": "production-cluster",
        "namespace": "default",
        "app": "test-app",
        "origImageShortDigest": "0123456789ab",
        "PodTemplateHash": "5d4f8c7b9",
    }
    cluster: Name
    namespace: Namespace
    app: Word
    origImageShortDigest: Digest  # noqa: N815 - the clients' name
    PodTemplateHash: Hash = ""
    registry: Prefix = ""
    repo: Prefix = ""


class ParsedTag(msgspec.Struct, frozen=True):
    """The parts of a name, as far as they can be told apart."""

    registry: str
    repo: str
    cluster: str
    namespace: str
    app: str
    origImageShortDigest: str  # noqa: N815 - the clients' name
    PodTemplateHash: str


class TagMade(msgspec.Struct, frozen=True):
    """A name."""

    image_tag: str
    generated_image_tag: str
    message: str = "Image tag generated successfully"
    success: bool = True


class TagWanted(msgspec.Struct):
    """Which name."""

    image_tag: ImageName


class TagParsed(msgspec.Struct, frozen=True):
    """The parts of a name."""

    image_tag: str
    components: ParsedTag
    message: str = "Image tag parsed successfully"
    success: bool = True


class PartWanted(msgspec.Struct):
    """Which part of which name."""

    component: Part
    image_tag: ImageName


class TagPart(msgspec.Struct, frozen=True):
    """One part of a name."""

    component: str
    value: str
    success: bool = True


@SECTION.route("POST", "/imagetag/generate", takes=TagParts, gives=TagMade)
async def generate_tag(call: Call, wanted: TagParts) -> TagMade:  # noqa: ARG001
    """How the checkpoint image of an app is called."""
    source = naming.Source(
        cluster=wanted.cluster,
        namespace=wanted.namespace,
        pod_name=wanted.app,
        container_name=wanted.app,
        image_id="sha256:" + wanted.origImageShortDigest,
        labels={"pod-template-hash": wanted.PodTemplateHash} if wanted.PodTemplateHash else {},
    )
    place = naming.place(source, wanted.repo)
    host = wanted.registry.removeprefix("https://").removeprefix("http://").strip("/")
    name = "/".join(part for part in (host, f"{place.repository}:{place.tag}") if part)
    return TagMade(name, name)


@SECTION.route("POST", "/imagetag/parse", takes=TagWanted, gives=TagParsed, query=("image_tag",))
async def parse_tag(call: Call, wanted: TagWanted) -> TagParsed:
    """The parts of a name; where names of clusters and namespaces hold ``-``, known clusters decide."""
    return TagParsed(wanted.image_tag, await _parts(call, wanted.image_tag))


@SECTION.route("GET", "/imagetag/component/{component}", takes=PartWanted, gives=TagPart)
async def part_of_tag(call: Call, wanted: PartWanted) -> TagPart:
    """One part of a name."""
    parts = await _parts(call, wanted.image_tag)
    return TagPart(wanted.component, str(getattr(parts, wanted.component)))


async def _parts(call: Call, name: str) -> ParsedTag:
    found = _TAG.match(name)
    assert found is not None  # noqa: S101 - IMAGE_PATTERN is narrower
    known = [row.name.lower() for row in await call.services.clusters.everything()]
    whole = found["name"]
    fitting = [cluster for cluster in known if whole.startswith(cluster + "-")]
    cluster = max(fitting, key=len, default=whole.partition("-")[0])
    namespace, _, app = whole[len(cluster) + 1 :].partition("-")
    registry, repo = found["registry"] or "", (found["repo"] or "").strip("/")
    if registry and not re.search(r"[.:]|^localhost$", registry):  # the first folder, not a host
        registry, repo = "", "/".join(part for part in (registry, repo) if part)
    return ParsedTag(registry, repo, cluster, namespace, app, found["digest"], found["hash"])
