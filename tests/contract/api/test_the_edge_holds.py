"""What every request meets: ids, headers, limits, our form of errors, CORS, documentation, bad input."""

from __future__ import annotations

import io
import re
from pathlib import Path

from controlplane.api import assembly
from tests.fakes import api_server
from tests.fakes.api_server import Server

ERROR_FIELDS = {"success", "error", "details", "code", "message", "detail"}


async def test_unknown_routes_and_methods_are_errors_in_our_form(server: Server) -> None:
    for method, path, status, code in (
        ("GET", "/nope", 404, "NOT_FOUND"),
        ("GET", "/api/endpoint", 404, "NOT_FOUND"),
        ("PATCH", "/jobs", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/config/user/login", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/docs/nope.js", 404, "NOT_FOUND"),
        ("OPTIONS", "/jobs", 405, "METHOD_NOT_ALLOWED"),
    ):
        answer = await server.call(method, path)
        assert (answer.status, answer.json["code"]) == (status, code), path
        assert set(answer.json) == ERROR_FIELDS
        assert answer.json["error"] == answer.json["message"] == answer.json["detail"]
    assert answer.headers["Allow"] == "GET, HEAD"


async def test_what_answers_get_answers_head(server: Server) -> None:
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/metrics", "/jobs", "/nope"):
        get, head = [await server.call(method, path) for method in ("GET", "HEAD")]
        assert (head.status, head.json) == (get.status, None), path
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert (await server.call("HEAD", "/jobs", by=None)).status == 401
    assert (await server.call("HEAD", "/ws/progress")).status == 405


async def test_every_answer_has_its_headers(server: Server) -> None:
    for path in ("/", "/health", "/nope", "/jobs", "/config/user/list"):
        headers = (await server.call("GET", path, by=None)).headers
        assert re.fullmatch(r"[0-9a-f]{16}", headers["X-Request-Id"])
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"]
        assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(headers)
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Server"] == "snap"
    given = await server.call("GET", "/health", headers={"X-Request-Id": "my-id.1"})
    assert given.headers["X-Request-Id"] == "my-id.1"
    forged = await server.call("GET", "/health", headers={"X-Request-Id": "x y"})
    assert forged.headers["X-Request-Id"] != "x y"


async def test_bodies_have_a_type_and_a_size(server: Server) -> None:
    path = "/config/registry/create"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await server.call("POST", path, raw=b"name=x", headers=form)
    assert (answer.status, answer.json["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    large = b'{"name": "' + b"x" * (1 << 20) + b'"}'
    answer = await server.call("POST", path, raw=io.BytesIO(large))
    assert (answer.status, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    squeezed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = await server.call("POST", path, raw=b"no gzip", headers=squeezed)
    assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert (await server.call("GET", "/health")).status == 200


async def test_deprecated_endpoints_take_any_body(server: Server) -> None:
    for path, words in (
        ("enable_checkpointing", "Checkpointing is now handled automatically by the DaemonSet."),
        ("install_runc", "runc installation is now handled automatically by the DaemonSet."),
        (
            "verify_checkpointing",
            "Cluster verification is now handled automatically by the DaemonSet.",
        ),
    ):
        for raw in (None, b"{", b'{"clusterName": 5}', b"[]"):
            answer = await server.call("POST", f"/cluster/{path}", raw=raw, by="vera")
            assert answer.status == 200
            assert answer.json["success"] is False
            assert answer.json["message"] == f"This endpoint is deprecated. {words}"
    assert (answer.json["details"], answer.json["output"]) == ({}, "")
    for query, raw in (
        ("", b'{"cluster_name": "\\u0000"}'),
        ("cluster_name=%00&cluster_name=", None),
    ):
        path = f"/config/cluster/nodes/edit?{query}"  # described as taking anything
        assert (await server.call("PUT", path, raw=raw)).status == 200
    assert (await server.call("GET", "/config/cluster/node?cluster_name=a%00")).status == 200


async def test_who_asks_too_often_must_wait(tmp_path: Path) -> None:
    async with api_server.running(tmp_path, rate_limit_user=5, rate_limit_anonymous=2) as server:
        answers = [await server.call("GET", "/jobs", by="vera") for _ in range(6)]
        assert [a.status for a in answers] == [200] * 5 + [429]
        assert [a.headers["X-RateLimit-Remaining"] for a in answers] == list("432100")
        refused = answers[-1]
        assert refused.json["code"] == "RATE_LIMITED"
        assert int(refused.headers["Retry-After"]) > 3000
        assert (await server.call("GET", "/jobs", by="olga")).status == 200
        strangers = [await server.call("GET", "/jobs", by="broken") for _ in range(3)]
        assert [a.status for a in strangers] == [401, 401, 429]
        assert (await server.call("GET", "/jobs", by="admin")).status == 200
        for path in ("/health", "/ready", "/metrics", "/docs", "/docs/start.js"):
            assert (await server.call("GET", path, by=None)).status == 200, path


async def test_the_proxys_word_counts_only_from_a_trusted_proxy(tmp_path: Path) -> None:
    told = {"X-Forwarded-For": "198.51.100.7"}
    async with api_server.running(
        tmp_path, rate_limit_anonymous=2, trusted_proxies=("127.0.0.0/8",)
    ) as server:
        for _ in range(3):
            last = await server.call("GET", "/", by=None, headers=told)
        assert last.status == 429
        assert (await server.call("GET", "/", by=None)).status == 200


async def test_pages_of_allowed_origins_may_call(tmp_path: Path) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Origin": "https://ui.example"}
    async with api_server.running(tmp_path, cors_origins=("https://ui.example",)) as server:
        asked = await server.call("OPTIONS", "/config/user/login", by=None, headers=ask)
        assert asked.status == 204
        assert asked.headers["Access-Control-Allow-Origin"] == "https://ui.example"
        assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
        other = ask | {"Origin": "https://evil.example"}
        refused = await server.call("OPTIONS", "/config/user/login", by=None, headers=other)
        assert refused.status == 405
        assert "Access-Control-Allow-Origin" not in refused.headers


async def test_the_documentation_needs_nothing_from_elsewhere(server: Server) -> None:
    page = await server.call("GET", "/docs", by=None)
    assert page.status == 200
    for asset in re.findall(rb'(?:src|href)="([^"]+)"', page.content):
        if asset != b"data:,":
            assert (await server.call("GET", asset.decode(), by=None)).status == 200
    assert b"//" not in page.content.replace(b"<!doctype", b"")
    described = (await server.call("GET", "/openapi.json", by=None)).json
    assert described["openapi"] == "3.1.0"
    mounted = {(r.method.lower(), r.path) for r in assembly.routes()}
    assert {(m, p) for p, ms in described["paths"].items() for m in ms} == mounted
    references = set(re.findall(r'"#/components/(\w+)/([\w-]+)"', str(described).replace("'", '"')))
    for kind, name in references:
        assert name in described["components"][kind]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["operationId"]
            assert any(int(status) < 400 for status in operation["responses"])


async def test_what_the_query_may_carry_is_described(server: Server) -> None:
    described = (await server.call("GET", "/openapi.json", by=None)).json["paths"]
    for route in assembly.routes():
        operation = described[route.path][route.method.lower()]
        parameters = {p["name"]: p for p in operation.get("parameters", ()) if p["in"] == "query"}
        aliases = getattr(route.takes, "aliases", {})
        for field in (*route.query_fields, *route.also_query):
            names = {field, *(alias for alias, one in aliases.items() if one == field)}
            assert names <= set(parameters), (route.method, route.path)
        for field in route.also_query:  # one of both, and neither alone is required
            assert parameters[field]["required"] is False
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            assert field in body["properties"]
            assert field not in body.get("required", ())


async def test_readiness_and_figures(server: Server) -> None:
    await server.call("GET", "/jobs")
    await server.call("GET", "/nope")
    assert (await server.call("GET", "/ready", by=None)).json["status"] == "ready"
    figures = (await server.call("GET", "/metrics", by=None)).content.decode()
    assert 'snap_http_requests_total{method="GET",path="/jobs",status="200"}' in figures
    assert 'snap_http_errors_total{code="NOT_FOUND"}' in figures


async def test_closed_figures_need_a_token(tmp_path: Path) -> None:
    async with api_server.running(tmp_path, metrics_open=False) as server:
        assert (await server.call("GET", "/metrics", by=None)).status == 401
        assert (await server.call("GET", "/metrics", by="vera")).status == 200


async def test_the_state_of_clusters(server: Server) -> None:
    totals = (await server.call("GET", "/cluster/statistics", by="vera")).json
    assert totals["total_clusters"] == totals["active_clusters"] == totals["total_nodes"] == 1
    assert totals["total_checkpoints"] == totals["total_pods"] == 0
    status = (await server.call("GET", "/cluster/status/c1", by="vera")).json
    assert (status["status"], status["daemonset_status"]) == ("healthy", "running")
    assert status["nodes"][0]["name"] == "node-1"
    assert status["nodes"][0]["checkpointing_enabled"] is True
    summary = (await server.call("GET", "/cluster/status/summary?cluster_name=c1")).json
    assert summary["message"] == "Cluster status: 1/1 nodes ready"
    unknown = await server.call("GET", "/cluster/status/nope")
    assert (unknown.status, unknown.json["code"]) == (404, "CLUSTER_NOT_FOUND")
    await server.call("POST", "/config/clusters/create", {"name": "empty"})
    empty = (await server.call("GET", "/cluster/status/empty")).json
    assert (empty["status"], empty["daemonset_status"]) == ("unknown", "not_deployed")


async def test_a_full_disk_is_told_and_nothing_is_lost(server: Server) -> None:
    secret = {"name": "s", "api_key": {"k": "v" * 8000}}
    await server.store.write(lambda db: db.execute("PRAGMA max_page_count=1").fetchall())
    refused = await server.call("POST", "/config/secret/create", secret)
    assert (refused.status, refused.json["code"]) == (507, "INSUFFICIENT_STORAGE")
    assert "disk is full" in refused.json["error"]
    assert (await server.call("GET", "/jobs")).status == 200
    await server.store.write(lambda db: db.execute("PRAGMA max_page_count=100000").fetchall())
    assert (await server.call("POST", "/config/secret/create", secret)).status == 200
