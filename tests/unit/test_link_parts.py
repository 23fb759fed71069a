"""Small parts of the link: the node's key, waits between tries, words for failures, log lines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent import errors, logs
from agent.link import identity, session
from agent.link.backoff import FIRST_S, HIGHEST_S, Backoff
from agent.link.wire import calls


def test_the_key_is_made_once_kept_for_root_and_signs(tmp_path: Path) -> None:
    first = identity.load(tmp_path / "identity")
    again = identity.load(tmp_path / "identity")
    assert first.public_key == again.public_key
    text = calls.signed_text(b"nonce", "lab", "node-1")
    assert text == b"snap-join-v1\nnonce\nlab\nnode-1"
    Ed25519PublicKey.from_public_bytes(first.public_key).verify(first.sign(text), text)
    (key,) = (tmp_path / "identity").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    identity.load(tmp_path)
    (key,) = tmp_path.iterdir()
    key.write_text("damaged")
    with pytest.raises(errors.Broken, match="reset the node's identity"):
        identity.load(tmp_path)
    assert key.read_text() == "damaged"


def test_waits_double_up_to_a_limit_and_begin_again() -> None:
    backoff = Backoff(draw=lambda _, high: high)
    waits = [backoff.next_s() for _ in range(7)]
    assert waits == [0.5, 1, 2, 4, 8, 15, 15]
    assert waits[0] == FIRST_S
    assert waits[-1] == HIGHEST_S
    backoff.reset()
    assert backoff.next_s() == FIRST_S


def test_waits_are_spread_from_nothing_to_the_limit() -> None:
    assert Backoff(draw=lambda low, _: low).next_s() == 0.0
    assert all(0.0 <= Backoff().next_s() <= FIRST_S for _ in range(50))


def test_a_token_file_goes_before_a_plain_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert session.read_token(file, "plain") == "from-file"
    assert session.read_token(None, "plain") == "plain"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"two words", b"two\nlines"], ids=ascii)
def test_what_is_no_token_is_told_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(errors.Refused, match="is no token") as refused:
        session.read_token(file, "")
    assert content.decode(errors="replace") not in refused.value.message


def a_record(message: str) -> logging.LogRecord:
    return logging.LogRecord("agent.link.session", logging.WARNING, "", 1, message, None, None)


def test_an_event_is_one_line() -> None:
    line = logs.TextFormatter().format(a_record("said\nFAKE line"))
    assert line.endswith("WARNING link.session: said\\nFAKE line")


def test_events_for_collectors_are_json() -> None:
    event = json.loads(logs.JsonFormatter().format(a_record('with "quotes"\nand lines')))
    assert event["message"] == 'with "quotes"\nand lines'
    assert (event["level"], event["logger"]) == ("warning", "agent.link.session")
    assert event["time"].endswith("Z")
