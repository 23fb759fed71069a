"""The container's image by the names that a restore needs."""

from __future__ import annotations

from agent.checkpoint.parts import ImageNames
from agent.checkpoint.targets import Runtime
from agent.runtimes.pods import ContainerDetail


async def names(runtime: Runtime, detail: ContainerDetail) -> ImageNames:
    """Name, NAME@DIGEST and id of a container's image, as far as the runtime knows them.

    NAME@DIGEST is of the repository that the pod named, where there are several: another one may be
    out of reach where the container is restored.
    """
    container = detail.container
    asked = detail.user_image or container.image
    known = None
    for name in (container.image_ref, container.image_id, container.image):
        if name and (known := await runtime.image(name)):
            break
    image_id = known.id if known else container.image_id
    shown = asked
    if asked.startswith("sha256:") and known and known.repo_tags:
        shown = known.repo_tags[0]
    candidates = list(known.repo_digests) if known else []
    if "@" in container.image_ref:
        candidates.insert(0, container.image_ref)
    repository = _repository(shown)
    same = [one for one in candidates if one.partition("@")[0] == repository]
    return ImageNames(shown, (same or candidates or [""])[0], image_id)


def _repository(image: str) -> str:
    """``image`` without its tag and digest."""
    name = image.partition("@")[0]
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name
