"""A process whose memory is of many kinds has all of it again, however its pages are brought."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agent.formats import layout
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import Deployment, World
from tests.integration.restoring import Saved, outcome, restoring, save, wait_for

pytestmark = pytest.mark.node

# fills a mapping of each kind with its own data, then says again and again whether it is as it was
PROGRAM = """
import ctypes, json, mmap, os, threading, time, zlib
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
for name in ('mprotect', 'madvise'):
    getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MIB, PAGE = 1 << 20, 4096
READ, WRITE, RUN = 1, 2, 4
SHARED, PRIVATE, ANONYMOUS, NO_RESERVE = 1, 2, 0x20, 0x4000
HUGE, DONT_FORK, MERGEABLE = 14, 10, 12

def done(status):
    assert not status, os.strerror(ctypes.get_errno())

def mapped(mib, flags=PRIVATE | ANONYMOUS, access=READ | WRITE, fd=-1):
    at = libc.mmap(None, mib * MIB, access, flags, fd, 0)
    assert at != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    return at

def fill(at, mib, step=1):
    for page in range(0, mib * MIB // PAGE, step):
        ctypes.memmove(at + page * PAGE, os.urandom(PAGE), PAGE)

def crc(at, size):
    total = 0
    for start in range(at, at + size, MIB):
        total = zlib.crc32((ctypes.c_char * min(MIB, at + size - start)).from_address(start), total)
    return total

def protect(at, mib, access):
    done(libc.mprotect(at, mib * MIB, access))

wanted = {}
def keep(name, at, mib, before=None, after=None):
    def now():
        if before: before()
        found = crc(at, mib * MIB)
        if after: after()
        return found
    wanted[name] = (now, now())

plain = mapped(64); fill(plain, 64); keep('plain', plain, 64)
odd = mapped(32); fill(odd, 32, 2); keep('every second page', odd, 32)
sparse = mapped(512, PRIVATE | ANONYMOUS | NO_RESERVE); fill(sparse, 512, 977); keep('sparse', sparse, 512)
huge = mapped(16); done(libc.madvise(huge, 16 * MIB, HUGE)); fill(huge, 16); keep('huge', huge, 16)
locked = mapped(4); fill(locked, 4); done(libc.mlock(locked, 4 * MIB)); keep('locked', locked, 4)
read_only = mapped(4); fill(read_only, 4); protect(read_only, 4, READ); keep('read only', read_only, 4)
closed = mapped(4); fill(closed, 4)
keep('closed', closed, 4, lambda: protect(closed, 4, READ), lambda: protect(closed, 4, 0))
parted = mapped(8); fill(parted, 8); protect(parted + 2 * MIB, 1, READ); keep('parted', parted, 8)
alone = mapped(4); fill(alone, 4); done(libc.madvise(alone, 4 * MIB, DONT_FORK)); keep('not forked', alone, 4)
mergeable = mapped(4); fill(mergeable, 4); libc.madvise(mergeable, 4 * MIB, MERGEABLE); keep('mergeable', mergeable, 4)
shared = mapped(8, SHARED | ANONYMOUS); fill(shared, 8); keep('shared', shared, 8)
moved = mapped(8); fill(moved, 8); moved = libc.mremap(moved, 8 * MIB, 24 * MIB, 1); keep('moved', moved, 24)
with open('/opt/file', 'w+b') as f:
    f.write(os.urandom(8 * MIB)); f.flush()
    copied = mapped(8, PRIVATE, READ | WRITE, f.fileno())
fill(copied, 8, 3); keep('of a file, partly written', copied, 8)
zeros = mapped(16); keep('only read', zeros, 16)
heap = bytearray(os.urandom(24 * MIB)); wanted['heap'] = (lambda: zlib.crc32(heap), zlib.crc32(heap))
code = mapped(1, access=READ | WRITE | RUN); fill(code + PAGE, 1, 999)
ctypes.memmove(code, bytes.fromhex('b82a000000c3'), 6)
wanted['code'] = (ctypes.CFUNCTYPE(ctypes.c_int)(code), 42)
counts = [0] * 4
def count(which):
    own = os.urandom(MIB)
    own_crc = zlib.crc32(own)
    while zlib.crc32(own) == own_crc:
        counts[which] += 1
        time.sleep(0.01)
threading.stack_size(8 * MIB)
for which in range(4):
    threading.Thread(target=count, args=(which,), daemon=True).start()
n = 0
while True:
    n, before = n + 1, list(counts)
    wrong = [name for name, (now, then) in wanted.items() if now() != then]
    time.sleep(0.2)
    wrong += [f'thread {which}' for which in range(4) if counts[which] == before[which]]
    print(json.dumps({'n': n, 'kinds': len(wanted), 'wrong': wrong}), flush=True)
"""
SPEC = PodSpec(name="kinds", image="python", command=("/usr/bin/python3", "-c", PROGRAM))


def lines(pod: Pod) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pod.lines() if line.startswith("{")]


@pytest.fixture(scope="module")
def saved(world: World, deployed: Deployment) -> Iterator[Saved]:
    pods = world.pods(1)
    pod = pods.run(SPEC)
    wait_for(lambda: len(lines(pod)) > 1)
    yield save(deployed, pod, "kinds")
    assert not any(line["wrong"] for line in lines(pod))  # the original went on with all of it
    pods.remove(pod)


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_all_of_it_is_as_it_was(deployed: Deployment, pods2: Pods, saved: Saved, mode: str) -> None:
    asked = {layout.ANNOTATION_RESTORE_MODE: mode}
    pod = pods2.run(restoring(SPEC, saved.image, annotations=asked))
    told = outcome(deployed, pod)
    assert (told["action"], told["mode"]) == ("restored", mode), told
    wait_for(lambda: len(lines(pod)) > 3)
    assert not [line for line in lines(pod) if line["wrong"]]
    assert lines(pod)[0]["n"] > 1  # it went on, and did not begin anew
    assert lines(pod)[0]["kinds"] == 16
