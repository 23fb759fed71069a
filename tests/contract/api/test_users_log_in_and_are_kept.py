"""Accounts and sessions, over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes import api_server
from tests.fakes.api_server import PASSWORD, Server


async def _login(server: Server, username: str, password: str = PASSWORD) -> api_server.Answer:
    body = {"username": username, "password": password}
    return await server.call("POST", "/config/user/login", body, by=None)


async def test_a_login_gives_a_token_and_a_cookie(server: Server) -> None:
    answer = await _login(server, "olga")
    assert answer.status == 200
    assert answer.json["success"] is True
    assert answer.json["user"] == {"username": "olga", "role": "operator", "name": "olga"}
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"token={answer.json['token']};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    verified = await server.call("POST", "/config/user/verify", by=answer.json["token"])
    assert verified.json["user"]["username"] == "olga"


async def test_a_stale_token_does_not_hinder_a_login(server: Server) -> None:
    body = {"username": "vera", "password": PASSWORD}
    stale = {"Authorization": "Bearer nonsense", "Cookie": "token=nonsense"}
    answer = await server.call("POST", "/config/user/login", body, by=None, headers=stale)
    assert answer.status == 200


@pytest.mark.parametrize("username", ["admin", "nobody", "O'Brien \N{SNOWMAN}"])
async def test_wrong_passwords_and_unknown_users_look_the_same(
    server: Server, username: str
) -> None:
    answer = await _login(server, username, "wrong password")
    assert (answer.status, answer.json["code"]) == (401, "AUTHENTICATION_FAILED")
    assert answer.json["error"] == "The user name or the password is wrong."


async def test_an_address_that_guesses_must_wait(server: Server) -> None:
    statuses = [(await _login(server, f"user{n}", "guess")).status for n in range(7)]
    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429
    refused = await _login(server, "vera")
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) >= 1


async def test_the_cookie_reads_but_does_not_write(server: Server) -> None:
    cookie = {"Cookie": f"token={server.tokens['admin']}"}
    read = await server.call("GET", "/config/user/list", by=None, headers=cookie)
    assert read.status == 200
    written = await server.call(
        "DELETE", "/config/user/delete", {"username": "vera"}, by=None, headers=cookie
    )
    assert written.status == 401
    assert "cookie" in written.json["error"]


async def test_a_logout_ends_the_session_for_good(server: Server, tmp_path: Path) -> None:
    assert (await server.call("POST", "/config/user/logout", by="vera")).status == 200
    assert (await server.call("GET", "/jobs", by="vera")).status == 401
    await server.services.users.load()  # as after a restart
    assert (await server.call("GET", "/jobs", by="vera")).status == 401


@pytest.mark.parametrize(
    "change", [{"password": "another password"}, {"role": "viewer"}, {"namespaces": ["prod"]}]
)
async def test_a_changed_user_must_log_in_again(server: Server, change: dict[str, object]) -> None:
    changed = await server.call("PUT", "/config/user/update", {"username": "olga"} | change)
    assert changed.status == 200
    assert (await server.call("GET", "/jobs", by="olga")).status == 401
    password = str(change.get("password", PASSWORD))
    assert (await _login(server, "olga", password)).status == 200


async def test_a_name_given_away_again_does_not_bring_old_tokens_back(server: Server) -> None:
    await server.call("DELETE", "/config/user/delete", {"username": "vera"})
    assert (await server.call("GET", "/jobs", by="vera")).status == 401
    again = {"username": "vera", "password": PASSWORD, "role": "viewer"}
    assert (await server.call("POST", "/config/user/create", again)).status == 200
    assert (await server.call("GET", "/jobs", by="vera")).status == 401


async def test_nobody_removes_the_last_administrator(server: Server) -> None:
    demoted = {"username": "admin", "role": "operator"}
    for answer in (
        await server.call("DELETE", "/config/user/delete", {"username": "admin"}),
        await server.call("PUT", "/config/user/update", demoted),
    ):
        assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert (await server.call("GET", "/config/user/list")).status == 200
    second = {"username": "second", "password": PASSWORD, "role": "admin"}
    assert (await server.call("POST", "/config/user/create", second)).status == 200
    removed = await server.call("DELETE", "/config/user/delete?username=admin")
    assert removed.status == 200


async def test_two_administrators_who_remove_each_other_leave_one(server: Server) -> None:
    second = {"username": "second", "password": PASSWORD, "role": "administrator"}
    await server.call("POST", "/config/user/create", second)
    answers = await asyncio.gather(
        server.call("DELETE", "/config/user/delete", {"username": "admin"}),
        server.call("DELETE", "/config/user/delete", {"username": "second"}),
    )
    assert min(a.status for a in answers) == 200
    assert [a.status for a in answers] != [200, 200]


async def test_users_change_their_own_password_with_the_old_one(server: Server) -> None:
    body = {"username": "vera", "password": "a new password"}
    without = await server.call("PUT", "/config/user/update", body, by="vera")
    assert without.status == 403
    wrong = body | {"current_password": "wrong"}
    assert (await server.call("PUT", "/config/user/update", wrong, by="vera")).status == 403
    right = body | {"current_password": PASSWORD}
    assert (await server.call("PUT", "/config/user/update", right, by="vera")).status == 200
    assert (await _login(server, "vera", "a new password")).status == 200


@pytest.mark.parametrize(
    "change",
    [{"username": "olga", "email": "x@y"}, {"username": "vera", "role": "administrator"}],
    ids=["others", "role"],
)
async def test_users_change_nothing_that_is_not_theirs(
    server: Server, change: dict[str, str]
) -> None:
    answer = await server.call("PUT", "/config/user/update", change, by="vera")
    assert (answer.status, answer.json["code"]) == (403, "PERMISSION_DENIED")


async def test_the_list_is_a_bare_array_without_passwords(server: Server) -> None:
    listed = (await server.call("GET", "/config/user/list")).json
    assert [user["name"] for user in listed] == ["admin", "olga", "oskar", "vera"]
    assert listed[0]["userdetails"] == {
        "name": "admin",
        "role": "administrator",
        "username": "admin",
        "password": "",
    }
    own = (await server.call("GET", "/config/user/list", by="vera")).json
    assert [user["name"] for user in own] == ["vera"]


async def test_an_update_with_the_listed_values_keeps_the_password(server: Server) -> None:
    # what a web UI of the older server sends: the four fields that it read from the list
    for password in ("", "********"):
        body = {"name": "Olga", "username": "olga", "role": "operator", "password": password}
        assert (await server.call("PUT", "/config/user/update", body)).status == 200
    assert (await server.call("GET", "/jobs", by="olga")).status == 200
    assert (await _login(server, "olga")).status == 200


async def test_the_first_start_makes_one_administrator(tmp_path: Path) -> None:
    async with api_server.running(tmp_path) as server:
        assert await server.services.users.make_first_administrator("other password") is None
        assert (await _login(server, "admin")).status == 200
