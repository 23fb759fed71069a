"""Types of fields with their limits, as ``msgspec`` checks them and OpenAPI shows them.

``(?!\\n)`` after each pattern: Python's ``$`` would accept a newline at the end.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)"
OBJECT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,252}$(?!\n)"
CONTAINER_PATTERN: Final = r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,252})$(?!\n)"
FILE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,510}$(?!\n)"
LINE_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$(?!\n)"
REPOSITORY_PATTERN: Final = r"^[a-z0-9]+([._/-]+[a-z0-9]+)*$(?!\n)"
TAG_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$(?!\n)"

# what a caller reads when a pattern refuses a value
SENTENCES: Final = {
    NAME_PATTERN: "must be 1-63 of a-z A-Z 0-9 . _ -, starting with a letter or digit",
    OBJECT_PATTERN: "must be 1-253 of a-z A-Z 0-9 . _ : -, starting with a letter or digit",
    CONTAINER_PATTERN: 'must be "*" or 1-253 of a-z A-Z 0-9 . _ -, starting with a letter or digit',
    FILE_PATTERN: "must be a file name, without a folder",
    LINE_PATTERN: "must be one line without control characters",
    REPOSITORY_PATTERN: "must be a repository: a-z 0-9, separated by . _ - /",
    TAG_PATTERN: "must be a tag: 1-128 of a-z A-Z 0-9 . _ -, not starting with . or -",
}

Name = Annotated[str, Meta(pattern=NAME_PATTERN, examples=["production-cluster"])]
PodName = Annotated[str, Meta(pattern=OBJECT_PATTERN, examples=["test-app"])]
Namespace = Annotated[str, Meta(pattern=NAME_PATTERN, examples=["default"])]
NodeName = Annotated[str, Meta(pattern=OBJECT_PATTERN, examples=["worker-node-1"])]
ContainerName = Annotated[str, Meta(pattern=CONTAINER_PATTERN, examples=["test-app"])]
FileName = Annotated[str, Meta(pattern=FILE_PATTERN, examples=["test-app-12345.tar"])]
Id = Annotated[str, Meta(pattern=OBJECT_PATTERN, examples=["01JC3WZ6Q4X9T2V7M8N0P5R1SA"])]
Line = Annotated[str, Meta(max_length=1024, pattern=LINE_PATTERN)]
Url = Annotated[str, Meta(min_length=1, max_length=2048, pattern=LINE_PATTERN)]
Secret = Annotated[str, Meta(max_length=8192)]
Document = Annotated[str, Meta(max_length=1 << 20)]  # a file's text, base64
Repository = Annotated[str, Meta(max_length=255, pattern=REPOSITORY_PATTERN)]
Tag = Annotated[str, Meta(pattern=TAG_PATTERN, examples=["latest"])]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
