"""A newcomer that a peer reached before its own start waits for what that one holds, and no longer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tunrouter.core import bounds
from tunrouter.core.leases import Leases


def test_a_peer_that_was_here_before_the_start_is_not_waited_for_as_if_nobody_were() -> None:
    mesh = SimpleNamespace(here={7})
    leases = Leases(cast("Any", None), cast("Any", mesh), cast("Any", None), cast("Any", None))
    leases.tick(0.0)
    leases.start(1.0)
    leases.tick(1.0)
    assert leases.deadline <= 1.0 + bounds.SETTLE_SECONDS < 1.0 + bounds.LONELY_SECONDS
