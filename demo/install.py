"""What the story needs in the cluster: the chart, a ratings database, and a base model that speaks."""

import base64
import json
import tempfile
from pathlib import Path

from demo import ratings
from demo.console import Narrator
from demo.conversations import Conversation, load_conversations
from demo.kubectl import DemoError, Kubectl
from demo.target import NAMESPACE, REPOSITORY, Target

RELEASE = "finetune"
PERSON = "ada"
"""Who may do in the demo's namespace what the ClusterRole `edit` allows."""
CHART = REPOSITORY / "helm" / "finetune-operator"
EXAMPLES = REPOSITORY / "examples"
FINE_TUNED_DOMAINS = frozenset({"emotion", "ai"})
BASE_MODEL_JOB = "base-model"
BASE_MODEL_TIMEOUT_SECONDS = 900
LOADER = "ratings-loader"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
WRITE_FILE = (
    "import os, shutil, sys; target = sys.argv[1]; part = target + '.part'; "
    "out = open(part, 'wb'); shutil.copyfileobj(sys.stdin.buffer, out); out.close(); os.replace(part, target)"
)


def install_chart(target: Target, narrator: Narrator) -> None:
    """Namespace with Pod Security `restricted`, the place of the ratings, then the chart; again it is an upgrade."""
    kubectl = target.kubectl
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    kubectl.apply(namespace)
    kubectl.run("label", "namespace", NAMESPACE, RESTRICTED, "--overwrite")
    # The api's pod does not start before the volume is there that it mounts.
    kubectl.apply(EXAMPLES / "ratings-db.yaml")
    values = [argument for name in target.values for argument in ("--values", str(CHART / name))]
    chosen = {**target.settings, **_without_what_another_release_has(kubectl)}
    settings = [argument for item in chosen.items() for argument in ("--set", "=".join(item))]
    narrator.command(f"helm upgrade --install {RELEASE} helm/finetune-operator --values {' '.join(target.values)}")
    kubectl.helm("upgrade", "--install", RELEASE, str(CHART), *values, *settings)
    # helm's own --wait would also wait for volumes that bind only when a pod first uses them.
    for process in ("operator", "gateway", "api"):
        kubectl.run("rollout", "status", f"deployment/{RELEASE}-{process}", "--timeout=300s", timeout_seconds=330)
    narrator.say(kubectl.run("get", "deployments,services"))


def _without_what_another_release_has(kubectl: Kubectl) -> dict[str, str]:
    """The kinds exist once a cluster; Helm refuses a second release that brings them along."""
    definition = kubectl.find("customresourcedefinition", "finetunejobs.finetune.dev")
    owner = (definition or {}).get("metadata", {}).get("annotations", {}).get("meta.helm.sh/release-namespace")
    if owner in (None, NAMESPACE):
        return {}
    return {"crds.install": "false", "rbac.aggregateClusterRoles": "false"}


def make_person(kubectl: Kubectl, name: str) -> None:
    """A ServiceAccount whose tokens people log in with, by the ClusterRole `edit` in kubectl's namespace alone."""
    kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    kubectl.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": kubectl.namespace}],
        }
    )


def start_afresh(target: Target) -> None:
    """Without what an earlier run of the demo made; base model and ratings stay."""
    kubectl = target.kubectl
    kubectl.run(
        "delete", "abtests,batchinferences,finetunejobs,modelversions", "--all", "--wait=true", timeout_seconds=180
    )


def fill_ratings(target: Target, narrator: Narrator) -> list[Conversation]:
    """A SQLite database on the volume `ratings`, whose URL is in the Secret beside it."""
    conversations = load_conversations()
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "ratings.db"
        count = ratings.write_database(database, ratings.rate(conversations))
        write_to_volume(target, "ratings", "ratings.db", database.read_bytes())
    narrator.say(f"{count} ratings of {len(conversations)} conversations of chatterbot-corpus in ml_analysis_rating")
    narrator.say(f"rule: {ratings.RULE}")
    return conversations


def train_base_model(target: Target, narrator: Narrator, conversations: list[Conversation]) -> None:
    """A tiny Llama from scratch, on the topics that the fine-tuning jobs don't use."""
    kubectl = target.kubectl
    known = kubectl.find("job", BASE_MODEL_JOB)
    if known and known.get("status", {}).get("succeeded"):
        narrator.say("the base model was trained by an earlier run")
        return
    if known and known.get("status", {}).get("failed"):
        kubectl.run("delete", "job", BASE_MODEL_JOB, "--wait=true")
    chosen = [item for item in conversations if item.topic not in FINE_TUNED_DOMAINS]
    narrator.say(f"{len(chosen)} conversations of the other topics; trained in the cluster from random weights")
    kubectl.apply(_conversations_config_map(chosen))
    manifest = (EXAMPLES / "base-model.yaml").read_text()
    image = target.settings.get("image.trainer.repository")
    if image:
        tag = target.settings["image.trainer.tag"]
        manifest = manifest.replace("localhost/finetune-operator/trainer:dev", f"{image}:{tag}")
    kubectl.run("apply", "--filename", "-", stdin=manifest)
    _wait_for_job(kubectl, BASE_MODEL_JOB, narrator)


def _conversations_config_map(conversations: list[Conversation]) -> dict[str, object]:
    lines = (
        json.dumps({"messages": [{"role": "user", "content": c.prompt}, {"role": "assistant", "content": c.response}]})
        for c in conversations
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "conversations"},
        "data": {"conversations.jsonl": "\n".join(lines) + "\n"},
    }


def _wait_for_job(kubectl: Kubectl, name: str, narrator: Narrator) -> None:
    def finished() -> str | None:
        status = kubectl.get("job", name).get("status", {})
        true = [c["type"] for c in status.get("conditions", []) if c["status"] == "True"]
        return next((kind for kind in true if kind in ("Complete", "Failed")), None)

    outcome = kubectl.wait_for(f"job {name}", finished, BASE_MODEL_TIMEOUT_SECONDS)
    log = kubectl.run("logs", f"job/{name}", "--tail", "12")
    narrator.say(log)
    if outcome == "Failed":
        raise DemoError(f"job {name} failed: {log}")


def write_to_volume(target: Target, claim: str, name: str, content: bytes, *, script: str = WRITE_FILE) -> None:
    """Through a pod of the operator's image, since a volume can be reached by pods alone."""
    kubectl = target.kubectl
    kubectl.run("delete", "pod", LOADER, "--ignore-not-found", "--wait=true")
    kubectl.apply(_loader_pod(target, claim))
    kubectl.run("wait", "pod", LOADER, "--for=condition=Ready", "--timeout=180s")
    kubectl.run("exec", "--stdin", LOADER, "--", "python", "-c", script, f"/volume/{name}", stdin=content)
    kubectl.run("delete", "pod", LOADER, "--wait=true", "--grace-period=0", "--force")


def _loader_pod(target: Target, claim: str) -> dict[str, object]:
    deployment = target.kubectl.get("deployment", f"{RELEASE}-api")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LOADER},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "loader",
                    "image": image,
                    "command": ["python", "-c", "import signal; signal.pause()"],
                    "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                }
            ],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


def api_token(target: Target) -> str:
    """The token of the REST interface, as an administrator reads it."""
    secret = target.kubectl.get("secret", f"{RELEASE}-internal")
    return base64.b64decode(secret["data"]["api-token"]).decode()
