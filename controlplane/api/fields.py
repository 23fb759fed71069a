"""Types of fields with their limits, as ``msgspec`` checks them and OpenAPI shows them.

``(?!\\n)`` after each pattern: Python's ``$`` would accept a newline at the end.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)"
# without the words that are segments of paths
CLUSTER_PATTERN: Final = r"^(?!(summary|report)$)" + NAME_PATTERN.removeprefix("^")
HOOK_PATTERN: Final = r"^(?!list$)" + NAME_PATTERN.removeprefix("^")
OBJECT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,252}$(?!\n)"
CONTAINER_PATTERN: Final = r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,252})$(?!\n)"
FILE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,510}$(?!\n)"
LINE_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$(?!\n)"
# Source: github.com/distribution/reference, regexp.go (path components)
_COMPONENT: Final = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
REPOSITORY_PATTERN: Final = rf"^{_COMPONENT}(/{_COMPONENT})*$(?!\n)"
IMAGE_PATTERN: Final = (
    r"^([^\s\x00-\x1f\x7f/]+/)*[^\s\x00-\x1f\x7f/:]+"
    r":[^\s\x00-\x1f\x7f/:-]+-[^\s\x00-\x1f\x7f/:]+$(?!\n)"
)
# Source: RFC 3339 section 5.6; "T" and "Z" in upper case, as everybody writes them; Python knows no year 0
TIME_PATTERN: Final = (
    r"^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}"
    r"(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$(?!\n)"
)
TAG_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$(?!\n)"

_H16: Final = "[0-9A-Fa-f]{1,4}"
# Source: RFC 4291 section 2.2, forms 1 and 2: eight groups, or fewer around one "::"
_IPV6: Final = "|".join(
    [
        f"({_H16}:){{7}}{_H16}",
        *(f"({_H16}:){{1,{7 - after}}}(:{_H16}){{1,{after}}}" for after in range(1, 7)),
        f"({_H16}:){{1,7}}:",
        f":((:{_H16}){{1,7}}|:)",
    ]
)
_HOST: Final = (
    r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
    rf"|\[({_IPV6})\])"
    r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
REGISTRY_PATTERN: Final = rf"^(https?://)?{_HOST}(/{_COMPONENT})*/?$(?!\n)"
SERVER_PATTERN: Final = rf"^(https?://)?{_HOST}(/[A-Za-z0-9._~-]*)*$(?!\n)"
SERVER_OR_NOTHING: Final = rf"^((https?://)?{_HOST}(/[A-Za-z0-9._~-]*)*)?$(?!\n)"
WEBHOOK_PATTERN: Final = rf'^(https://{_HOST}(/[!-"$-~]*)?)?$(?!\n)'
NOT_PLACEHOLDER: Final = r"^(?!\*{8}$)[^\x00]*$"
NO_NUL: Final = r"^[^\x00]*$"
# the placeholder has 8 characters too
PASSWORD_OR_NOTHING: Final = r"^([^\x00]{8,1024})?$(?!\n)"  # noqa: S105 - a pattern
TOKEN_PATTERN: Final = r"^(\s*[!-~]+\s*)?$(?!\n)"  # noqa: S105 - a pattern
PEM_PATTERN: Final = r"^[\x01-\x7f]*$"
NAME_OR_NOTHING: Final = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$(?!\n)"
CURSOR_PATTERN: Final = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$(?!\n)"  # an id of ``clock.new_ulid``
BASE64_PATTERN: Final = (
    r"^[A-Za-z0-9+/=\s*-]*$"  # with the placeholder, and the reference's own example
)

_NAMED: Final = "must be 1-63 of a-z A-Z 0-9 . _ -, starting with a letter or digit"
# what a caller reads when a pattern refuses a value
SENTENCES: Final = {
    NAME_PATTERN: _NAMED,
    CLUSTER_PATTERN: f"{_NAMED}, and not summary or report, which are reserved",
    HOOK_PATTERN: f"{_NAMED}, and not list, which is reserved",
    OBJECT_PATTERN: "must be 1-253 of a-z A-Z 0-9 . _ : -, starting with a letter or digit",
    CONTAINER_PATTERN: 'must be "*" or 1-253 of a-z A-Z 0-9 . _ -, starting with a letter or digit',
    FILE_PATTERN: "must be a file name, without a folder",
    LINE_PATTERN: "must be one line without control characters",
    REPOSITORY_PATTERN: "must be a repository: a-z 0-9, separated by . _ - /",
    REGISTRY_PATTERN: "must be https://host[:port][/path] (or http://), without user name or query",
    SERVER_PATTERN: "must be https://host[:port], without user name or query",
    SERVER_OR_NOTHING: "must be https://host[:port], without user name or query, or empty",
    WEBHOOK_PATTERN: "must be https://host[:port][/path] of ASCII characters, without user name or fragment",
    NOT_PLACEHOLDER: "is the placeholder for a secret, not one",
    PASSWORD_OR_NOTHING: "must have at least 8 characters, or be empty to keep the old one",
    NO_NUL: "must not contain a NUL character",
    TOKEN_PATTERN: "must be a token: ASCII letters, digits and signs without spaces between them",
    PEM_PATTERN: "must be certificates in PEM form, which is ASCII",
    NAME_OR_NOTHING: "must be 1-63 of a-z A-Z 0-9 . _ -, starting with a letter or digit, or empty",
    CURSOR_PATTERN: "must be the next_cursor of an answer",
    BASE64_PATTERN: "must be base64",
    IMAGE_PATTERN: "must be [registry/][repo/]cluster-namespace-app:digest-hash",
    TIME_PATTERN: "must be RFC 3339, such as 2024-01-15T10:30:00Z",
    TAG_PATTERN: "must be a tag: 1-128 of a-z A-Z 0-9 . _ -, not starting with . or -",
}

Name = Annotated[str, Meta(pattern=NAME_PATTERN, examples=["production-cluster"])]
NewClusterName = Annotated[str, Meta(pattern=CLUSTER_PATTERN, examples=["production-cluster"])]
NewHookName = Annotated[str, Meta(pattern=HOOK_PATTERN, examples=["production-snaphook"])]
OptionalName = Annotated[str, Meta(pattern=NAME_OR_NOTHING)]
Cursor = Annotated[str, Meta(pattern=CURSOR_PATTERN)]
PodName = Annotated[str, Meta(pattern=OBJECT_PATTERN, examples=["test-app"])]
Namespace = Annotated[str, Meta(pattern=NAME_PATTERN, examples=["default"])]
NodeName = Annotated[str, Meta(pattern=OBJECT_PATTERN, examples=["worker-node-1"])]
ContainerName = Annotated[str, Meta(pattern=CONTAINER_PATTERN, examples=["test-app"])]
FileName = Annotated[str, Meta(pattern=FILE_PATTERN, examples=["test-app-12345.tar"])]
Id = Annotated[str, Meta(pattern=OBJECT_PATTERN, examples=["01JC3WZ6Q4X9T2V7M8N0P5R1SA"])]
Line = Annotated[str, Meta(max_length=1024, pattern=LINE_PATTERN)]
RegistryUrl = Annotated[str, Meta(max_length=2048, pattern=REGISTRY_PATTERN)]
ServerUrl = Annotated[str, Meta(max_length=2048, pattern=SERVER_PATTERN)]
OptionalServerUrl = Annotated[str, Meta(max_length=2048, pattern=SERVER_OR_NOTHING)]
NewSecret = Annotated[str, Meta(max_length=8192, pattern=NOT_PLACEHOLDER)]
Token = Annotated[str, Meta(max_length=8192, pattern=TOKEN_PATTERN)]
Secret = Annotated[str, Meta(max_length=8192, pattern=NO_NUL)]
Document = Annotated[str, Meta(max_length=349_525, pattern=BASE64_PATTERN)]  # a file's text, base64
Repository = Annotated[str, Meta(max_length=255, pattern=REPOSITORY_PATTERN)]
Tag = Annotated[str, Meta(pattern=TAG_PATTERN, examples=["latest"])]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
