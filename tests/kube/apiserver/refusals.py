"""What the server says no with: a Status object, worded as Kubernetes words it."""

from __future__ import annotations

from typing import Any

from tests.kube.apiserver.kinds import Kind


class Refusal(Exception):
    """An answer other than the object."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": code,
        }


def _about(kind: Kind, name: str) -> dict[str, Any]:
    return {"name": name, "group": kind.group, "kind": kind.plural}


def not_found(kind: Kind, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{kind.resource} "{name}" not found', _about(kind, name))


def no_such_path() -> Refusal:
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def already_exists(kind: Kind, name: str) -> Refusal:
    return Refusal(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _about(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> Refusal:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return Refusal(
        409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}', _about(kind, name)
    )


def invalid(kind: Kind, name: str, field: str, why: str) -> Refusal:
    cause = {"reason": "FieldValueInvalid", "message": why, "field": field}
    message = f'{kind.kind}.{kind.group} "{name}" is invalid: {field}: {why}'
    return Refusal(422, "Invalid", message, {**_about(kind, name), "causes": [cause]})


def bad_request(why: str) -> Refusal:
    return Refusal(400, "BadRequest", why)


def forbidden(user: str, verb: str, resource: str, group: str, namespace: str) -> Refusal:
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    message = (
        f'{resource} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{group}"{where}'
    )
    return Refusal(403, "Forbidden", message)


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def expired(version: int, oldest: int) -> Refusal:
    return Refusal(410, "Expired", f"too old resource version: {version} ({oldest})")


def too_large(version: int, current: int) -> Refusal:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    return Refusal(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
