"""What lanes cost the reference kernel's memory: it cannot be seen from outside, so this file alone looks inside."""

from __future__ import annotations

import msgspec

from tests.dataplane.frames import udp
from tests.dataplane.pair import joined, widened
from tunrouter.core import seam
from tunrouter.dataplane.reference import ReferenceKernel


def test_an_unused_lane_costs_no_more_than_its_keys() -> None:
    one, two = joined()
    for side in (one, two):
        install = side.installing(side.session + 100, side.peer * 16 + 100)
        side.apply(msgspec.structs.replace(install, lanes=widened(install, 3)))
        side.apply(seam.Deliver(side.session + 100))
        side.apply(seam.Use(side.peer, side.session + 100))
    assert isinstance(one.kernel, ReferenceKernel)
    assert isinstance(two.kernel, ReferenceKernel)
    session, mirror = one.kernel._sessions[one.session + 100], two.kernel._sessions[two.session + 100]
    assert two.receive(*one.send(udp())) == [udp()]
    assert sum(hasattr(lane, "nonce") for lane in session.seals) == 1
    assert sum(hasattr(lane, "hot") for lane in mirror.opens) == 1
    assert not any(hasattr(lane, "hot") for lane in session.opens)
    assert sum(lane.cold is None for lane in mirror.opens) == 1
