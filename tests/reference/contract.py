"""The documented requests and answers, read from the files beside this one, and how an answer is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Documented:
    """One documented request.

    Attributes:
        dialect: ``S`` for the reference, ``O`` for the older server's.
        query: names of parameters (the reference), or names and values.
        answer: example of the answer; None where none is documented.
        texts: fields whose text is part of the promise.
        by: whose token it carries.
    """

    dialect: str
    title: str
    method: str
    path: str
    query: Any = None
    body: Any = None
    answer: Any = None
    texts: tuple[str, ...] = ()
    status: int = 200
    file: str = ""
    media: str = "application/json"
    by: str = "admin"
    script: str = ""

    def __str__(self) -> str:
        return f"{self.dialect} {self.method} {self.path} ({self.title})"


@dataclass(frozen=True)
class Reference:
    """The reference as it was written."""

    base_url: str
    requests: tuple[Documented, ...]
    error: Mapping[str, Any]
    error_codes: Mapping[str, str]
    rate_limits: Mapping[str, Any]
    examples: tuple[Mapping[str, str], ...] = field(default=())


def reference() -> Reference:
    """The reference that most clients were written against."""
    content = yaml.safe_load((FOLDER / "reference.yaml").read_text())
    # a text that is the same in every answer is promised where the reference spells it out
    texts = {"This endpoint is deprecated": ("message",), "Checkpoint created": ("message",)}
    made = []
    for one in content["requests"]:
        message = one.get("answer", {}).get("message", "")
        promised = next((t for begins, t in texts.items() if message.startswith(begins)), ())
        made.append(Documented(dialect="S", texts=promised, **one))
    return Reference(
        content["base_url"],
        tuple(made),
        content["error"],
        content["error_codes"],
        content["rate_limits"],
        tuple(content["examples"]),
    )


def dialect_o() -> tuple[Documented, ...]:
    """What clients of the older server send and read."""
    content = yaml.safe_load((FOLDER / "dialect_o.yaml").read_text())
    return tuple(
        Documented(dialect="O", **{**one, "texts": tuple(one.get("texts", ()))})
        for one in content["requests"]
    )


def differences(wanted: Any, got: Any, where: str = "") -> Iterator[str]:
    """What of the documented answer is missing in ``got``, or has another type; each one sentence."""
    if wanted is None:  # documented as null, or of no fixed type
        return
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            yield f"{where or 'the answer'} is {_kind(got)}, not an object"
            return
        for name, value in wanted.items():
            if name not in got:
                yield f"{where}.{name} is missing".lstrip(".")
            else:
                yield from differences(value, got[name], f"{where}.{name}".lstrip("."))
    elif isinstance(wanted, list):
        if not isinstance(got, list):
            yield f"{where or 'the answer'} is {_kind(got)}, not a list"
        elif wanted and not got:
            yield f"{where} is empty, so what is in it can't be compared"
        elif wanted:
            for number, item in enumerate(got):
                yield from differences(wanted[0], item, f"{where}.{number}".lstrip("."))
    elif _kind(wanted) != _kind(got):
        yield f"{where} is {_kind(got)}, not {_kind(wanted)}"


def at(answer: Any, path: str) -> Any:
    """The value at a dotted path."""
    for name in path.split("."):
        answer = answer[int(name)] if isinstance(answer, list) else answer[name]
    return answer


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    named: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return named.get(type(value), "null")
