"""Who a token belongs to, and what its user may do by the roles and bindings that are in the store (RBAC)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final

from tests.kube.apiserver.kinds import BY_PATH, Json
from tests.kube.apiserver.refusals import forbidden, unauthorized
from tests.kube.apiserver.request import Request
from tests.kube.apiserver.store import Store

RBAC: Final = "rbac.authorization.k8s.io/v1"
ADMIN: Final = "kubernetes-admin"
ANYBODY: Final = ("/readyz", "/livez", "/healthz", "/version")


class Rights:
    def __init__(self, store: Store) -> None:
        self.tokens_wanted = False
        """Without a valid token: 401. Else whoever shows none is the administrator."""
        self.enforced = False
        """Whether roles are looked at."""
        self._store = store
        self._users: dict[str, str] = {}

    def token(self, user: str = ADMIN) -> str:
        """A new one; `system:serviceaccount:NAMESPACE:NAME` is a service account."""
        token = secrets.token_urlsafe(24)
        self._users[token] = user
        return token

    def expire(self, token: str) -> None:
        self._users.pop(token, None)

    def user(self, request: Request) -> str:
        """Raises Refusal (401)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token in self._users:
            return self._users[token]
        if (token or self.tokens_wanted) and request.path not in ANYBODY:
            raise unauthorized()
        return "system:anonymous" if self.tokens_wanted else ADMIN

    def check(self, user: str, request: Request) -> None:
        """Raises Refusal (403)."""
        if not self.enforced or user == ADMIN or request.kind is None:
            return
        kind = request.kind
        resource = f"{kind.plural}/{request.subresource}" if request.subresource else kind.plural
        name = request.name or request.named_by_selector
        for rule in self._rules(user, request.namespace):
            if (
                _has(rule.get("verbs"), request.verb)
                and _has(rule.get("apiGroups"), kind.group)
                and (_has(rule.get("resources"), resource) or f"*/{request.subresource}" in rule.get("resources", ()))
                and (not rule.get("resourceNames") or name in rule["resourceNames"])
            ):
                return
        raise forbidden(user, request.verb, resource, kind.group, request.namespace)

    def _rules(self, user: str, namespace: str) -> Iterator[Json]:
        for plural, home in (("clusterrolebindings", ""), ("rolebindings", namespace)):
            kind = BY_PATH[RBAC, plural]
            if plural == "rolebindings" and not namespace:
                continue
            for binding in self._store.select(kind, home, lambda thing: True):
                if any(_is(subject, user) for subject in binding.get("subjects") or ()):
                    role = binding["roleRef"]
                    found = BY_PATH[RBAC, f"{role['kind'].lower()}s"]
                    key = (found, home if found.namespaced else "", role["name"])
                    yield from (self._store.objects.get(key) or {}).get("rules") or ()


def _is(subject: Any, user: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    if subject["kind"] == "Group":
        namespace = user.rpartition(":")[0].replace("serviceaccount", "serviceaccounts")
        groups = ("system:authenticated", "system:serviceaccounts", namespace)
        return subject["name"] in groups and user.startswith("system:serviceaccount:")
    return bool(subject["name"] == user)


def _has(listed: Any, wanted: str) -> bool:
    return "*" in (listed or ()) or wanted in (listed or ())
