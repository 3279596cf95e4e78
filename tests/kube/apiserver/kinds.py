"""The kinds of objects that this API server has, and what discovery says of them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Json = dict[str, Any]


class Kind(NamedTuple):
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    """Has the subresource status, which alone changes `.status`."""
    short: tuple[str, ...] = ()
    blind: bool = True
    """May be replaced without telling the version that one has seen."""
    put_creates: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


KINDS: Final = (
    Kind("", "v1", "nodes", "Node", namespaced=False, status=True, short=("no",)),
    Kind("", "v1", "namespaces", "Namespace", namespaced=False, status=True, short=("ns",)),
    Kind("", "v1", "pods", "Pod", status=True, short=("po",)),
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "services", "Service", status=True, short=("svc",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("", "v1", "events", "Event", short=("ev",), put_creates=True),
    Kind("events.k8s.io", "v1", "events", "Event", short=("ev",), put_creates=True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", blind=False, put_creates=True),
    Kind("apps", "v1", "daemonsets", "DaemonSet", status=True, short=("ds",)),
    Kind("apps", "v1", "deployments", "Deployment", status=True, short=("deploy",)),
    Kind("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Kind("batch", "v1", "jobs", "Job", status=True),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", status=True, short=("pdb",)),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
)
BY_PATH: Final = {(kind.api_version, kind.plural): kind for kind in KINDS}
BY_KIND: Final = {(kind.api_version, kind.kind): kind for kind in KINDS}
VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

EVENTS_V1: Final = BY_PATH["events.k8s.io/v1", "events"]
EVENTS: Final = BY_PATH["v1", "events"]
"""One store for both."""


def stored_as(kind: Kind) -> Kind:
    return EVENTS if kind is EVENTS_V1 else kind


def discovery(path: str, address: str) -> Json | None:
    """The document at `path`; none if it is no document of discovery."""
    parts = path.strip("/").split("/")
    groups = list(dict.fromkeys((kind.group, kind.version) for kind in KINDS if kind.group))
    if parts == ["api"]:
        server = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": server}
    if parts == ["apis"]:
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups]}
    if parts == ["api", "v1"]:
        return _resources("v1")
    if parts[0] == "apis" and len(parts) == 2:
        return next(
            ({"kind": "APIGroup", "apiVersion": "v1", **_group(*each)} for each in groups if each[0] == parts[1]), None
        )
    if parts[0] == "apis" and tuple(parts[1:]) in groups:
        return _resources("/".join(parts[1:]))
    return None


def _group(group: str, version: str) -> Json:
    told = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [told], "preferredVersion": told}


def _resources(api_version: str) -> Json:
    listed: list[Json] = []
    for kind in KINDS:
        if kind.api_version != api_version:
            continue
        named = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
        listed.append({"name": kind.plural, **named, "verbs": list(VERBS), "shortNames": list(kind.short)})
        if kind.status:
            listed.append(
                {"name": f"{kind.plural}/status", **named, "singularName": "", "verbs": ["get", "patch", "update"]}
            )
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}
