"""The one decoder at the edge: path, query and JSON body become one checked struct, or one sentence.

A struct may name aliases of the other dialect in ``aliases`` (sent name -> field); the field's own name wins.
Unknown fields are ignored, of duplicate keys the last wins, wrong types are refused: nothing is coerced but
the query's strings. The value that was refused is never repeated, it may be a secret.
"""

from __future__ import annotations

import enum
import functools
import math
import operator
import re
import types
import typing
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Final

import msgspec

from controlplane.api.fields import SENTENCES
from controlplane.api.routing import Route
from controlplane.errors import VALIDATION_ERROR, Refused

DEPTH_LIMIT: Final = 32
_EXACT: Final = 2.0**53  # beyond it floats skip whole numbers
_WORDS: Final = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_WRONG_TYPE: Final = re.compile(r"^Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`")
_PATTERN: Final = re.compile(r"^Expected `str` matching regex '(?P<pattern>.*)'$")
_BOUND: Final = re.compile(
    r"^Expected `(?P<kind>str|int|float|array|object)` (?P<of>of length )?(?P<op>[<>]=?) (?P<n>\S+)$"
)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>[^`]+)`$")
_OPERATORS: Final = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}


def invalid(sentence: str, details: str = "") -> Refused:
    """The error for a request that can't be understood."""
    return Refused(sentence, code=VALIDATION_ERROR, details=details or sentence)


class Decoder:
    """Reads the requests of one route; everything about its struct is worked out once.

    Args:
        route: must have ``takes``.
    """

    def __init__(self, route: Route) -> None:
        assert route.takes is not None  # noqa: S101 - narrows; assembly calls it only so
        self._struct = route.takes
        self._aliases: Mapping[str, str] = getattr(route.takes, "aliases", {})
        self._path = frozenset(route.path_fields)
        self._query = frozenset(route.query_fields) | frozenset(route.also_query)
        self._body = frozenset(route.body_fields)
        self._lenient = route.lenient
        self._types = {f.name: f.type for f in msgspec.structs.fields(route.takes)}
        self._texts = {name: _without_null(kind) for name, kind in self._types.items()}

    def __call__(
        self, path: Mapping[str, str], query: Iterable[tuple[str, str]], body: bytes
    ) -> msgspec.Struct:
        """The request as a struct.

        Raises:
            Refused: with VALIDATION_ERROR and a sentence that names the field.
        """
        values: dict[str, Any] = {}
        sent_as: dict[str, str] = {}
        for name, text in query:  # of duplicates the last one wins, as in the body
            field = self._aliases.get(name, name)
            if field in self._query:
                values[field] = self._from_text(name, field, text)
                sent_as[field] = name
        outdone = self._take_body(body, values, sent_as) if self._body and body else []
        for field in self._path:
            values[field] = self._from_text(field, field, path[field])
        wanted = self._struct_of(values, sent_as)
        for name, value in outdone:  # of no effect, but what is wrong is refused all the same
            field = self._aliases[name]
            self._struct_of(values | {field: value}, sent_as | {field: name})
        return wanted

    def _struct_of(self, values: dict[str, Any], sent_as: Mapping[str, str]) -> msgspec.Struct:
        try:
            return msgspec.convert(values, self._struct)
        except msgspec.ValidationError as cause:
            raise invalid(sentence(str(cause), sent_as, self._types)) from None

    def _take_body(
        self, body: bytes, values: dict[str, Any], sent_as: dict[str, str]
    ) -> list[tuple[str, Any]]:
        """Add the body's fields to ``values``; those that came under their own name and an alias are returned."""
        try:
            content = read_json(body)
            if not isinstance(content, dict):
                raise invalid(f"The body must be a JSON object, not {_kind(content)}.")
        except Refused:
            if self._lenient:
                return []
            raise
        outdone = []
        for name, value in content.items():
            field = self._aliases.get(name, name)
            if field not in self._body:
                continue
            if isinstance(value, str) and "\x00" in value and self._types[field] is not Any:
                raise invalid(f"Field `{name}` must not contain a NUL character.")
            if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
                value = int(value)  # noqa: PLW2901 - 3.0 is a whole number, JSON Schema says
            if field != name and field in content:
                outdone.append((name, value))
                continue
            values[field] = value
            sent_as[field] = name
        return outdone

    def _from_text(self, name: str, field: str, text: str) -> Any:
        """A value of path or query, which are always text, as the field's type; any text where that is anything."""
        if self._types[field] is Any:
            return text
        if "\x00" in text:
            raise invalid(f"Field `{name}` must not contain a NUL character.")
        try:
            value = msgspec.convert(text, self._texts[field], strict=False)
        except msgspec.ValidationError as cause:
            raise invalid(
                sentence(f"{cause} - at `$.{field}`", {field: name}, self._types)
            ) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise invalid(f"Field `{name}` must be a finite number.")
        return value


def read_json(body: bytes) -> Any:
    """What ``body`` holds.

    Raises:
        Refused: it is no JSON, too deep, or has numbers that don't fit.
    """
    try:
        content = msgspec.json.decode(body)
    except RecursionError:
        raise invalid(f"The body is nested deeper than {DEPTH_LIMIT} levels.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        reason = str(cause).split(" - at ")[0]
        raise invalid(f"The body is not valid JSON: {reason[:120]}.") from None
    if body.count(b"{") + body.count(b"[") > DEPTH_LIMIT and _depth(content) > DEPTH_LIMIT:
        raise invalid(f"The body is nested deeper than {DEPTH_LIMIT} levels.")
    return content


def _depth(content: Any) -> int:
    """How deep ``content`` is nested, counted to one more than the limit."""
    depth, level = 0, [content]
    while depth <= DEPTH_LIMIT and (
        level := [node for node in level if isinstance(node, (dict, list))]
    ):
        depth += 1
        level = [c for node in level for c in (node.values() if isinstance(node, dict) else node)]
    return depth


def sentence(reason: str, sent_as: Mapping[str, str], kinds: Mapping[str, Any]) -> str:
    """msgspec's reason as a sentence that names the field as it was sent.

    Source: the messages of msgspec.ValidationError, "<reason> - at `$.<path>`".
    """
    what, _, where = reason.partition(" - at `$")
    path = where.rstrip("`").lstrip(".").replace("[...]", "")
    if missing := _MISSING.match(what):
        name = f"{path}.{missing['name']}".lstrip(".")
        return f"Field `{name}` is required."
    first = re.split(r"[.\[]", path, maxsplit=1)[0]
    shown = sent_as.get(first, first) + path[len(first) :]
    return f"Field `{shown}` {_complaint(what, kinds.get(first) if first == path else None)}."


def _complaint(what: str, declared: Any) -> str:
    if wrong := _WRONG_TYPE.match(what):
        wanted = " or ".join(_WORDS.get(w.strip(), w.strip()) for w in wrong["wanted"].split("|"))
        return f"must be {wanted}, not {_WORDS.get(wrong['got'], wrong['got'])}"
    if pattern := _PATTERN.match(what):
        return SENTENCES.get(
            pattern["pattern"].replace("\\\\", "\\"), "has characters that are not allowed"
        )
    if bound := _BOUND.match(what):
        if bound["of"]:
            of = "characters" if bound["kind"] == "str" else "entries"
            return f"must have {_OPERATORS[bound['op']]} {bound['n']} {of}"
        return f"must be {_OPERATORS[bound['op']]} {bound['n'].removesuffix('.0')}"
    if what.startswith("Invalid enum value"):
        allowed = ", ".join(_choices(declared))
        return f"must be one of: {allowed}" if allowed else "has no such value"
    if what.startswith("Expected `"):
        return (
            f"must be {_WORDS.get(what.split('`')[1].split(' ', maxsplit=1)[0], 'of another type')}"
        )
    return "can't be read"


def _without_null(declared: Any) -> Any:
    """The type of a field in path or query, where the text "null" is just a text."""
    kinds = [kind for kind in typing.get_args(declared) if kind is not NoneType]
    if typing.get_origin(declared) not in (types.UnionType, typing.Union) or not kinds:
        return declared
    return functools.reduce(operator.or_, kinds)


def _choices(declared: Any) -> list[str]:
    if isinstance(declared, type) and issubclass(declared, enum.Enum):
        return [str(member.value) for member in declared]
    if typing.get_origin(declared) is typing.Literal:
        return [str(value) for value in typing.get_args(declared)]
    return [choice for part in typing.get_args(declared) for choice in _choices(part)]


def _kind(content: object) -> str:
    if content is None:
        return "null"
    if isinstance(content, list):
        return "a list"
    return _WORDS.get(type(content).__name__, "something else")
