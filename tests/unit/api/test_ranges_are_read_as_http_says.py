"""Range headers, as RFC 9110 has them."""

from __future__ import annotations

import pytest

from controlplane.api.archives import Part, part_of
from controlplane.api.problems import HttpError

WHOLE = Part(0, 1000, partial=False)
PARTS = {
    None: WHOLE,
    "bytes=0-": Part(0, 1000, partial=True),
    "bytes=0-0": Part(0, 1, partial=True),
    "bytes=10-19": Part(10, 10, partial=True),
    "bytes=990-5000": Part(990, 10, partial=True),
    "bytes=-100": Part(900, 100, partial=True),
    "bytes=-5000": Part(0, 1000, partial=True),
    "bytes=20-10": WHOLE,
    "bytes=-": WHOLE,
    "bytes=0-1,5-6": WHOLE,
    "lines=1-2": WHOLE,
    "bytes=a-b": WHOLE,
    "": WHOLE,
}


@pytest.mark.parametrize("header", PARTS, ids=repr)
def test_a_range_means_this_part(header: str | None) -> None:
    assert part_of(header, 1000) == PARTS[header]


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_outside_is_refused_with_the_size(header: str) -> None:
    with pytest.raises(HttpError) as refused:
        part_of(header, 1000)
    assert refused.value.headers == {"Content-Range": "bytes */1000"}
