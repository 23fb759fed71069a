"""What a workload wants done in its restored container, as the pod's annotations say it.

A restored process has the identity, seeds and connections of the one that was checkpointed; the hook is where it
takes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from agent.formats import layout

POST_RESTORE: Final = layout.ANNOTATION_PREFIX + "post-restore"  # exec, http
COMMAND: Final = POST_RESTORE + "-command"  # of exec: JSON array of words
PORT: Final = POST_RESTORE + "-port"  # of http
PATH: Final = POST_RESTORE + "-path"  # of http; "/" without it
CONTAINERS: Final = POST_RESTORE + "-containers"  # a,b; all that are restored without it
TIMEOUT: Final = POST_RESTORE + "-timeout"  # seconds
ON_FAILURE: Final = POST_RESTORE + "-failure"  # continue, restart

TIMEOUT_S: Final = 10.0
# the kubelet gives StartContainer two minutes, and a pod's containers start one after the other
LONGEST_S: Final = 60.0
_MOST_CHARS: Final = 8192
_Kind = TypeVar("_Kind", bound=StrEnum)


class Way(StrEnum):
    """How the workload is told."""

    EXEC = "exec"  # a command in the container
    HTTP = "http"  # a POST to the pod's own address


class OnFailure(StrEnum):
    """What becomes of a container whose hook failed."""

    CONTINUE = "continue"  # it goes on as it is
    RESTART = "restart"  # it is ended; by the pod's restartPolicy it starts again, cold


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """A container's hook: ``command`` of one that is executed, ``port`` and ``path`` of one that is posted to."""

    way: Way
    command: tuple[str, ...] = ()
    port: int = 0
    path: str = "/"
    timeout_s: float = TIMEOUT_S
    on_failure: OnFailure = OnFailure.CONTINUE


def read(annotations: Mapping[str, str], container: str) -> Hook | None:
    """The hook of ``container``; None: its pod names none for it.

    Raises:
        ValueError: what the annotations say makes no hook; in one sentence.
    """
    if not (asked := annotations.get(POST_RESTORE, "")):
        return None
    named = {word.strip() for word in annotations.get(CONTAINERS, container).split(",")}
    if container not in named:
        return None
    way = _one_of(Way, POST_RESTORE, asked)
    timeout_s = _number(annotations, TIMEOUT, TIMEOUT_S, LONGEST_S)
    on_failure = _one_of(OnFailure, ON_FAILURE, annotations.get(ON_FAILURE, OnFailure.CONTINUE))
    if way is Way.EXEC:
        command = _command(annotations.get(COMMAND, ""))
        return Hook(way=way, command=command, timeout_s=timeout_s, on_failure=on_failure)
    port = _number(annotations, PORT, 0.0, 65535.0)
    if port != int(port):
        raise ValueError(f"annotation {PORT} must be a port's number")
    path = _path(annotations.get(PATH, "/"))
    return Hook(way=way, port=int(port), path=path, timeout_s=timeout_s, on_failure=on_failure)


def _one_of(kind: type[_Kind], name: str, value: str) -> _Kind:
    try:
        return kind(value)
    except ValueError:
        choices = " or ".join(kind)
        raise ValueError(f"annotation {name} must be {choices}, not {value[:40]!r}") from None


def _number(annotations: Mapping[str, str], name: str, otherwise: float, most: float) -> float:
    text = annotations.get(name, str(otherwise))
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= most:
        raise ValueError(f"annotation {name} must be a number above 0 and up to {most:g}")
    return number


def _command(text: str) -> tuple[str, ...]:
    try:
        words = msgspec.json.decode(text[:_MOST_CHARS], type=tuple[str, ...])
    except msgspec.MsgspecError:
        words = ()
    if not words or not words[0] or any("\0" in word for word in words):
        raise ValueError(f'annotation {COMMAND} must be a JSON array like ["/app/renew", "--all"]')
    return words


def _path(text: str) -> str:
    plain = text.isascii() and text.isprintable() and " " not in text and len(text) <= _MOST_CHARS
    if not text.startswith("/") or not plain:
        raise ValueError(f"annotation {PATH} must be a path that begins with /")
    return text
