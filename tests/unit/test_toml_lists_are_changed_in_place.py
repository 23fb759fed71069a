"""Adding to a list of a file that people keep, and taking it out again."""

from __future__ import annotations

import tomllib

import pytest

from agent.formats import toml_text

FILES = {
    "nothing": "",
    "version": "version = 2\n[plugins]\n",
    "no version": "[grpc]\n  address = 'x'\n",
    "comment": "# ours\nversion = 3 # three\n\n[grpc]\n",
    "one line": 'version = 3\nimports = ["/etc/c/conf.d/*.toml"]\nroot = "/x"\n[grpc]\n',
    "many lines": "version = 3\nimports = [\n  '/a]b', # why\n  \"/c\"\n]\n[grpc]\n",
    "empty": "imports = []\nversion = 2\n",
    "same name below": "version = 3\n[stuff]\nimports = ['x']\n",
    "no end of line": "version = 3",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_an_item_comes_and_goes(text: str) -> None:
    before = tomllib.loads(text)
    changed = toml_text.with_item(text, "imports", "/etc/c/snap.toml")
    assert tomllib.loads(changed) == {
        **before,
        "imports": [*before.get("imports", []), "/etc/c/snap.toml"],
    }
    back = tomllib.loads(toml_text.without_item(changed, "imports", "/etc/c/snap.toml"))
    assert {"imports": [], **back} == {"imports": [], **before}
    assert toml_text.without_item(text, "imports", "/other") == text


def test_what_can_not_be_changed_safely_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of the parser, or ours
        toml_text.with_item('note = """\nimports = [\n]"""\n"imports" = ["a"]\n', "imports", "b")


def test_a_table_is_written_with_all_below_it() -> None:
    content = {"a": True, "b": 2, "c": ["x", 'y"z'], "options": {"BinaryName": "/opt/snap"}}
    text = toml_text.table(("plugins", "io.containerd.cri.v1.runtime", "snap"), content)
    expected = {"plugins": {"io.containerd.cri.v1.runtime": {"snap": content}}}
    assert tomllib.loads(text) == expected
