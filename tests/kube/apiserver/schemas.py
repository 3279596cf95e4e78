"""Refuses objects that a real server would refuse: by the published OpenAPI, and by what its validation adds to that.

A server drops unknown fields and warns; here they are refused, as with `kubectl --validate=strict`, for nobody reads
warnings in a test. A time of six digits is what Go's decoder of a MicroTime insists on, though no schema says so.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from tests.kube.apiserver.kinds import Json, Kind
from tests.kube.apiserver.refusals import bad_request, invalid

VERSION: Final = "v1.36.0-local-strict"
SCHEMAS: Final = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / VERSION
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
MICRO_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$"
TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
SUBDOMAIN: Final = re.compile(r"^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
LABEL_VALUE: Final = re.compile(r"^(?=.{0,63}$)(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
LABEL_KEY: Final = re.compile(r"^([a-z0-9.-]{1,253}/)?(?=.{1,63}$)([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
ANNOTATIONS_BYTES: Final = 256 << 10
SYNTAX: Final = frozenset({"type", "additionalProperties", "pattern", "oneOf"})
"""What a decoder refuses (400), before validation does (422)."""


def validate(kind: Kind, thing: Json) -> None:
    """Raises Refusal."""
    name = thing["metadata"].get("name") or ""
    error = best_match(_validator(kind).iter_errors(thing))
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path)
        if error.validator in SYNTAX:
            raise bad_request(
                f"{kind.kind} in version {kind.version!r} cannot be handled: {where}: {error.message[:300]}"
            )
        raise invalid(kind, name, where, error.message[:300])
    _check_metadata(kind, name, thing["metadata"])
    if kind.plural == "events" and not kind.group:
        _check_event(kind, name, thing)
    if kind.plural == "leases" and (thing.get("spec") or {}).get("leaseDurationSeconds", 1) <= 0:
        raise invalid(kind, name, "spec.leaseDurationSeconds", "must be greater than 0")
    if kind.plural == "daemonsets":
        spec = thing["spec"]
        labels = spec["template"].get("metadata", {}).get("labels", {})
        if not (spec["selector"].get("matchLabels") or {}).items() <= labels.items():
            raise invalid(kind, name, "spec.template.metadata.labels", "`selector` does not match template `labels`")


@functools.cache
def _definitions() -> Any:
    definitions = json.loads((SCHEMAS / "_definitions.json").read_text())
    definitions["$defs"][f"{META}MicroTime"]["pattern"] = MICRO_TIME
    definitions["$defs"][f"{META}Time"]["pattern"] = TIME
    return definitions


@functools.cache
def _validator(kind: Kind) -> Draft202012Validator:
    group = kind.group.partition(".")[0]
    api_version = f"{group}-{kind.version}" if group else kind.version
    schema = json.loads((SCHEMAS / f"{kind.kind.lower()}-{api_version}.json").read_text())
    registry: Registry[Any] = Resource.from_contents(_definitions()) @ Registry()
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


def _check_metadata(kind: Kind, name: str, metadata: Json) -> None:
    if not SUBDOMAIN.match(name) and "rbac" not in kind.group:
        raise invalid(kind, name, "metadata.name", f"Invalid value: {name!r}: a lowercase RFC 1123 subdomain is wanted")
    for key, value in (metadata.get("labels") or {}).items():
        if not LABEL_KEY.match(key) or not LABEL_VALUE.match(value):
            raise invalid(kind, name, "metadata.labels", f"Invalid value: {key}={value}")
    annotations = metadata.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > ANNOTATIONS_BYTES:
        raise invalid(kind, name, "metadata.annotations", f"Too long: may not be more than {ANNOTATIONS_BYTES} bytes")
    for owner in metadata.get("ownerReferences") or ():
        if not all(owner.get(field) for field in ("apiVersion", "kind", "name", "uid")):
            raise invalid(kind, name, "metadata.ownerReferences", "apiVersion, kind, name and uid must not be empty")


def _check_event(kind: Kind, name: str, event: Json) -> None:
    about, home = event["involvedObject"].get("namespace") or "", event["metadata"].get("namespace")
    if about and about != home:
        raise invalid(kind, name, "involvedObject.namespace", "does not match event.namespace")
    if not about and home not in ("default", "kube-system"):
        raise invalid(kind, name, "involvedObject.namespace", "does not match event.namespace")
    if len(event.get("message") or "") > 1024:
        raise invalid(kind, name, "message", "can have at most 1024 characters")
