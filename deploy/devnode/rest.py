"""A small blocking REST client: what a script of a user would do, for tests and the demo."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

TIMEOUT_S: Final = 120.0


class Refusal(RuntimeError):
    """The control plane answered with an error; ``body`` is its JSON."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        details = f" ({body['details']})" if body.get("details") else ""
        super().__init__(f"{status} {body.get('code', '')}: {body.get('error', '')}{details}")
        self.status = status
        self.body = body


class Rest:
    """One user's way to the control plane. Every call opens a connection of its own; any thread may use it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._host = urllib.parse.urlsplit(url).netloc
        self.token = ""

    def login(self, username: str, password: str) -> None:
        """Log in; later calls carry the token.

        Raises:
            Refusal: wrong user or password.
        """
        answer = self.post("/config/user/login", {"username": username, "password": password})
        self.token = str(answer["token"])

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_s: float = TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and decoded JSON (or text) of one request, whatever the status."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        content = None if body is None else json.dumps(body)
        link = http.client.HTTPConnection(self._host, timeout=timeout_s)
        try:
            link.request(method, path, content, sent)
            answer = link.getresponse()
            raw = answer.read()
        finally:
            link.close()
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, raw.decode(errors="replace")

    def get(self, path: str) -> Any:
        """The answer of a GET.

        Raises:
            Refusal: any status from 400.
        """
        return self._checked("GET", path, None)

    def post(self, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S) -> Any:
        """The answer of a POST.

        Raises:
            Refusal: any status from 400.
        """
        return self._checked("POST", path, body, timeout_s)

    def answers(self, path: str) -> bool:
        """Whether a GET gives 200."""
        try:
            return self.call("GET", path, timeout_s=2)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _checked(self, method: str, path: str, body: object, timeout_s: float = TIMEOUT_S) -> Any:
        status, answer = self.call(method, path, body, timeout_s=timeout_s)
        if status >= 400:
            raise Refusal(status, answer if isinstance(answer, dict) else {"error": str(answer)})
        return answer
