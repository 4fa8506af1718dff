"""How files of a volume are brought to where somebody is: by a pod that mounts it, and a shell script. Pure."""

import json
import shlex

from finetune_operator.manifests.common import Manifest, container_security, pod_security

MOUNT = "/artifacts"
IMAGE = "busybox"
"""With sleep and tar."""
COPY_SCRIPT = """\
#!/bin/sh
# Files of {what} of namespace {namespace}: sh {name}.sh [DIRECTORY]
# It copies them with a pod that mounts their volume, and removes the pod. It needs kubectl.
set -eu
directory=${{1:-{name}}}
kubectl() {{ command kubectl --namespace {namespace} "$@"; }}

kubectl apply -f - <<'POD'
{pod}
POD
trap 'kubectl delete pod {pod_name} --wait=false' EXIT
kubectl wait pod {pod_name} --for=condition=Ready --timeout=5m
kubectl cp {source} "$directory"
"""


def files_pod(name: str, claim: str, image: str = IMAGE) -> Manifest:
    """It does nothing but have the volume, for two hours at most."""
    mount = {"name": "artifacts", "mountPath": MOUNT, "readOnly": True}
    container = {
        "name": "files",
        "image": image,
        "command": ["sleep", "3600"],
        "securityContext": container_security(),
        "volumeMounts": [mount],
    }
    volume = {"name": "artifacts", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    spec = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 7200,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [volume],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def copy_script(what: str, name: str, namespace: str, uri: str, image: str = IMAGE) -> str:
    """Of a directory `volume://<claim>/<path>`; `what` says whose files they are."""
    claim, _, path = uri.removeprefix("volume://").partition("/")
    pod_name = f"files-{name}"[:63].rstrip("-.")
    return COPY_SCRIPT.format(
        what=what,
        name=name,
        namespace=namespace,
        pod=json.dumps(files_pod(pod_name, claim, image), indent=2),
        pod_name=pod_name,
        source=shlex.quote(f"{pod_name}:{MOUNT}/{path}"),
    )
