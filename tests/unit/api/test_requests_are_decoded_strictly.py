"""The decoder at the edge: what it takes, and the sentence with which it refuses."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import msgspec
import pytest
from msgspec import Meta

from controlplane.api.decoding import DEPTH_LIMIT, Decoder
from controlplane.api.fields import TIME_PATTERN, Line, Name
from controlplane.api.routing import Route
from controlplane.errors import VALIDATION_ERROR, Refused


class Wanted(msgspec.Struct):
    """A bit of everything."""

    aliases: ClassVar[dict[str, str]] = {"registry": "url", "kind": "mode"}
    name: Name
    url: Line = ""
    mode: Literal["fast", "slow"] = "fast"
    count: Annotated[int, Meta(ge=1, le=10)] = 1
    seconds: Annotated[float, Meta(gt=0)] | None = None
    flag: bool = True
    tags: Annotated[list[Name], Meta(max_length=2)] = []
    inner: dict[str, Line] = {}


async def _handler(call: object, wanted: object) -> None:
    """Nothing."""


def _decode(
    body: bytes = b"", query: tuple[tuple[str, str], ...] = (), *, method: str = "POST"
) -> Wanted:
    route = Route(
        method=method,
        path="/x",
        handler=_handler,
        section="x",
        takes=Wanted,
        query=("name", "flag"),
    )
    wanted = Decoder(route)({}, query, body)
    assert isinstance(wanted, Wanted)
    return wanted


def test_unknown_fields_are_ignored() -> None:
    assert _decode(b'{"name": "a", "other": [1, {"x": null}]}').name == "a"


def test_of_duplicates_the_last_one_wins() -> None:
    assert _decode(b'{"name": "a", "name": "b"}').name == "b"
    assert _decode(query=(("name", "a"), ("name", "b"))).name == "b"


def test_both_dialects_are_read_and_the_reference_wins() -> None:
    assert _decode(b'{"name": "a", "registry": "o"}').url == "o"
    assert _decode(b'{"name": "a", "registry": "o", "url": "s"}').url == "s"
    assert _decode(b'{"name": "a", "url": "s", "registry": "o"}').url == "s"
    with pytest.raises(Refused, match="Field `registry` must be a string"):
        _decode(b'{"name": "a", "url": "s", "registry": 5}')


def test_the_body_wins_over_the_query() -> None:
    wanted = _decode(b'{"name": "b"}', (("name", "a"), ("flag", "false")))
    assert (wanted.name, wanted.flag) == ("b", False)


def test_only_declared_fields_come_from_the_query_of_a_post() -> None:
    assert _decode(b'{"name": "a"}', (("url", "elsewhere"),)).url == ""


def test_a_get_takes_everything_from_the_query() -> None:
    wanted = _decode(query=(("name", "a"), ("count", "3"), ("seconds", "0.5")), method="GET")
    assert (wanted.count, wanted.seconds) == (3, 0.5)


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing() -> None:
    wanted = _decode(b'{"name": "a", "count": 3.0, "seconds": 2.0}')
    assert (wanted.count, wanted.seconds) == (3, 2.0)


BAD_BODIES = {
    b"": "Field `name` is required.",
    b"{}": "Field `name` is required.",
    b"[]": "The body must be a JSON object, not a list.",
    b'"x"': "The body must be a JSON object, not a string.",
    b"null": "The body must be a JSON object, not null.",
    b"{": "The body is not valid JSON: Input data was truncated.",
    b'{"name": "a"} x': "The body is not valid JSON: JSON is malformed: trailing characters (byte 15).",
    b'{"name": "\xff"}': "The body is not valid JSON",
    b'{"name": NaN}': "The body is not valid JSON",
    b'{"name": "a", "seconds": NaN}': "The body is not valid JSON",
    b'{"name": "a", "seconds": 1e999}': "The body is not valid JSON: Number out of range.",
    b'{"name": null}': "Field `name` must be a string, not null.",
    b'{"name": 5}': "Field `name` must be a string, not a whole number.",
    b'{"name": {"a": 1}}': "Field `name` must be a string, not an object.",
    b'{"name": ""}': "Field `name` must be 1-63 of a-z A-Z 0-9 . _ -, starting with a letter or digit.",
    b'{"name": "a\\n"}': "Field `name` must be 1-63 of a-z",
    b'{"name": "-a"}': "Field `name` must be 1-63 of a-z",
    b'{"name": "\xd0\xb0bc"}': "Field `name` must be 1-63 of a-z",  # a Cyrillic look-alike
    b'{"name": "a\\u0000b"}': "Field `name` must not contain a NUL character.",
    b'{"name": "' + b"a" * 64 + b'"}': "Field `name` must be 1-63 of a-z",
    b'{"name": "a", "registry": 5}': "Field `registry` must be a string, not a whole number.",
    b'{"name": "a", "url": "x\\ny"}': "Field `url` must be one line without control characters.",
    b'{"name": "a", "url": "'
    + b"x" * 1025
    + b'"}': "Field `url` must have at most 1024 characters.",
    b'{"name": "a", "tags": ["a", "b", "c"]}': "Field `tags` must have at most 2 entries.",
    b'{"name": "a", "mode": "medium"}': "Field `mode` must be one of: fast, slow.",
    b'{"name": "a", "kind": 1}': "Field `kind` must be a string, not a whole number.",
    b'{"name": "a", "count": 0}': "Field `count` must be at least 1.",
    b'{"name": "a", "count": 11}': "Field `count` must be at most 10.",
    b'{"name": "a", "count": "3"}': "Field `count` must be a whole number, not a string.",
    b'{"name": "a", "count": 1.5}': "Field `count` must be a whole number, not a number.",
    b'{"name": "a", "count": ' + b"9" * 400 + b"}": "Field `count` must be at most 10.",
    b'{"name": "a", "seconds": 0}': "Field `seconds` must be more than 0.",
    b'{"name": "a", "flag": 1}': "Field `flag` must be true or false, not a whole number.",
    b'{"name": "a", "flag": "true"}': "Field `flag` must be true or false, not a string.",
    b'{"name": "a", "tags": ["b", ""]}': "Field `tags[1]` must be 1-63 of a-z",
    b'{"name": "a", "tags": {"b": 1}}': "Field `tags` must be a list, not an object.",
    b'{"name": "a", "inner": {"k": 1}}': "Field `inner",
    b'{"name": "a", "inner": {"k": "\\u0000"}}': "Field `inner` must be one line without control",
    b'{"name": "\\ud800"}': "The body is not valid JSON",
    b"[" * 100_000: "The body is nested deeper than 32 levels.",
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000: "The body is nested deeper than 32 levels.",
}


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:40]))
def test_a_bad_body_is_refused_with_one_sentence(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        _decode(body)
    assert refused.value.code == VALIDATION_ERROR
    assert refused.value.message.startswith(BAD_BODIES[body]) or BAD_BODIES[body] in str(
        refused.value
    )
    assert refused.value.message.endswith(".")
    assert "\n" not in refused.value.message


BAD_QUERIES = {
    ("count", "x"): "Field `count` must be a whole number, not a string.",
    ("count", ""): "Field `count` must be a whole number, not a string.",
    ("count", "0"): "Field `count` must be at least 1.",
    ("count", "9" * 30): "Field `count`",
    ("seconds", "nan"): "Field `seconds`",
    ("seconds", "inf"): "Field `seconds` must be a finite number.",
    ("flag", "perhaps"): "Field `flag` must be true or false, not a string.",
    ("name", "a\x00"): "Field `name` must not contain a NUL character.",
    ("name", "a\n"): "Field `name` must be 1-63",
    ("seconds", "null"): "Field `seconds` must be a number, not a string.",
    ("mode", "medium"): "Field `mode` must be one of: fast, slow.",
    ("kind", "medium"): "Field `kind` must be one of: fast, slow.",
}


@pytest.mark.parametrize("pair", BAD_QUERIES, ids=repr)
def test_a_bad_query_is_refused_with_one_sentence(pair: tuple[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        _decode(query=(("name", "a"), pair), method="GET")
    assert str(refused.value).startswith(BAD_QUERIES[pair])


def test_nesting_up_to_the_limit_is_taken() -> None:
    deep = DEPTH_LIMIT - 1
    assert _decode(b'{"name": "a", "x": ' + b"[" * deep + b"]" * deep + b"}").name == "a"
    with pytest.raises(Refused):
        _decode(b'{"name": "a", "x": ' + b"[" * (deep + 1) + b"]" * (deep + 1) + b"}")


def test_wide_bodies_are_not_taken_for_deep_ones() -> None:
    assert _decode(b'{"name": "a", "x": [' + b"[]," * 1000 + b"[]]}").name == "a"


def test_times_that_nobody_can_read_are_none_for_the_schema_either() -> None:
    assert re.search(TIME_PATTERN, "0001-01-01T00:00:00Z")
    assert not re.search(TIME_PATTERN, "0000-01-01T00:00:00Z")  # "date-time" leaves out 30 February


def test_the_refused_value_is_never_repeated() -> None:
    for body in (b'{"name": "hunter2!"}', b'{"name": "a", "mode": "hunter2!"}'):
        with pytest.raises(Refused) as refused:
            _decode(body)
        assert "hunter2" not in refused.value.message + refused.value.details
