"""The CUDA images, built and then started as a pod would start them, as far as a node without a GPU allows.

Not a part of `make test`: three builds of ten minutes and 20 GB each. `make cuda` runs it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from demo.kubectl import Kubectl
from local_cluster.cluster import Cluster
from local_cluster.versions import BASE_IMAGE

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_SECONDS = 300
CPU_FALLBACK = "import peft_models; peft_models.hide_vllm(); import unsloth, bitsandbytes, torch, train; "
AXOLOTL = (
    "import axolotl_backend; axolotl_backend.settings_of; import axolotl.cli.config, axolotl.common.datasets, "
    "axolotl.train, axolotl.core.builders, bitsandbytes, torch, train; "
)
SERVER = "import torch, vllm.entrypoints.openai.api_server, serve, guard, adapters, merged, vllm.third_party.pynvml; "
TELL_CUDA = "print('cuda', torch.version.cuda)"


class CudaImage(NamedTuple):
    """How one image is built for CUDA, and a program that only works where its parts fit together."""

    name: str
    requirements: str
    program: str


IMAGES = (
    CudaImage("trainer", "cuda", CPU_FALLBACK + TELL_CUDA),
    CudaImage("trainer", "axolotl", AXOLOTL + TELL_CUDA),
    CudaImage("server", "vllm", SERVER + TELL_CUDA),
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.up()
    cluster.ensure_base_image()
    return cluster


@pytest.fixture(params=IMAGES, ids=lambda image: f"{image.name} {image.requirements}")
def built(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[tuple[CudaImage, str]]:
    image: CudaImage = request.param
    tag = f"localhost/finetune-operator/{image.name}:cuda-{image.requirements}"
    arguments = {"BASE_IMAGE": BASE_IMAGE, "REQUIREMENTS": image.requirements}
    cluster.build_image(tag, REPOSITORY / f"{image.name}_image" / "Dockerfile", REPOSITORY, arguments)
    yield image, tag
    cluster.node.images.remove(tag)


@pytest.mark.timeout(3600)
def test_the_image_has_cuda_and_its_parts_import(cluster: Cluster, built: tuple[CudaImage, str]) -> None:
    image, tag = built
    kubectl = Kubectl(cluster.kubeconfig, "default", str(cluster.bin_dir / "kubectl"))
    name = f"cuda-{image.name}-{image.requirements}"
    kubectl.run("delete", "pod", name, "--ignore-not-found")
    kubectl.apply(pod(name, tag, f"import sys; sys.path.insert(0, '/app'); {image.program}"))
    try:
        kubectl.wait_for(
            f"pod {name} ends", lambda: phase(kubectl, name) in ("Succeeded", "Failed"), START_TIMEOUT_SECONDS
        )
        logs = kubectl.run("logs", name)
        assert phase(kubectl, name) == "Succeeded", logs
        assert logs.splitlines()[-1].startswith("cuda 1"), logs
    finally:
        kubectl.run("delete", "pod", name)


def phase(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.get("pod", name)["status"].get("phase"))


def pod(name: str, image: str, program: str) -> dict[str, Any]:
    """As restricted as the operator's own pods."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "check",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": ["python3", "-c", program],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
