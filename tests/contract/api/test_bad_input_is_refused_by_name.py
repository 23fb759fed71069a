"""Every field of every endpoint, missing, null, of another type, empty, too long, with NUL, newlines, look-alikes.

Generated from the routes: a new endpoint is asked as soon as it is there. What is refused is refused with 400 and one
sentence that names the field and does not repeat its value; what is accepted breaks nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
import pytest_asyncio
from msgspec import inspect

from controlplane.api import assembly
from controlplane.api.routing import Route
from tests.fakes import api_server
from tests.fakes.api_server import Answer, Server

OF_KIND: Final[dict[str, tuple[Any, ...]]] = {
    "null": (None,),
    "whole": (5, -1, 2**70),
    "number": (1.5, -1e300),
    "boolean": (True,),
    "string": ("x",),
    "list": ([], [[]], [None]),
    "object": ({}, {"a": {}}),
}
LONG: Final = "x" * 20_000
LOOK_ALIKE: Final = "\N{CYRILLIC SMALL LETTER A}dmin"
TEXTS: Final = (
    "",
    LONG,
    "a\nb",
    "a\rb",
    LOOK_ALIKE,
    "\u202eadmin",
    "../../etc/passwd",
    "' OR 1=1 --",
)
# what may have more than one line, or letters of every script
SECRETS: Final = frozenset({"password", "current_password", "token"})
DOCUMENTS: Final = frozenset({"kubeconfig_content", "ca_pem"})
PROSE: Final = frozenset(
    [
        "username",
        "name",
        "email",
        "checkpoint_name",
        "checkpoint_path",
        "app",
        "other",
    ]
)
KINDS: Final[dict[type[inspect.Type], set[str]]] = {
    inspect.NoneType: {"null"},
    inspect.StrType: {"string"},
    inspect.EnumType: {"string"},
    inspect.LiteralType: {"string"},
    inspect.IntType: {"whole"},
    inspect.FloatType: {"whole", "number"},
    inspect.BoolType: {"boolean"},
    inspect.ListType: {"list"},
    inspect.DictType: {"object"},
    inspect.StructType: {"object"},
}
ROUTES: Final = assembly.routes()
WITH_BODY: Final = [r for r in ROUTES if r.body_fields and not r.lenient and not r.streams]
WITH_QUERY: Final = [r for r in ROUTES if r.query_fields and not r.path.startswith("/ws/")]
WITH_PATH: Final = [r for r in ROUTES if r.path_fields]


def _title(route: Route) -> str:
    return f"{route.method} {route.path}"


def _fields(route: Route) -> dict[str, inspect.Field]:
    info = inspect.type_info(route.takes)
    assert isinstance(info, inspect.StructType)
    return {str(field.encode_name): field for field in info.fields}


def _kinds(info: inspect.Type) -> set[str]:
    """The kinds of JSON values that a field of this type takes."""
    if isinstance(info, inspect.UnionType):
        return set().union(*(_kinds(part) for part in info.types))
    return _kinds(info.type) if isinstance(info, inspect.Metadata) else KINDS[type(info)]


def _strings(info: inspect.Type) -> list[inspect.StrType]:
    if isinstance(info, inspect.UnionType):
        return [text for part in info.types for text in _strings(part)]
    if isinstance(info, inspect.Metadata):
        return _strings(info.type)
    return [info] if isinstance(info, inspect.StrType) else []


def _texts(info: inspect.Type, where: str) -> Iterator[tuple[str, inspect.StrType]]:
    """Every text within a field of this type, and where."""
    match info:
        case inspect.StrType():
            yield where, info
        case inspect.Metadata():
            yield from _texts(info.type, where)
        case inspect.UnionType():
            for part in info.types:
                yield from _texts(part, where)
        case inspect.ListType():
            yield from _texts(info.item_type, f"{where}[]")
        case inspect.DictType():
            yield from _texts(info.key_type, f"{where}.<name>")
            yield from _texts(info.value_type, f"{where}.<value>")
        case inspect.StructType():
            for field in info.fields:
                yield from _texts(field.type, f"{where}.{field.encode_name}".lstrip("."))


def _valid(route: Route) -> dict[str, Any]:
    """A body with every required field."""
    body = dict(getattr(route.takes, "example", {}))
    for name, field in _fields(route).items():
        if name in route.body_fields and field.required and name not in body:
            kinds = _kinds(field.type)
            body[name] = ["ns"] if "list" in kinds else {"a": "b"} if "object" in kinds else "valid"
    aliases: dict[str, str] = getattr(route.takes, "aliases", {})
    return {str(aliases.get(name, name)): value for name, value in body.items()}


async def _send(server: Server, route: Route, body: object) -> Answer:
    path = re.sub(r"{\w+}", "nothing", route.path)
    by = server.tokens["agent"] if route.by_agents else "admin"
    return await server.call(route.method, path, raw=json.dumps(body).encode(), by=by)


def _is_refused(answer: Answer, name: str, value: object = None) -> None:
    assert answer.status == 400, (name, value, answer.json)
    assert answer.json["code"] == "VALIDATION_ERROR"
    sentence = answer.json["error"]
    assert sentence.startswith(f"Field `{name}"), (name, sentence)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 400
    if isinstance(value, str) and len(value) > 3:
        assert value not in sentence


def _never(route: Route) -> tuple[int, ...]:
    """Statuses that no input may lead to; a login may be wrong, of course."""
    return (500,) if route.path == "/config/user/login" else (401, 500)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def quiet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One API for all of these tests, while no node is there: what is accepted starts nothing."""
    async with api_server.running(tmp_path_factory.mktemp("bad-input")) as server:
        token = await server.call("POST", "/config/clusters/c1/agent-token")
        server.tokens["agent"] = token.json["token"]
        server.fleet.connected = False
        yield server


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", WITH_BODY, ids=_title)
async def test_values_of_another_kind_are_refused(quiet: Server, route: Route) -> None:
    for name, field in _fields(route).items():
        taken = _kinds(field.type)
        for kind, values in OF_KIND.items() if name in route.body_fields else ():
            for value in values:
                answer = await _send(quiet, route, _valid(route) | {name: value})
                if kind not in taken and not (kind == "whole" and "number" in taken):
                    _is_refused(answer, name)
                assert answer.status not in _never(route), (name, value, answer.json)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", WITH_BODY, ids=_title)
async def test_fields_that_are_missing_are_named(quiet: Server, route: Route) -> None:
    for name, field in _fields(route).items():
        if field.required and name in route.body_fields:
            body = {key: value for key, value in _valid(route).items() if key != name}
            _is_refused(await _send(quiet, route, body), name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", WITH_BODY, ids=_title)
async def test_texts_that_can_not_be_are_refused(quiet: Server, route: Route) -> None:
    for name, field in _fields(route).items():
        if name not in route.body_fields or "string" not in _kinds(field.type):
            continue
        _is_refused(await _send(quiet, route, _valid(route) | {name: "a\x00b"}), name)
        for value in TEXTS:
            answer = await _send(quiet, route, _valid(route) | {name: value})
            assert answer.status not in _never(route), (name, value, answer.json)
            if _must_refuse(name, value):
                _is_refused(answer, name, value)


def _must_refuse(name: str, value: str) -> bool:
    """Whether this text is right for no field of this name."""
    if value == LONG:
        return name not in DOCUMENTS
    if "\n" in value or "\r" in value:
        return name not in SECRETS | DOCUMENTS | {"checkpoint_name", "checkpoint_path"}
    return value == LOOK_ALIKE and name not in SECRETS | PROSE | {"ca_pem"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", WITH_BODY, ids=_title)
async def test_bodies_that_are_no_objects_are_refused(quiet: Server, route: Route) -> None:
    path = re.sub(r"{\w+}", "nothing", route.path)
    by = quiet.tokens["agent"] if route.by_agents else "admin"
    for raw in (b"[]", b"null", b'"x"', b"{", b'{"a": NaN}', b"\xff", b"[" * 5000, b'{"a":' * 90):
        answer = await quiet.call(route.method, path, raw=raw, by=by)
        assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR"), raw[:20]
        assert answer.json["error"].startswith("The body ")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", WITH_QUERY, ids=_title)
async def test_bad_queries_are_refused_and_nothing_breaks(quiet: Server, route: Route) -> None:
    path = re.sub(r"{\w+}", "nothing", route.path)
    fields = _fields(route)
    for name in route.query_fields:
        takes_all = name in fields and isinstance(fields[name].type, inspect.AnyType)
        for value in ("", "x" * 5000, "%00", "a%0Ab", "-1", "nan", "1e999", "%ff%fe", "' OR 1=1"):
            answer = await quiet.call(route.method, f"{path}?{name}={value}")
            assert answer.status not in _never(route), (name, value, answer.json)
            if value == "%00" and isinstance(answer.json, dict) and not takes_all:
                assert answer.status in (400, 415)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", WITH_PATH, ids=_title)
async def test_bad_paths_are_refused_and_nothing_breaks(quiet: Server, route: Route) -> None:
    for value in ("%00", "a%0a", "%ff", "x" * 600, "..%2f..", "%20", "'%20OR"):
        path = re.sub(r"{\w+}", value, route.path)
        answer = await quiet.call(route.method, path)
        assert 400 <= answer.status < 500, (path, answer.status)


async def test_of_names_given_twice_the_last_one_wins(server: Server) -> None:
    raw = b'{"cluster_config_name": 5, "cluster_config_name": "c1"}'
    assert (await server.call("POST", "/kubectl/login", raw=raw)).status == 200


def test_no_field_of_text_takes_a_nul() -> None:
    fitting = {
        f"{_title(route)} {where}"
        for route in ROUTES
        if route.takes is not None and not route.lenient
        for where, text in _texts(inspect.type_info(route.takes), "")
        if text.pattern is None or re.search(text.pattern, "a\x00a a\x00a a\x00a")
    }
    assert fitting == set()


def test_every_field_of_text_has_a_limit() -> None:
    unlimited = {
        f"{_title(route)} {name}"
        for route in ROUTES
        if route.takes is not None and not route.lenient
        for name, field in _fields(route).items()
        for text in _strings(field.type)
        if text.max_length is None and text.pattern is None
    }
    assert unlimited == set()
