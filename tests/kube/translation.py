"""A Pod of the API as the Container Runtime Interface has it: what a kubelet makes of the fields we use.

Law: a field that is not known here is an error, so that no manifest seems to work by something that was left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cri_api.v1 import api_pb2 as cri

Json = dict[str, Any]
Variables = Mapping[str, str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROPAGATION: Final = {
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
POD_FIELDS: Final = _words(
    """
    affinity containers dnsPolicy enableServiceLinks hostNetwork hostPID nodeName priorityClassName
    restartPolicy securityContext serviceAccountName serviceAccount terminationGracePeriodSeconds tolerations
    volumes schedulerName automountServiceAccountToken
    """
)
CONTAINER_FIELDS: Final = _words(
    """
    command args env envFrom image imagePullPolicy livenessProbe name ports readinessProbe resources
    securityContext startupProbe volumeMounts terminationMessagePath terminationMessagePolicy stdin stdinOnce
    tty
    """
)
SECURITY_FIELDS: Final = _words(
    """
    allowPrivilegeEscalation capabilities privileged readOnlyRootFilesystem runAsUser runAsNonRoot runAsGroup
    seccompProfile
    """
)
MASKED: Final = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
READONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What a kubelet names for containers that are not privileged."""


def check(pod: Json) -> None:
    """Raises ValueError for what would be left out."""
    unknown = [f"spec.{field}" for field in pod["spec"] if field not in POD_FIELDS]
    for container in pod["spec"]["containers"]:
        unknown += [f"{container['name']}.{field}" for field in container if field not in CONTAINER_FIELDS]
        security = container.get("securityContext") or {}
        unknown += [f"{container['name']}.{field}" for field in security if field not in SECURITY_FIELDS]
    if unknown:
        raise ValueError(f"this kubelet does not know {', '.join(unknown)}")


def sandbox(pod: Json, attempt: int, parent: str) -> Any:
    """`parent`: the control group."""
    metadata, spec = pod["metadata"], pod["spec"]
    on_host = bool(spec.get("hostNetwork"))
    options = _namespaces(spec)
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=metadata["name"], uid=metadata["uid"], namespace=metadata["namespace"], attempt=attempt
        ),
        log_directory=log_directory(pod),
        labels={
            **(metadata.get("labels") or {}),
            "io.kubernetes.pod.name": metadata["name"],
            "io.kubernetes.pod.namespace": metadata["namespace"],
            "io.kubernetes.pod.uid": metadata["uid"],
        },
        annotations=metadata.get("annotations") or {},
        port_mappings=[] if on_host else _ports(spec),
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=f"/{parent}",
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=options, seccomp=_seccomp(spec.get("securityContext") or {}, unconfined=False)
            ),
        ),
    )
    if not on_host:
        config.hostname = metadata["name"]
    return config


def container(pod: Json, wanted: Json, attempt: int, environment: Variables, mounts: list[Any]) -> Any:
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=wanted["name"], attempt=attempt),
        image=cri.ImageSpec(image=wanted["image"]),
        command=wanted.get("command") or [],
        args=wanted.get("args") or [],
        envs=[cri.KeyValue(key=key, value=value) for key, value in environment.items()],
        mounts=mounts,
        labels={
            "io.kubernetes.container.name": wanted["name"],
            "io.kubernetes.pod.name": pod["metadata"]["name"],
            "io.kubernetes.pod.namespace": pod["metadata"]["namespace"],
            "io.kubernetes.pod.uid": pod["metadata"]["uid"],
        },
        log_path=f"{wanted['name']}/{attempt}.log",
        stdin=bool(wanted.get("stdin")),
        linux=cri.LinuxContainerConfig(resources=_resources(wanted), security_context=_security(pod["spec"], wanted)),
    )


def log_directory(pod: Json) -> str:
    metadata = pod["metadata"]
    return f"/var/log/pods/{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"


def mount(wanted: Json, host_path: str) -> Any:
    return cri.Mount(
        container_path=wanted["mountPath"],
        host_path=host_path,
        readonly=bool(wanted.get("readOnly")),
        propagation=PROPAGATION[wanted.get("mountPropagation", "None")],
    )


def _namespaces(spec: Json) -> Any:
    return cri.NamespaceOption(
        network=cri.NODE if spec.get("hostNetwork") else cri.POD,
        pid=cri.NODE if spec.get("hostPID") else cri.CONTAINER,
        ipc=cri.NODE if spec.get("hostIPC") else cri.POD,
    )


def _ports(spec: Json) -> list[Any]:
    protocols = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}
    return [
        cri.PortMapping(
            protocol=protocols[port.get("protocol", "TCP")],
            container_port=port["containerPort"],
            host_port=port.get("hostPort", 0),
        )
        for each in spec["containers"]
        for port in each.get("ports") or ()
    ]


def _seccomp(security: Json, *, unconfined: bool) -> Any:
    kind = (security.get("seccompProfile") or {}).get("type", "Unconfined")
    profile = {"RuntimeDefault": cri.SecurityProfile.RuntimeDefault, "Unconfined": cri.SecurityProfile.Unconfined}
    return cri.SecurityProfile(profile_type=profile["Unconfined" if unconfined else kind])


def _security(spec: Json, wanted: Json) -> Any:
    of_pod, own = spec.get("securityContext") or {}, wanted.get("securityContext") or {}
    security = of_pod | own
    privileged = bool(own.get("privileged"))
    capabilities = own.get("capabilities") or {}
    made = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(
            add_capabilities=capabilities.get("add") or [], drop_capabilities=capabilities.get("drop") or []
        ),
        privileged=privileged,
        namespace_options=_namespaces(spec),
        readonly_rootfs=bool(own.get("readOnlyRootFilesystem")),
        no_new_privs=own.get("allowPrivilegeEscalation") is False,
        masked_paths=() if privileged else MASKED,
        readonly_paths=() if privileged else READONLY,
        seccomp=_seccomp(security, unconfined=privileged),
    )
    for field, place in (("runAsUser", "run_as_user"), ("runAsGroup", "run_as_group")):
        if field in security:
            getattr(made, place).value = security[field]
    return made


def _resources(wanted: Json) -> Any:
    resources = wanted.get("resources") or {}
    asked, limits = resources.get("requests") or {}, resources.get("limits") or {}
    made = cri.LinuxContainerResources(cpu_shares=max(2, _milli(asked.get("cpu", "0")) * 1024 // 1000))
    if "cpu" in limits:
        made.cpu_period, made.cpu_quota = 100_000, _milli(limits["cpu"]) * 100
    if "memory" in limits:
        made.memory_limit_in_bytes = _bytes(limits["memory"])
    return made


def _milli(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


def _bytes(text: str) -> int:
    units = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
    return int(text[:-2]) * units[text[-2:]] if text[-2:] in units else int(text)
