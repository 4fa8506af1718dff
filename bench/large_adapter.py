"""An adapter of 100 MB and its base model, of random weights, on the demo's volumes: the size of what is served in
earnest, where an adapter of rank 16 on 8 billion weights has 84 MB in bfloat16.

A large rank on a base model of 64 million weights, since a processor should take no longer for its token than a GPU for
that of a real one. What was made stays for the next run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo.install import BASE_MODEL_JOB
from demo.kubectl import Kubectl
from finetune_operator.contract.places import ARTIFACTS_ROOT
from finetune_operator.manifests.common import claim_volume, container_security, pod_security

FAMILY = "large"
VERSION = f"{FAMILY}-v1"
BASE_MODEL = "large-llama"
RANK = 128
POD = "large-adapter"
POD_TIMEOUT_SECONDS = 300
# An engine of its own has to start.
READY_TIMEOUT_SECONDS = 600
MODELS_ROOT = "/models"
SCRATCH = "/tmp"  # noqa: S108 - the pod's own
PLANT = f"""
import json, sys
from pathlib import Path
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from publish import publish_adapter
tiny, base, adapter = map(Path, sys.argv[1:])
if not (adapter / "manifest.json").exists():
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    known = LlamaConfig.from_pretrained(tiny)
    config = LlamaConfig(
        vocab_size=known.vocab_size, hidden_size=512, intermediate_size=1408, num_hidden_layers=20,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=known.max_position_embeddings,
        bos_token_id=known.bos_token_id, eos_token_id=known.eos_token_id, pad_token_id=known.pad_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    lora = LoraConfig(r={RANK}, lora_alpha={RANK}, target_modules="all-linear", init_lora_weights=False)
    adapter.parent.mkdir(parents=True, exist_ok=True)
    publish_adapter(get_peft_model(model, lora), adapter, "bench", {BASE_MODEL!r})
print(json.loads((adapter / "manifest.json").read_text())["digest"])
"""


@contextmanager
def large_version(kubectl: Kubectl, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A loaded ModelVersion of 100 MB while the block lasts; `known` is one of the demo's, on whose volumes it lies."""
    manifest = _version(known, _plant(kubectl, known))
    kubectl.apply(manifest)
    try:
        yield kubectl.wait_for(f"{VERSION} is loaded", lambda: _loaded(kubectl), READY_TIMEOUT_SECONDS)
    finally:
        kubectl.run("delete", "modelversion", VERSION, "--wait=true")


def _loaded(kubectl: Kubectl) -> dict[str, Any] | None:
    version = kubectl.get("modelversion", VERSION)
    return version if version.get("status", {}).get("state") == "Ready" else None


def _version(known: dict[str, Any], artifact: dict[str, Any]) -> dict[str, Any]:
    spec = known["spec"]
    source = {"volume": spec["baseModel"]["source"]["volume"] | {"path": BASE_MODEL}}
    return {
        "apiVersion": known["apiVersion"],
        "kind": "ModelVersion",
        "metadata": {"name": VERSION},
        "spec": {
            "model": FAMILY,
            "version": 1,
            "baseModel": {"name": BASE_MODEL, "source": source},
            "artifact": artifact,
            "serving": spec["serving"] | {"maxLoraRank": RANK},
            "state": "Ready",
            "promotion": "Manual",
        },
    }


def _plant(kubectl: Kubectl, known: dict[str, Any]) -> dict[str, Any]:
    """The artifact, made by a pod of the trainer's image where no earlier run has left it."""
    claim, _, path = known["spec"]["artifact"]["uri"].removeprefix("volume://").partition("/")
    models = known["spec"]["baseModel"]["source"]["volume"]
    adapter = f"{path.split('/')[0]}/{VERSION}-r{RANK}/adapter"
    trainer = kubectl.get("job", BASE_MODEL_JOB)["spec"]["template"]["spec"]["containers"][0]["image"]
    kubectl.run("delete", "pod", POD, "--ignore-not-found")
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": POD},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": pod_security(),
                "volumes": [
                    claim_volume("artifacts", claim, read_only=False),
                    claim_volume("models", models["claimName"], read_only=False),
                    {"name": "tmp", "emptyDir": {}},
                ],
                "containers": [
                    {
                        "name": "plant",
                        "image": trainer,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-c", PLANT],
                        "args": [
                            f"{MODELS_ROOT}/{models['path']}",
                            f"{MODELS_ROOT}/{BASE_MODEL}",
                            f"{ARTIFACTS_ROOT}/{adapter}",
                        ],
                        "env": [{"name": "HOME", "value": SCRATCH}, {"name": "HF_HUB_OFFLINE", "value": "1"}],
                        "securityContext": container_security(),
                        "volumeMounts": [
                            {"name": "artifacts", "mountPath": ARTIFACTS_ROOT},
                            {"name": "models", "mountPath": MODELS_ROOT},
                            {"name": "tmp", "mountPath": SCRATCH},
                        ],
                    }
                ],
            },
        }
    )
    end = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl.run("wait", f"pod/{POD}", end, f"--timeout={POD_TIMEOUT_SECONDS}s", timeout_seconds=POD_TIMEOUT_SECONDS)
    # The libraries have their say before.
    digest = kubectl.run("logs", POD).split()[-1]
    kubectl.run("delete", "pod", POD)
    return {"uri": f"volume://{claim}/{adapter}", "digest": digest}
