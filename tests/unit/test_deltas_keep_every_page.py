"""A memory as a delta of an earlier one, made flat again, is that memory; the base's layers stay."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from agent.formats import criu_images, layout, memory_chain, memory_delta, record
from agent.formats.criu_wire import IN_PARENT, LAZY, PRESENT, PageRun
from agent.formats.memory_delta import Cut, Delta
from agent.formats.pagemap import PAGE_SIZE, Pagemap
from agent.image import bases, blobs, comparison, layers
from agent.image.bases import Bases
from agent.image.comparison import PagesSource
from agent.image.compression import Codec
from tests.fakes import criu_dump

MAGIC = criu_images.magic(criu_images.PAGEMAP_MAGIC)
WINDOW = 64 * PAGE_SIZE
HOST = "registry:5000"

Memory = dict[str, dict[int, bytes]]  # pagemap's name → address of a page → its content


def page(rnd: random.Random) -> bytes:
    return rnd.randbytes(8) * (PAGE_SIZE // 8)


def some_memory(rnd: random.Random) -> Memory:
    found: Memory = {}
    for pid in range(1, rnd.choice([2, 4])):
        vaddr, pages = 0x400000, {}
        for _ in range(rnd.choice([1, 5, 300])):
            vaddr += rnd.choice([1, 1, 1, 1, 9]) * PAGE_SIZE
            pages[vaddr] = page(rnd)
        found[f"pagemap-{pid}.img"] = pages
    return found


def later(memory: Memory, rnd: random.Random) -> Memory:
    """Some pages changed, some gone, some new; a hot range; perhaps a process gone and one new."""
    made: Memory = {}
    share = rnd.choice([0.0, 0.02, 0.2])
    for name, pages in memory.items():
        if rnd.random() < 0.2:
            continue
        kept = {a: p for a, p in pages.items() if rnd.random() > share / 2}
        made[name] = {a: page(rnd) if rnd.random() < share else p for a, p in kept.items()}
        for vaddr in sorted(kept)[: rnd.choice([0, 60, 100])]:
            made[name][vaddr] = page(rnd)
        for vaddr in range(0x300000, 0x300000 + rnd.choice([0, 3]) * PAGE_SIZE, PAGE_SIZE):
            made[name][vaddr] = page(rnd)
    if rnd.random() < 0.3:
        made["pagemap-9.img"] = {0x1000: page(rnd)}
    return made


def maps_of(memory: Memory, rnd: random.Random, first: int) -> dict[str, Pagemap]:
    """Flat pagemaps, with runs of random lengths and runs without content between."""
    found = {}
    for number, (name, pages) in enumerate(memory.items(), first):
        made = Pagemap(MAGIC, number)
        left = sorted(pages)
        while left:
            length = 1
            limit = rnd.choice([1, 7, 500])
            while length < limit and length < len(left):
                if left[length] != left[0] + length * PAGE_SIZE:
                    break
                length += 1
            made.append(PageRun(left[0], length, PRESENT | rnd.choice([0, LAZY])))
            left = left[length:]
        found[name] = made
    return found


def flat_pages(memory: Memory, maps: dict[str, Pagemap]) -> dict[int, bytes]:
    return {
        flat.pages_id: b"".join(memory[name][vaddr] for vaddr in sorted(memory[name]))
        for name, flat in maps.items()
    }


def write(folder: Path, pages: dict[int, bytes]) -> None:
    folder.mkdir()
    for number, content in pages.items():
        (folder / f"pages-{number}.img").write_bytes(content)


def taken(cuts: tuple[Cut, ...], pages: dict[int, bytes]) -> dict[int, bytes]:
    return {
        cut.pages_id: b"".join(
            pages[cut.pages_id][offset : offset + length]
            for offset, length in zip(cut.offsets, cut.lengths, strict=True)
        )
        for cut in cuts
    }


def files_of(
    made: Delta, pages: dict[int, bytes], base: dict[str, Pagemap], base_pages: dict[int, bytes]
) -> dict[tuple[int, int], bytes]:
    """What lies in each level, the base's windows as they were pushed."""
    files = {(0, number): content for number, content in taken(made.top, pages).items()}
    for level, window in enumerate(memory_chain.split(base, WINDOW).windows, 1):
        anew = made.windows[level - 1]
        if anew is not None:
            files.update({(level, n): content for n, content in taken(anew, pages).items()})
            continue
        for part in window:
            content = base_pages[part.pages_id]
            files[level, part.pages_id] = content[part.offset : part.offset + part.length]
    return files


@pytest.mark.parametrize("hashed", [False, True], ids=["by bytes", "by hashes"])
@pytest.mark.parametrize("seed", range(40))
def test_delta_made_flat_is_the_memory(tmp_path: Path, seed: int, hashed: bool) -> None:
    rnd = random.Random(seed)  # noqa: S311
    before = some_memory(rnd)
    after = later(before, rnd)
    base, maps = maps_of(before, rnd, 1), maps_of(after, rnd, 2)
    base_pages, pages = flat_pages(before, base), flat_pages(after, maps)
    write(tmp_path / "before", base_pages)
    write(tmp_path / "after", pages)
    sources = {}
    for name, flat in base.items():
        path = tmp_path / "before" / f"pages-{flat.pages_id}.img"
        if hashed:
            out = tmp_path / f"hashes-{flat.pages_id}"
            comparison.hash_pages(path, out)
            assert out.stat().st_size == path.stat().st_size // 256
            path = out
        sources[name] = PagesSource(path, hashed)
    same = comparison.unchanged(tmp_path / "after", maps, base, sources)
    for name, flat in maps.items():
        known = before.get(name, {})
        wanted = [known.get(vaddr) == content for vaddr, content in sorted(after[name].items())]
        assert list(map(bool, same[name])) == wanted
        assert flat.stored_bytes == len(wanted) * PAGE_SIZE
    made = memory_delta.delta(maps, base, WINDOW, same)
    if made is None:
        return
    flat_again = memory_chain.flatten(made.pagemaps)
    files = files_of(made, pages, base, base_pages)
    rebuilt = {number: bytearray(size) for number, size in flat_again.sizes.items()}
    for place, file in flat_again.sources.items():
        content = files.get(place, b"")
        assert len(content) == file.size
        for source, target, length in file.extents:
            rebuilt[file.target_id][target : target + length] = content[source : source + length]
    assert {number: bytes(content) for number, content in rebuilt.items()} == pages
    for name, flat in maps.items():
        assert spans(flat_again.pagemaps[name]) == spans(flat)


def spans(flat: Pagemap) -> list[tuple[int, int]]:
    """Each page's address and flags."""
    return [(run.vaddr + n * PAGE_SIZE, run.flags) for run in flat for n in range(run.pages)]


def test_window_that_changed_much_is_written_anew_and_the_others_stay() -> None:
    base = {"pagemap-1.img": Pagemap(MAGIC, 1, [PageRun(0x400000, 256, PRESENT)])}
    now = {"pagemap-1.img": Pagemap(MAGIC, 5, [PageRun(0x400000, 256, PRESENT)])}
    same = bytearray(b"\1" * 256)
    same[64:110] = bytes(46)  # most of the second window
    same[200] = 0
    made = memory_delta.delta(now, base, WINDOW, {"pagemap-1.img": same})
    assert made is not None
    assert [window is None for window in made.windows] == [True, False, True, True]
    assert [cut.length for cut in made.top] == [PAGE_SIZE]
    assert [cut.length for cut in made.windows[1] or ()] == [WINDOW]
    assert {run.flags for run in made.pagemaps[0]["pagemap-1.img"]} == {PRESENT, IN_PARENT}


def test_memory_of_which_most_changed_is_no_delta() -> None:
    maps = {"pagemap-1.img": Pagemap(MAGIC, 1, [PageRun(0x400000, 256, PRESENT)])}
    same = bytearray(b"\0\1\1\0\0" * 52)[:256]
    assert memory_delta.delta(maps, maps, WINDOW, {"pagemap-1.img": same}) is None


def a_checkpoint(root: Path, name: str, created_at: str, **changes: object) -> Path:
    parts = criu_dump.make_parts(root / name, (3 * PAGE_SIZE,))
    known = criu_dump.a_record()
    changed = {"checkpoint_id": name, "created_at": created_at, **changes}
    record.write(parts, msgspec.structs.replace(known, **changed))
    return parts


def pushed(repository: str = "r", host: str = HOST) -> dict[str, object]:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pushed": (f"{host}/{repository}@sha256:{'ab' * 32}",), "pushed_at": at}


def found(known: Bases, parts: Path, host: str = HOST) -> str:
    base = known.find(parts, record.read(parts), host)
    return base.checkpoint_id if base else ""


def test_newest_whole_image_of_the_container_at_the_registry_is_the_base(tmp_path: Path) -> None:
    known = Bases(tmp_path / "bases")
    root = tmp_path / "shelf"
    a_checkpoint(root, "older", "2026-01-01T00:00:00Z", **pushed())
    a_checkpoint(root, "base", "2026-01-02T00:00:00Z", **pushed())
    a_checkpoint(root, "delta", "2026-01-03T00:00:00Z", parent="base", **pushed())
    a_checkpoint(root, "unpushed", "2026-01-03T00:00:00Z")
    a_checkpoint(root, "elsewhere", "2026-01-03T00:00:00Z", **pushed(host="other"))
    a_checkpoint(root, "another", "2026-01-03T00:00:00Z", container_id="c2", **pushed())
    mine = a_checkpoint(root, "mine", "2026-01-04T00:00:00Z")
    assert found(known, mine) == "base"
    assert found(known, mine, "unknown:1") == ""
    assert found(known, a_checkpoint(root, "early", "2026-01-01T10:00:00Z")) == "older"
    # what is at the registry already stays what it is
    assert found(known, root / "base") == ""
    assert found(known, root / "delta") == "base"


def test_parts_that_changed_since_the_push_are_no_base(tmp_path: Path) -> None:
    base = a_checkpoint(tmp_path / "s", "base", "2026-01-02T00:00:00Z", **pushed())
    mine = a_checkpoint(tmp_path / "s", "mine", "2026-01-04T00:00:00Z")
    later_on = time.time() + 60
    os.utime(base / "checkpoint/pages-1.img", (later_on, later_on))
    assert found(Bases(tmp_path / "bases"), mine) == ""
    assert not bases.is_as_pushed(base, record.read(base))


def test_hashes_stay_when_parts_go_within_bounds(tmp_path: Path) -> None:
    known = Bases(tmp_path / "bases", max_bases=2)
    root = tmp_path / "shelf"
    for number in range(4):
        made = pushed()
        name = f"base{number}"
        when = f"2026-01-0{number + 1}T00:00:00Z"
        parts = a_checkpoint(root, name, when, container_id=f"c{number}", **made)
        known.remember(parts)
        os.utime(tmp_path / "bases" / name, (number, number))
        (parts / layout.RECORD).unlink()
    assert sorted(p.name for p in (tmp_path / "bases").iterdir()) == ["base2", "base3"]
    mine = a_checkpoint(root, "mine", "2026-02-01T00:00:00Z", container_id="c3")
    base = known.find(mine, record.read(mine), HOST)
    assert base is not None
    assert (base.checkpoint_id, base.parts) == ("base3", None)
    (tmp_path / "bases/base3/base.json").write_text("damaged")
    assert found(known, mine) == ""
    assert not (tmp_path / "bases/base3").exists()


def test_deltas_and_what_was_never_pushed_leave_no_hashes(tmp_path: Path) -> None:
    known = Bases(tmp_path / "bases")
    known.remember(a_checkpoint(tmp_path / "s", "one", "2026-01-01T00:00:00Z"))
    known.remember(
        a_checkpoint(tmp_path / "s", "two", "2026-01-01T00:00:00Z", parent="x", **pushed())
    )
    known.remember(a_checkpoint(tmp_path / "s", "three", "2026-01-01T00:00:00Z", **pushed()))
    known.remember(
        a_checkpoint(tmp_path / "s", "newer", "2026-01-02T00:00:00Z", **pushed())
    )  # replaces it
    assert [p.name for p in (tmp_path / "bases").iterdir()] == ["newer"]


def test_layers_of_a_delta_are_what_changed_and_the_bases_windows(tmp_path: Path) -> None:
    size = 70 << 20
    before = criu_dump.make_parts(tmp_path / "before", (size,))
    after = criu_dump.make_parts(tmp_path / "after", (size,))
    with (after / "checkpoint/pages-1.img").open("r+b") as pages:
        for place in (3, 9000):
            pages.seek(place * PAGE_SIZE)
            pages.write(b"changed")
    memory, base = layers.Memory.read(after), layers.Memory.read(before)
    sources = {"pagemap-1.img": PagesSource(before / "checkpoint/pages-1.img")}
    same = comparison.unchanged(after / "checkpoint", memory.maps, base.maps, sources)
    made = memory_delta.delta(memory.maps, base.maps, base.window, same)
    assert made is not None
    chain = memory_chain.split(base.maps, base.window)
    onto = layers.Onto(made, layers.windows(before, chain))
    plans = layers.plan(after, onto)
    assert plans[3:] == layers.plan(before)[2:]
    top = blobs.make(plans[2], Codec.NONE)
    assert top.unpacked_size == 512 + 2 * PAGE_SIZE + 1024
    assert plans[2].content == layers.plan(before)[2].content
