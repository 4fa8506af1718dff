"""What Pod Security `restricted` asks of a pod, and what we ask beyond it."""

from typing import Any

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
ALLOWED_VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
FORBIDDEN_FIELDS = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")


def pod_violations(pod: dict[str, Any]) -> list[str]:
    """One line for each field of a pod's spec that is missing or too permissive."""
    security = pod.get("securityContext", {})
    found = [f"{field} is set" for field in FORBIDDEN_FIELDS if field in pod]
    if security.get("runAsNonRoot") is not True:
        found.append("runAsNonRoot is not true")
    if security.get("runAsUser") != 10001 or security.get("runAsGroup") != 10001 or security.get("fsGroup") != 10001:
        found.append("not user, group and fsGroup 10001")
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("seccompProfile is not RuntimeDefault")
    for volume in pod.get("volumes", ()):
        found += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - ALLOWED_VOLUMES]
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        found += [f"container {container['name']}: {violation}" for violation in _container_violations(container)]
    return found


def _container_violations(container: dict[str, Any]) -> list[str]:
    security = container.get("securityContext", {})
    resources = container.get("resources", {})
    checks = {
        "privileged": not security.get("privileged"),
        "may escalate": security.get("allowPrivilegeEscalation") is False,
        "keeps capabilities": security.get("capabilities") == {"drop": ["ALL"]},
        "root is writable": security.get("readOnlyRootFilesystem") is True,
        "uses a port of the host": not any("hostPort" in port for port in container.get("ports", ())),
        "requests no memory or CPU": {"cpu", "memory"} <= resources.get("requests", {}).keys(),
        "has no memory limit": "memory" in resources.get("limits", {}),
    }
    return [violation for violation, holds in checks.items() if not holds]
