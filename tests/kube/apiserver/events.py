"""An Event has two faces, core/v1 and events.k8s.io/v1; it is stored with the first."""

from __future__ import annotations

from typing import Final

from tests.kube.apiserver.kinds import EVENTS, EVENTS_V1, Json, Kind

_NAMES: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}


def shown(kind: Kind, thing: Json) -> Json:
    if kind is not EVENTS_V1:
        return thing
    names = {core: new for new, core in _NAMES.items()}
    return {**{names.get(key, key): value for key, value in thing.items()}, "apiVersion": kind.api_version}


def received(kind: Kind, thing: Json) -> Json:
    if kind is not EVENTS_V1:
        return thing
    return {**{_NAMES.get(key, key): value for key, value in thing.items()}, "apiVersion": EVENTS.api_version}
