"""What every thread of the images has is compared with what the new pod allows."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from agent.formats.criu_wire import Core, Credentials
from agent.formats.template import Template
from agent.restore import privileges

DEFAULTS = ("CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE")
ROOT = Template(capabilities={"bounding": DEFAULTS, "permitted": DEFAULTS})
USER = Template(uid=1000, gid=1000, additional_gids=(2000,), capabilities={"bounding": DEFAULTS})


def thread(uid: int = 0, gid: int = 0, caps: tuple[str, ...] = (), **changes: object) -> Core:
    held = privileges.mask(caps)
    creds = Credentials(
        uid=uid, gid=gid, euid=uid, egid=gid, suid=uid, sgid=gid, fsuid=uid, fsgid=gid,
        groups=(gid,), inheritable=0, permitted=held, effective=held,
        bounding=privileges.mask(DEFAULTS), secure_bits=0, lsm_profile="",
    )  # fmt: skip
    for name in list(changes):
        if name != "seccomp":
            object.__setattr__(creds, name, changes[name])
    seccomp = changes.get("seccomp", 0)
    assert isinstance(seccomp, int)
    return Core("app", 1, seccomp, None, None, creds)


def excess(core: Core, pod: Template, old: Template | None = None) -> str:
    return privileges.excess([("core-1.img", core)], old or pod, pod)


@pytest.mark.parametrize(
    ("core", "pod"),
    [
        pytest.param(thread(caps=DEFAULTS), ROOT, id="root in a root pod"),
        pytest.param(thread(uid=999, gid=999), ROOT, id="root that became another user"),
        pytest.param(thread(uid=1000, gid=1000), USER, id="the pod's own user"),
        pytest.param(thread(uid=1000, gid=2000), USER, id="the pod's additional group"),
        pytest.param(
            thread(uid=1000, gid=1000, caps=("CAP_NET_BIND_SERVICE",)),
            USER,
            id="a file's capability",
        ),
        pytest.param(
            thread(seccomp=2),
            msgspec.structs.replace(ROOT, seccomp=True),
            id="seccomp on both sides",
        ),
    ],
)
def test_within_the_pod(core: Core, pod: Template) -> None:
    assert excess(core, pod) == ""


STRICT = msgspec.structs.replace(USER, seccomp=True, no_new_privileges=True)


@pytest.mark.parametrize("state", [2, 6])
def test_who_has_ended_has_no_privileges(state: int) -> None:
    assert excess(Core("app", state, None, None, None, None), STRICT) == ""
    ended = thread(caps=DEFAULTS)
    assert excess(dataclasses.replace(ended, task_state=state), STRICT) != ""


@pytest.mark.parametrize("state", [None, 1, 3])
def test_who_runs_must_say_who_it_is(state: int | None) -> None:
    assert "does not say" in excess(Core("app", state, None, None, None, None), STRICT)


NO_NEW = msgspec.structs.replace(USER, no_new_privileges=True)


@pytest.mark.parametrize(
    ("core", "pod", "reason"),
    [
        pytest.param(thread(), USER, "user id 0", id="root in a pod of user 1000"),
        pytest.param(thread(uid=1000, gid=0), USER, "group id 0", id="root's group"),
        pytest.param(
            thread(uid=1000, gid=1000, groups=(27,)), USER, "group id 27", id="an additional group"
        ),
        pytest.param(thread(caps=("CAP_SYS_ADMIN",)), ROOT, "CAP_SYS_ADMIN", id="a capability"),
        pytest.param(
            thread(bounding=privileges.mask(("CAP_SYS_PTRACE",))),
            ROOT,
            "bounding",
            id="bounding set",
        ),
        pytest.param(thread(inheritable=1 << 21), ROOT, "inheritable", id="inheritable set"),
        pytest.param(thread(bounding=1 << 63), ROOT, "unknown", id="a capability of later kernels"),
        pytest.param(
            thread(), msgspec.structs.replace(ROOT, seccomp=True), "seccomp", id="no seccomp filter"
        ),
        pytest.param(
            thread(uid=1000, gid=1000, caps=("CAP_KILL",), no_new_privileges=True),
            NO_NEW,
            "permitted",
            id="gained before",
        ),
        pytest.param(
            thread(),
            msgspec.structs.replace(ROOT, apparmor_profile="strict"),
            "AppArmor",
            id="no AppArmor profile",
        ),
        pytest.param(
            thread(),
            msgspec.structs.replace(ROOT, selinux_label="l"),
            "SELinux",
            id="no SELinux label",
        ),
    ],
)
def test_beyond_the_pod(core: Core, pod: Template, reason: str) -> None:
    assert reason in excess(core, pod)


def test_no_new_privileges_must_be_the_process_own() -> None:
    assert "new privileges" in excess(thread(uid=1000, gid=1000), NO_NEW)
    assert excess(thread(uid=1000, gid=1000, no_new_privileges=True), NO_NEW) == ""


def test_a_set_user_id_that_only_one_of_the_ids_has_is_seen() -> None:
    assert "user id 0" in excess(thread(uid=1000, gid=1000, suid=0), USER)


def test_images_without_credentials_are_refused() -> None:
    assert excess(Core("app", 1, 0, None, None, None), ROOT)
