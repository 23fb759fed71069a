"""OpenAPI 3.1, made from the routes and their structs: what is served is what is described."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controlplane import __version__
from controlplane.api.calls import Accepted
from controlplane.api.problems import Problem, status_of
from controlplane.api.routing import Route, Section
from controlplane.identity import Role

_REFERENCE: Final = "#/components/schemas/{name}"
_ABOUT: Final = (
    "Checkpoints of running Kubernetes containers: make them, push them as images, look into them, "
    "restore them.\n\nUnknown fields are ignored; of duplicate keys in a body the last one wins, and "
    "it may be nested 32 levels deep. Log in at `POST /config/user/login` and give the token to *Authorize*."
)
_HEADERS: Final = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Names this request in the log."},
    "X-RateLimit-Limit": {"schema": {"type": "integer"}, "description": "Requests per hour."},
    "X-RateLimit-Remaining": {"schema": {"type": "integer"}, "description": "Left of them."},
    "X-RateLimit-Reset": {
        "schema": {"type": "integer"},
        "description": "Unix seconds when the oldest counted request is forgotten.",
    },
}
_SHOWN: Final = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
_HERE_OR_THERE: Final = "Here or in the body, which wins."
_REASONS: Final = {
    200: "Done",
    101: "A WebSocket",
    202: "The job was accepted and goes on",
    206: "The part that was asked for",
    304: "Nothing changed",
}


def document(sections: Sequence[Section], routes: Iterable[Route]) -> dict[str, Any]:
    """The description of ``routes`` as a JSON object."""
    listed = list(routes)
    schemas = _Schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "SNAP", "version": __version__, "description": _ABOUT},
        "tags": [{"name": s.title, "description": s.about} for s in sections],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": _HEADERS,
            "responses": schemas.errors,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "token"},
            },
        },
    }


class _Schemas:
    """The JSON schemas of every struct that a route takes or gives."""

    def __init__(self, routes: Iterable[Route]) -> None:
        types: dict[Any, None] = {Problem: None, Accepted: None}
        for route in routes:
            for kind in (route.takes, route.gives):
                if kind is not None:
                    types[kind] = None
        found, self.components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        self.errors: dict[str, dict[str, Any]] = {}
        self._of = dict(zip(types, found, strict=True))

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of ``kind``, by reference where it has a name."""
        schema: dict[str, Any] = self._of[kind]
        return schema

    def error(self, codes: Sequence[str]) -> dict[str, Any]:
        """The answer that is an error with one of ``codes``, by reference."""
        name = ".".join(codes)
        self.errors[name] = {
            "description": ", ".join(codes),
            "headers": _SHOWN,
            "content": {
                "application/json": {"schema": self.of(Problem), "example": _example(codes[0])}
            },
        }
        return {"$ref": f"#/components/responses/{name}"}

    def fields(self, struct: type[msgspec.Struct]) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Schemas of a struct's fields, and which of them are required."""
        name = self._of[struct]["$ref"].rpartition("/")[2]
        schema = self.components[name]
        return schema.get("properties", {}), schema.get("required", ())


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.section],
        "operationId": _operation_id(route),
        "summary": route.summary,
        "responses": _responses(route, schemas),
    }
    role = f"Needs the role **{route.needs}**." if route.needs else ""
    if words := "\n\n".join(part for part in (route.description, role) if part):
        operation["description"] = words
    if parameters := list(_parameters(route, schemas)):
        operation["parameters"] = parameters
    if body := _body(route, schemas):
        operation["requestBody"] = body
    operation["security"] = [] if route.needs is None else _security(route)
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    by_cookie: list[dict[str, list[str]]] = (
        [{"cookie": []}] if route.method in {"GET", "HEAD"} else []
    )
    return [{"token": []}, *by_cookie]


def _operation_id(route: Route) -> str:
    """Unique also where one handler has several paths."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", route.path).strip("_")
    return f"{route.name}__{route.method.lower()}_{words}"


def _parameters(route: Route, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    if route.takes is None:
        return
    fields, required = schemas.fields(route.takes)
    for name in route.path_fields:
        yield {"name": name, "in": "path", "required": True, "schema": _not_null(fields[name])}
    for name in (*route.query_fields, *route.also_query):
        told = {"description": _HERE_OR_THERE} if name in route.body_fields else {}
        yield told | {
            "name": name,
            "in": "query",
            "required": name in required and name not in route.also_query,
            "schema": _not_null(fields[name]),
        }
    for alias, field in _aliases(route).items():
        if field in (*route.query_fields, *route.also_query):
            yield {
                "name": alias,
                "in": "query",
                "description": f"The same as `{field}`.",
                "schema": _not_null(fields[field]),
            }


def _aliases(route: Route) -> Mapping[str, str]:
    """The other dialect's names of the fields that ``route`` takes."""
    aliases: Mapping[str, str] = getattr(route.takes, "aliases", {})
    return aliases


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out, never null."""
    choices = [s for s in schema.get("anyOf", []) if s != {"type": "null"}]
    if not choices:
        return schema
    rest = {k: v for k, v in schema.items() if k not in {"anyOf", "default"}}
    return rest | (choices[0] if len(choices) == 1 else {"anyOf": choices})


def _body(route: Route, schemas: _Schemas) -> dict[str, Any] | None:
    schema: dict[str, Any]
    if route.streams:
        file = {"type": "string", "format": "binary", "description": "A checkpoint's archive."}
        schema = {"type": "object", "properties": {"file": file}, "required": ["file"]}
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    if route.lenient:
        return {"required": False, "content": {"application/json": {"schema": {}}}}
    if route.takes is None or set(route.body_fields) <= set(route.query):
        return None
    _, required = schemas.fields(route.takes)
    described = [n for n in route.body_fields if n not in route.query or n not in required]
    schema, needed = _object(route, described, schemas)
    content: dict[str, Any] = {"schema": schema}
    if example := getattr(route.takes, "example", None):
        content["example"] = example
    return {"required": needed, "content": {"application/json": content}}


def _object(
    route: Route, described: Sequence[str], schemas: _Schemas
) -> tuple[dict[str, Any], bool]:
    """The schema of a body with the fields ``described``, and whether it must be there."""
    assert route.takes is not None  # noqa: S101 - narrows; the caller looked
    fields, required = schemas.fields(route.takes)
    properties = {name: fields[name] for name in described}
    names = {name: [name] for name in described}
    for alias, field in _aliases(route).items():
        if field in names:
            names[field].append(alias)
            same = {k: v for k, v in fields[field].items() if k != "default"}
            properties[alias] = same | {"description": f"The same as `{field}`, which wins."}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    needed = [n for n in described if n in required and n not in route.also_query]
    if alone := [name for name in needed if len(names[name]) == 1]:
        schema["required"] = alone
    conditions = [
        {"anyOf": [{"required": [name]} for name in names[field]]}
        for field in needed
        if len(names[field]) > 1
    ] + list(getattr(route.takes, "rules", ()))
    if conditions:
        schema["allOf"] = conditions
    return schema, bool(needed)


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in (route.status, *route.accepts):
        response: dict[str, Any] = {
            "description": _REASONS.get(status, "Done"),
            "headers": _SHOWN,
        }
        if status == 202:
            response["content"] = {"application/json": {"schema": schemas.of(Accepted)}}
        elif route.gives is not None:
            response["content"] = {route.media: {"schema": schemas.of(route.gives)}}
        elif route.media != "application/json" and status != 304:
            response["content"] = {route.media: {}}
        responses[str(status)] = response
    for status, codes in sorted(_errors(route).items()):
        responses[str(status)] = schemas.error(codes)
    return responses


def _errors(route: Route) -> dict[int, list[str]]:
    """Codes that the route may answer, by status."""
    codes = list(route.errors)
    if route.takes is not None:
        codes.append("VALIDATION_ERROR")
    if route.body_fields:
        codes += ["PAYLOAD_TOO_LARGE", "REQUEST_TIMEOUT"] + (
            [] if route.lenient else ["UNSUPPORTED_MEDIA_TYPE"]
        )
    if route.needs is not None:
        codes.append("AUTHENTICATION_FAILED")
    if route.needs not in (None, Role.VIEWER):
        codes.append("PERMISSION_DENIED")
    if route.counted:
        codes.append("RATE_LIMITED")
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(status_of(code), []).append(code)
    return by_status


@functools.cache
def _example(code: str) -> dict[str, Any]:
    sentence = "One sentence: what happened, to what, and what to do."
    problem = Problem(
        error=sentence, details="the cause", code=code, message=sentence, detail=sentence
    )
    builtins: dict[str, Any] = msgspec.to_builtins(problem)
    return builtins
