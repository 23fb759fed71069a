"""Writing small pieces of TOML, and changing one list of a file that people keep.

Source: TOML 1.0. The standard library reads it and does not write it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

_TABLE: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)


def table(path: tuple[str, ...], content: Mapping[str, Any]) -> str:
    """``content`` as a table at ``path`` with its sub-tables; keys are quoted."""
    plain = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    lines = [f"[{'.'.join(_text(part) for part in path)}]"]
    lines += [f"{_text(key)} = {_value(value)}" for key, value in plain.items()]
    text = "\n".join(lines) + "\n"
    for key, value in content.items():
        if isinstance(value, Mapping):
            text += table((*path, key), value)
    return text


def with_item(text: str, key: str, item: str) -> str:
    """``text`` with ``item`` at the end of its top-level list ``key``, which is made if it is not there.

    Raises:
        ValueError: it is no TOML, or the list is written in a way that can't be changed safely.
    """
    before = tomllib.loads(text)
    if item in before.get(key, []):
        return text
    items = [*before.get(key, []), item]
    changed = _with_list(text, key, items)
    if tomllib.loads(changed) != {**before, key: items}:
        raise ValueError(f"the list {key} can't be changed safely")
    return changed


def without_item(text: str, key: str, item: str) -> str:
    """``text`` without ``item`` in its top-level list ``key``; an empty list goes too.

    Raises:
        ValueError: as ``with_item``.
    """
    before = tomllib.loads(text)
    items = [one for one in before.get(key, []) if one != item]
    if items == before.get(key, []):
        return text
    changed = _with_list(text, key, items)
    after = {name: value for name, value in before.items() if name != key}
    if tomllib.loads(changed) != (after | {key: items} if items else after):
        raise ValueError(f"the list {key} can't be changed safely")
    return changed


def _with_list(text: str, key: str, items: list[str]) -> str:
    head = _TABLE.search(text)
    top = text[: head.start()] if head else text
    line = f"{key} = [{', '.join(_text(one) for one in items)}]\n" if items else ""
    found = re.search(rf"^[ \t]*{key}[ \t]*=[ \t]*\[", text, re.MULTILINE)
    if found is None or (head and found.start() > head.start()):
        version = re.search(r"^[ \t]*version[ \t]*=.*\n", top, re.MULTILINE)
        at = version.end() if version else 0
        return text[:at] + line + text[at:]
    rest = text[found.end() :]
    end = _closing(rest)
    after = rest[end:].split("\n", 1)
    return text[: found.start()] + line + (after[1] if len(after) > 1 else "")


def _closing(text: str) -> int:
    """Where the list that ``text`` begins within is closed, one past its bracket."""
    quote = ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote and text[at - 1] != "\\" else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "]":
            return at + 1
    raise ValueError("a list is not closed")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    return _text(str(value))


def _text(value: str) -> str:
    return json.dumps(value)
