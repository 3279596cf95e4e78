"""The volumes of a pod and its variables, as a kubelet prepares them on its machine before a container starts.

    hostPath: checked, or made, by its type      emptyDir: of the pod      secret, projected: files on a tmpfs of /run

Law: what is optional and missing is left out; what is wanted and missing keeps the container from starting, and the
reason is what the pod's status says.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from tests.kube import translation
from tests.kube.machine import Machine

PODS: Final = "/var/lib/kubelet/pods"
Json = dict[str, Any]


class Source(Protocol):
    """What a kubelet gets from its API server, and remembers."""

    @property
    def authority(self) -> str:
        """The certificate by which the server is known."""

    def data(self, kind: str, namespace: str, name: str) -> dict[str, str] | None:
        """Of a ConfigMap or a Secret; none if there is no such object. Raises Unreachable."""

    def token(self, namespace: str, name: str) -> str:
        """Of a service account."""


class Unmountable(Exception):
    """A kubelet's reason and words."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Volumes:
    """Of one pod."""

    def __init__(self, machine: Machine, source: Source, pod: Json) -> None:
        self._machine = machine
        self._source = source
        self._pod = pod
        self._namespace: str = pod["metadata"]["namespace"]

    def prepare(self) -> Mapping[str, str]:
        """Where each is, on the host. Raises Unmountable, Refused, Unreachable."""
        return {volume["name"]: self._place(volume) for volume in self._pod["spec"].get("volumes") or ()}

    def mounts(self, container: Json, places: Mapping[str, str]) -> list[Any]:
        return [translation.mount(each, places[each["name"]]) for each in container.get("volumeMounts") or ()]

    def environment(self, container: Json, services: Mapping[str, str]) -> Mapping[str, str]:
        """`services` are the variables of services; what the container itself names is stronger."""
        found = dict(services)
        for source in container.get("envFrom") or ():
            wanted = source["configMapRef"]
            found |= self._data("ConfigMap", wanted)
        for each in container.get("env") or ():
            found[each["name"]] = self._value(each)
        return found

    # --- variables ---------------------------------------------------------------------------------------------------
    def _value(self, variable: Json) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable.get("value", ""))
        path = source["fieldRef"]["fieldPath"]
        known = {
            "spec.nodeName": self._pod["spec"]["nodeName"],
            "metadata.name": self._pod["metadata"]["name"],
            "metadata.namespace": self._namespace,
            "status.hostIP": self._machine.host.address,
        }
        return str(known[path])

    def _data(self, kind: str, wanted: Json) -> dict[str, str]:
        name = wanted.get("name") or wanted["secretName"]
        data = self._source.data(kind, self._namespace, name)
        if data is None and not wanted.get("optional"):
            raise Unmountable("CreateContainerConfigError", f'{kind.lower()} "{name}" not found')
        return data or {}

    # --- volumes -----------------------------------------------------------------------------------------------------
    def _place(self, volume: Json) -> str:
        if "hostPath" in volume:
            return self._of_host(volume["hostPath"])
        if "emptyDir" in volume:
            return self._directory("empty-dir", volume["name"])
        if "secret" in volume:
            return self._secret(volume["name"], volume["secret"])
        return self._projected(volume["name"], volume["projected"])

    def _of_host(self, wanted: Json) -> str:
        path, kind = wanted["path"], wanted.get("type", "")
        inside = self._machine.inside(path)
        if kind == "DirectoryOrCreate":
            inside.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == "FileOrCreate" and not inside.exists():
            inside.touch(mode=0o644)
        tests: dict[str, Callable[[int], bool]]
        tests = {"Directory": stat.S_ISDIR, "DirectoryOrCreate": stat.S_ISDIR, "File": stat.S_ISREG,
                 "FileOrCreate": stat.S_ISREG, "CharDevice": stat.S_ISCHR, "Socket": stat.S_ISSOCK,
                 "": lambda mode: True}  # fmt: skip
        if not inside.exists() or not tests[kind](inside.stat().st_mode):
            raise Unmountable("FailedMount", f"hostPath type check failed: {path} is not a {kind}")
        return str(path)

    def _directory(self, kind: str, name: str) -> str:
        path = f"{PODS}/{self._pod['metadata']['uid']}/volumes/kubernetes.io~{kind}/{name}"
        self._machine.inside(path).mkdir(mode=0o777, parents=True, exist_ok=True)
        self._machine.inside(path).chmod(0o777)
        return path

    def _secret(self, name: str, wanted: Json) -> str:
        path = self._directory("secret", name)
        data = self._data("Secret", wanted)
        items = wanted.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            if item["key"] in data:
                text = base64.b64decode(data[item["key"]])
                self._write(f"{path}/{item['path']}", text, item.get("mode", wanted.get("defaultMode", 0o644)))
            elif not wanted.get("optional"):
                raise Unmountable("FailedMount", f"references non-existent secret key: {item['key']}")
        return path

    def _projected(self, name: str, wanted: Json) -> str:
        path = self._directory("projected", name)
        mode = wanted.get("defaultMode", 0o644)
        for source in wanted["sources"]:
            if "serviceAccountToken" in source:
                account = self._pod["spec"]["serviceAccountName"]
                token = self._source.token(self._namespace, account)
                self._write(f"{path}/{source['serviceAccountToken']['path']}", token.encode(), mode)
            elif "configMap" in source:
                self._write(f"{path}/{source['configMap']['items'][0]['path']}", self._source.authority.encode(), mode)
            else:
                for item in source["downwardAPI"]["items"]:
                    self._write(f"{path}/{item['path']}", self._namespace.encode(), mode)
        return path

    def _write(self, path: str, data: bytes, mode: int) -> None:
        inside: Path = self._machine.inside(path)
        fresh = inside.with_name(f".{inside.name}")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_bytes(data)
        os.chmod(fresh, mode)
        fresh.rename(inside)
