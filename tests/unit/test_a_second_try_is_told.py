"""Only tests on real parts are tried again, with their fixtures, and the run says which needed it and why."""

from __future__ import annotations

import pytest

from tests import second_try

pytest_plugins = ["pytester"]
# fails at its first try, in the way that the name says
TEST = """
import pathlib
import pytest

SEEN = pathlib.Path(__file__).with_suffix(".seen")


def first(what):
    with SEEN.open("a+") as seen:
        seen.seek(0)
        known = seen.read().split()
        print(what, file=seen)
    return what not in known


@pytest.fixture(scope="module")
def whole():
    assert not first("module"), "the module is not ready"
    yield
    first("end-of-module")


@pytest.fixture
def ends():
    yield
    assert not first("end"), "it does not end"


@pytest.fixture
async def begins():
    assert not first("async"), "it does not begin"
    yield 1


def test_by_its_modules_fixture(whole):
    pass


def test_in_itself(whole):
    assert not first("itself"), "not yet"


def test_at_its_end(whole, ends):
    pass


async def test_by_its_async_fixture(begins):
    assert begins == 1


def test_always(whole):
    raise AssertionError("never")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The second try is at once; the options are those of our own runs."""
    monkeypatch.setattr(second_try, "PAUSE_S", 0.0)
    pytester.makeini(
        "[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n"
        "addopts=-ra --strict-markers -p no:schemathesis\nfilterwarnings=error\n"
    )
    return pytester


def put(pytester: pytest.Pytester, folder: str) -> None:
    place = pytester.path / "tests" / folder
    place.mkdir(parents=True)
    (place / "test_it.py").write_text(TEST)


@pytest.mark.parametrize("folder", ["integration", "e2e"])
def test_on_real_parts_there_is_a_second_try_and_it_is_told(
    run: pytest.Pytester, folder: str
) -> None:
    put(run, folder)
    result = run.runpytest_inprocess(plugins=[second_try])
    counts = result.parseoutcomes()
    # what failed at its end had passed before that: it is counted each time
    assert counts == {"passed": 5, "failed": 1, "rerun": 5}
    at = f"tests/{folder}/test_it.py::"
    told = [line for line in result.outlines if line.startswith("passed only at the second try: ")]
    assert {line.partition("::")[2] for line in told} == {
        "test_by_its_modules_fixture",
        "test_in_itself",
        "test_at_its_end",
        "test_by_its_async_fixture",
    }
    result.stdout.fnmatch_lines([f"*{at}test_in_itself (call)*", "*not yet*"])
    result.stdout.fnmatch_lines([f"*{at}test_at_its_end (teardown)*", "*it does not end*"])
    result.stdout.fnmatch_lines(["the first try of what failed at both: *::test_always"])
    seen = (run.path / "tests" / folder / "test_it.seen").read_text()
    assert seen.count("end-of-module") == 1  # once, after everything


def test_elsewhere_there_is_none(run: pytest.Pytester) -> None:
    put(run, "unit")
    result = run.runpytest_inprocess(plugins=[second_try])
    assert "rerun" not in result.parseoutcomes()
    assert "second try" not in result.stdout.str()


def test_where_much_fails_not_all_of_it_is_tried_again(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_try, "AT_MOST", 2)
    put(run, "e2e")
    result = run.runpytest_inprocess(plugins=[second_try])
    assert result.parseoutcomes()["rerun"] == 2
