"""Lists, watches, patches, deletes, evictions and reviews on a real API server: what the fake one was taught."""

from __future__ import annotations

import pytest

from tests.contract.kube.test_objects_are_read_and_written import *  # noqa: F403 - the same assertions

pytestmark = [  # type: ignore[assignment] # the other module has one mark only
    pytest.mark.cluster,
    pytest.mark.usefixtures("space"),
]
del test_a_place_that_is_forgotten_is_told  # noqa: F821 - a server some seconds old has forgotten nothing
