"""The agent's settings: from the environment, errors in one sentence, all of them in --help."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import __main__, equipment, settings
from agent.checkpoint.retention import Policy


def test_defaults_are_for_a_node_without_kubernetes() -> None:
    given = settings.from_environment({"SNAP_CLUSTER_NAME": "", "SNAP_NODE_NAME": "n1"})
    assert (given.data_dir, given.host_root) == (Path("/var/lib/snap"), Path("/"))
    assert (given.cluster, given.node, given.prepare) == ("", "n1", "report")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SNAP_CONTROL_PLANE", "https://x:8001", "SNAP_CONTROL_PLANE must be host:port"),
        ("SNAP_CONTROL_PLANE", "x", "SNAP_CONTROL_PLANE must be host:port"),
        ("SNAP_KUBELET_URL", "https://fd00::1::2:1", "SNAP_KUBELET_URL must be https://host:port"),
        ("SNAP_KUBELET_URL", "https://n1:99999", "SNAP_KUBELET_URL must be https://host:port"),
        ("SNAP_CRI_ENDPOINT", "tcp://x", "SNAP_CRI_ENDPOINT must be unix:///path"),
        ("SNAP_NODE_NAME", "a b", "SNAP_NODE_NAME must be 1-253"),
        ("SNAP_HOST_ROOT", "host", "SNAP_HOST_ROOT must be an absolute path"),
        ("SNAP_PREPARE", "yes", "SNAP_PREPARE must be one of report, auto"),
        ("SNAP_MAX_DUMPS", "0", "SNAP_MAX_DUMPS must be a whole number from 1 to 64"),
        ("SNAP_CHECKPOINT_SCRATCH", "/tmp", "SNAP_CHECKPOINT_SCRATCH must be disk, auto or a"),
        (
            "SNAP_DISK_SHARE_PERCENT",
            "0",
            "SNAP_DISK_SHARE_PERCENT must be a whole number from 1 to",
        ),
        (
            "SNAP_DISK_FREE_PERCENT",
            "10%",
            "SNAP_DISK_FREE_PERCENT must be a whole number from 0 to",
        ),
        ("SNAP_KEEP_LAST", "-1", "SNAP_KEEP_LAST must be a whole number from 0 to 1000"),
        ("SNAP_LOG_FORMAT", "xml", "SNAP_LOG_FORMAT must be one of text, json"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(name: str, value: str, sentence: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        settings.from_environment({name: value})
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("https://fd00::1:10250", "https://[fd00::1]:10250"),
        ("https://fd00:0:0:1:2:3:4:5:10250/", "https://[fd00::1:2:3:4:5]:10250"),
        ("https://[fd00::1]:10250", "https://[fd00::1]:10250"),
        ("https://10.0.0.1:10250", "https://10.0.0.1:10250"),
        ("https://node-1:10250", "https://node-1:10250"),
    ],
)
def test_the_kubelet_is_reached_at_addresses_of_both_kinds(value: str, url: str) -> None:
    given = settings.from_environment({"SNAP_KUBELET_URL": value})
    assert given.kubelet_url == url  # manifests can't put brackets around the node's address


@pytest.mark.parametrize(("text", "most"), [("disk", 0), ("1048576", 1 << 20), ("AUTO", 1 << 60)])
def test_memory_for_dumps_is_a_word_or_a_size(text: str, most: int) -> None:
    given = settings.from_environment({"SNAP_CHECKPOINT_SCRATCH": text})
    assert given.checkpoint_scratch_bytes == most


def test_checkpoints_stay_as_long_as_is_set() -> None:
    usual = equipment.retention_of(settings.from_environment({}))
    assert usual == Policy()
    given = {
        "SNAP_KEEP_PUSHED_HOURS": "1",
        "SNAP_KEEP_UNPUSHED_HOURS": "48",
        "SNAP_KEEP_LAST": "0",
        "SNAP_DISK_SHARE_PERCENT": "50",
        "SNAP_DISK_FREE_PERCENT": "5",
    }
    made = equipment.retention_of(settings.from_environment(given))
    assert made == Policy(pushed_h=1, unpushed_h=48, disk_share=0.5, free_floor=0.05, keep_last=0)


def test_a_token_in_the_environment_is_allowed_warned_about_and_never_shown() -> None:
    plain = settings.from_environment({"SNAP_AGENT_TOKEN": "t0ken"})
    assert "SNAP_AGENT_TOKEN_FILE is safer" in plain.warnings()[0]
    assert "t0ken" not in repr(plain)
    both = {"SNAP_AGENT_TOKEN": "t0ken", "SNAP_AGENT_TOKEN_FILE": "/run/token"}
    assert settings.from_environment(both).warnings() == ()


def test_what_is_needed_to_join_is_asked_for() -> None:
    with pytest.raises(settings.SettingsError, match="SNAP_CLUSTER_NAME is not set"):
        settings.from_environment({"SNAP_CONTROL_PLANE": "cp:8001"}).check_to_run()


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        __main__.main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert "probe" in told
    for setting in settings.all_settings().values():
        assert setting.env in told


@pytest.mark.parametrize("command", ["run", "probe"])
def test_a_node_that_is_not_there_is_told_in_one_sentence(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SNAP_HOST_ROOT", str(tmp_path))
    assert __main__.main([command]) == 2
    told = capsys.readouterr().err
    assert told.startswith("snap-agent: SNAP_HOST_ROOT must be")
    assert told.count("\n") == 1


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["--version"])
    assert capsys.readouterr().out.startswith("snap-agent 0.")
