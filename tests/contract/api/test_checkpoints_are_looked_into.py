"""Insights over HTTP, in both dialects: who may see what, what is kept and how; the node is a fake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.store import secrets
from controlplane.store.records import JobFailure
from tests.fakes.api_server import PASSWORD, Answer, Server

BODY = {"pod_name": "test-app", "namespace": "default"}
BEYOND_SUMMARY = ("processes", "memory", "files", "sockets", "volatility", "secrets", "diff")


async def _made(server: Server) -> str:
    answer = await server.call("POST", "/checkpoint/kubelet/checkpoint", BODY)
    return str(answer.json["checkpoint_id"])


async def _insights(server: Server, path: str, by: str = "olga", **options: Any) -> Answer:
    body = {"checkpoint_path": path, **options}
    return await server.call("POST", "/checkpoint/insights", body, by=by)


async def test_a_checkpoint_is_found_by_id_path_and_file_name(server: Server) -> None:
    made = await _made(server)
    for named in (made, f"/app/checkpoints/test-app-{made}.tar", f"test-app-{made}.tar"):
        answer = await _insights(server, named, analysis_type="processes")
        assert answer.status == 200, answer.json
        assert answer.json["success"] is True
        assert answer.json["checkpoint_path"] == f"/app/checkpoints/test-app-{made}.tar"
        assert answer.json["analysis_type"] == "processes"
        assert answer.json["insights"] == {"of": server.fleet.started[-1].id}
        assert answer.json["message"] == "Analysis completed successfully"
    assert [job.kind for job in server.fleet.started] == ["checkpoint", "analyze"]
    told = server.fleet.started[-1].spec.analyze
    assert told is not None
    assert (told.checkpoint_id, told.analysis_type) == (made, "processes")


async def test_a_report_is_made_again_when_asked(server: Server) -> None:
    made = await _made(server)
    first = await _insights(server, made, analysis_type="sockets")
    again = await _insights(server, made, analysis_type="sockets", refresh=True)
    assert first.json["insights"] != again.json["insights"]


async def test_viewers_see_the_summary_only(server: Server) -> None:
    made = await _made(server)
    assert (await _insights(server, made, "vera")).status == 200
    for kind in BEYOND_SUMMARY:
        answer = await _insights(server, made, "vera", analysis_type=kind, other=made)
        assert (answer.status, answer.json["code"]) == (403, "PERMISSION_DENIED"), kind
    assert (await _insights(server, made, "vera", with_values=True)).status == 403


async def test_operators_look_into_their_namespaces_only(server: Server) -> None:
    made = await _made(server)
    elsewhere = {"username": "otto", "role": "operator", "namespaces": ["elsewhere"]}
    await server.call("POST", "/config/user/create", elsewhere | {"password": PASSWORD})
    token = (await server.services.users.login("otto", PASSWORD, "::1")).token
    answer = await _insights(server, made, token, analysis_type="processes")
    assert (answer.status, answer.json["code"]) == (403, "PERMISSION_DENIED")


async def test_every_look_is_audited(server: Server) -> None:
    made = await _made(server)
    await _insights(server, made, analysis_type="processes", with_values=True)
    await _insights(server, made, "vera", analysis_type="secrets")
    entries = await server.services.audit.page(20)
    found = [(e.actor, e.subject, e.outcome) for e in entries if e.action == "read_insights"]
    assert found == [
        ("vera", f"{made} secrets", "PERMISSION_DENIED"),
        ("olga", f"checkpoint/{made} processes with values", "ok"),
    ]


async def test_reports_lie_sealed_and_values_go_when_they_were_read(server: Server) -> None:
    made = await _made(server)
    answer = await _insights(server, made, analysis_type="memory")
    await _insights(server, made, analysis_type="processes", with_values=True)
    names = await server.store.read(lambda db: secrets.names(db, "report/"))
    assert names == [f"report/{made}/memory"]

    def dumped(db: Any) -> str:
        return "\n".join(db.conn.iterdump())

    text = await server.store.read(dumped)
    assert f'\\"of\\":\\"{answer.json["insights"]["of"]}' not in text
    assert '"truncated"' not in text
    await server.call("DELETE", f"/checkpoint/{made}")
    assert await server.store.read(lambda db: secrets.names(db, "report/")) == []


async def test_who_does_not_wait_asks_again(server: Server) -> None:
    made = await _made(server)
    server.fleet.held = True
    answer = await _insights(server, made, analysis_type="files", wait=False)
    assert answer.status == 202
    assert answer.json["job_id"] == server.fleet.started[-1].id


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"checkpoint_path": "nope.tar"}, 404, "CHECKPOINT_NOT_FOUND"),
        ({"checkpoint_path": "../../etc/passwd"}, 404, "CHECKPOINT_NOT_FOUND"),
        ({"checkpoint_path": ""}, 400, "VALIDATION_ERROR"),
        ({"checkpoint_path": "a\nb"}, 400, "VALIDATION_ERROR"),
        ({}, 400, "VALIDATION_ERROR"),
        ({"checkpoint_path": "MADE", "analysis_type": "all"}, 400, "VALIDATION_ERROR"),
        ({"checkpoint_path": "MADE", "analysis_type": "inspect"}, 400, "VALIDATION_ERROR"),
        ({"checkpoint_path": "MADE", "analysis_type": "diff"}, 400, "VALIDATION_ERROR"),
        (
            {"checkpoint_path": "MADE", "analysis_type": "diff", "other": "nope"},
            404,
            "CHECKPOINT_NOT_FOUND",
        ),
    ],
)
async def test_what_can_not_be_looked_into_is_told(
    server: Server, body: dict[str, str], status: int, code: str
) -> None:
    made = await _made(server)
    sent = {name: made if value == "MADE" else value for name, value in body.items()}
    answer = await server.call("POST", "/checkpoint/insights", sent)
    assert (answer.status, answer.json["code"]) == (status, code), answer.json


async def test_a_damaged_checkpoint_and_an_absent_node_are_told(server: Server) -> None:
    made = await _made(server)
    server.fleet.failure = JobFailure(
        code="CHECKPOINT_REFUSED",
        message="The checkpoint can't be analysed, its mm-1.img is damaged.",
        details="mm-1.img: the CRIU image ends within an entry",
    )
    answer = await _insights(server, made, analysis_type="memory")
    assert (answer.status, answer.json["code"]) == (422, "CHECKPOINT_REFUSED")
    assert "mm-1.img" in answer.json["details"]
    server.fleet.failure = None
    server.fleet.connected = False
    answer = await _insights(server, made, analysis_type="memory")
    assert (answer.status, answer.json["code"]) == (503, "AGENT_UNAVAILABLE")


async def test_dialect_o_makes_its_reports_and_reads_them(server: Server) -> None:
    made = await _made(server)
    body = {"pod_name": "test-app", "checkpoint_name": f"test-app-{made}"}
    query = f"?pod_name=test-app&checkpoint_name=test-app-{made}"
    information = "/checkpoint/checkpointctl/information" + query
    results = "/checkpoint/analyze/volatility/results" + query
    for path in (information, results):
        assert (await server.call("GET", path, by="olga")).status == 404
    assert await _listed_analysis(server) is None
    inspected = await server.call("POST", "/checkpoint/checkpointctl", body, by="olga")
    assert inspected.json["output"] == f"/app/checkpoints/test-app-{made}.json"
    assert server.fleet.started[-1].spec.analyze.analysis_type == "inspect"  # type: ignore[union-attr]
    logs = (await server.call("GET", information, by="olga")).json["logs"]
    assert [log["of"] for log in logs] == [server.fleet.started[-1].id]
    assert await _listed_analysis(server) == f"test-app-{made}.json"
    analyzed = await server.call("POST", "/checkpoint/analyze/volatility", body, by="olga")
    assert analyzed.json["status"] == "done"
    assert analyzed.json["output_file"].endswith(".json")
    answer = await server.call("GET", results, by="olga")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert json.loads(answer.content)["of"] == server.fleet.started[-1].id


async def _listed_analysis(server: Server) -> str | None:
    listed = (await server.call("GET", "/checkpoint/list", by="olga")).json["checkpoints"]
    found: str | None = listed[0]["analysis_result"]
    return found


async def test_every_deed_is_audited_with_the_place_it_came_from(server: Server) -> None:
    for path, body in (
        ("/config/clusters/c1/agent-token", None),
        ("/checkpoint/kubelet/checkpoint", {"pod_name": "test-app", "namespace": "default"}),
        ("/operator/snapwatcher", {"name": "w", "cluster_name": "c1"}),
        ("/snaphook", {"name": "h", "cluster_name": "c1"}),
    ):
        assert (await server.call("POST", path, body)).status == 200, path
    entries = (await server.call("GET", "/audit")).json["entries"]
    deeds = {entry["action"]: entry["address"] for entry in entries}
    wanted = {"join token issued", "job checkpoint", "watcher created", "hook created"}
    assert wanted <= deeds.keys()
    assert set(deeds.values()) == {"127.0.0.1"}


async def test_logins_are_audited_and_no_mistyped_password_is(server: Server) -> None:
    for name, password in (("olga", PASSWORD), ("olga", "wrong"), ("hunter2-hunter2", "olga")):
        body = {"username": name, "password": password}
        await server.call("POST", "/config/user/login", body, by="stale")
    entries = await server.services.audit.page(3)
    assert [(e.actor, e.action, e.outcome, e.address) for e in entries] == [
        ("-", "log_in", "AUTHENTICATION_FAILED", "127.0.0.1"),
        ("olga", "log_in", "AUTHENTICATION_FAILED", "127.0.0.1"),
        ("olga", "log_in", "ok", "127.0.0.1"),
    ]
    assert "hunter2" not in str(entries)
