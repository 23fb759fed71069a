"""Have every node of a cluster put back as it was before SNAP prepared it; a job runs this before SNAP is removed.

Environment: SNAP_API (host:port), SNAP_CLUSTER_NAME, SNAP_CREDENTIALS (a folder with ``username``, without which it is
admin, and the password under SNAP_PASSWORD_KEY), and SNAP_API_CERTIFICATE where REST is over TLS: that certificate
and no other is accepted. Exit status 1 when a node refused, such as while a pod there still uses the handler.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import urllib.parse
from pathlib import Path
from typing import Any

# nobody there to ask, or an agent without this kind of job
NOTHING_TO_UNDO = frozenset({"AGENT_UNAVAILABLE", "VALIDATION_ERROR"})
ANSWER_S = 240  # the runtime may have to be restarted


class Refused(Exception):
    """The API's own words for what it did not do."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence.strip())
        self.code = code


class Api:
    """The control plane, asked as an administrator."""

    def __init__(self, host: str, certificate: str) -> None:
        self._host, self._certificate = host, certificate
        self._headers = {"Content-Type": "application/json", "Connection": "close"}

    def login(self, username: str, password: str) -> None:
        given = {"username": username, "password": password}
        token = self.ask("POST", "/config/user/login", given)["token"]
        self._headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What it answered; Refused when that is an error."""
        link = self._open()
        try:
            link.request(method, path, None if body is None else json.dumps(body), self._headers)
            answer = link.getresponse()
            told = json.loads(answer.read() or b"{}")
        finally:
            link.close()
        if answer.status >= 400:
            sentence = f"{told.get('error', '')} {told.get('details', '')}"
            raise Refused(told.get("code", ""), sentence)
        return told

    def _open(self) -> http.client.HTTPConnection:
        if not self._certificate:
            return http.client.HTTPConnection(self._host, timeout=ANSWER_S)
        known = ssl.PEM_cert_to_DER_cert(_first(Path(self._certificate).read_text()))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # compared below
        link = http.client.HTTPSConnection(self._host, timeout=ANSWER_S, context=context)
        link.connect()
        if link.sock.getpeercert(binary_form=True) != known:
            link.close()
            raise OSError(f"it has another certificate than {self._certificate}")
        return link


def _first(chain: str) -> str:
    end = "-----END CERTIFICATE-----"
    return chain[chain.index("-----BEGIN") : chain.index(end) + len(end)]


def undo(api: Api, cluster: str, node: str) -> bool:
    """Whether ``node`` is as it was, is away, or has an agent that never prepares any."""
    path = f"/cluster/{urllib.parse.quote(cluster)}/nodes/{urllib.parse.quote(node)}/prepare"
    try:
        api.ask("POST", path, {"undo": True})
    except Refused as refused:
        _say(f"{node}: {refused}")
        return refused.code in NOTHING_TO_UNDO
    _say(f"{node}: as it was before")
    return True


def main() -> int:
    """Undo every node that ever joined; the exit status."""
    folder, cluster = Path(os.environ["SNAP_CREDENTIALS"]), os.environ["SNAP_CLUSTER_NAME"]
    username, password = folder / "username", folder / os.environ["SNAP_PASSWORD_KEY"]
    api = Api(os.environ["SNAP_API"], os.environ.get("SNAP_API_CERTIFICATE", ""))
    try:
        user = username.read_text().strip() if username.exists() else "admin"
        api.login(user, password.read_text().strip())
        nodes = api.ask("GET", f"/cluster/status/{urllib.parse.quote(cluster)}")["nodes"]
        done = [undo(api, cluster, node["name"]) for node in nodes]
    except Refused as refused:
        _say(f"undo: {refused}")
        return 0 if refused.code == "CLUSTER_NOT_FOUND" else 1  # no node ever joined
    except (OSError, http.client.HTTPException, ValueError) as cause:
        _say(f"undo: {os.environ['SNAP_API']}: {cause}")
        return 1
    return 0 if all(done) else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
