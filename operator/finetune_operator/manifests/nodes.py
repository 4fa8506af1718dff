"""A training in several processes: how many, how torchrun is told, and how the pods of several nodes find each other.

Each GPU has a process of its own with a whole copy of the model (data parallel). A node is a pod: the Job is Indexed,
its pods have the names `<Job>-<index>` in a headless Service, and torchrun of index 0 keeps the list of who takes part.
Kubeflow Trainer has the same shape: numNodes, numProcPerNode, torchrun.
"""

from finetune_operator.contract.places import RENDEZVOUS_PORT
from finetune_operator.core.cost import GPU
from finetune_operator.core.quantities import number
from finetune_operator.manifests.common import Manifest, owner_reference
from finetune_operator.resources.finetunejob import Backend, FineTuneJob, FineTuneJobSpec

# Filled in by Kubernetes, which gives each pod of an Indexed Job this variable.
INDEX = "$(JOB_COMPLETION_INDEX)"


def gpus_per_node(spec: FineTuneJobSpec) -> int:
    """Whole ones, as the trainer asks for; between slices (MIG) NCCL has no way."""
    wanted = {**spec.resources.limits, **spec.resources.requests}.get(GPU, 0)
    try:
        return int(number(wanted))
    except ValueError:
        # The API server refuses the Job of such a spec, which is what ends the training.
        return 0


def processes_per_node(spec: FineTuneJobSpec) -> int:
    """One for each GPU, and one without."""
    return max(1, gpus_per_node(spec)) if spec.backend in (Backend.UNSLOTH, Backend.HUGGING_FACE) else 1


def processes(spec: FineTuneJobSpec) -> int:
    """All that train together."""
    return spec.nodes * processes_per_node(spec)


def group_arguments(spec: FineTuneJobSpec, job_name: str) -> list[str]:
    """What the trainer is told of the others; nothing where it is alone."""
    per_node = processes_per_node(spec)
    if spec.nodes == per_node == 1:
        return []
    arguments = ["--processes-per-node", str(per_node)]
    if spec.nodes == 1:
        return arguments
    leader, own = (f"{job_name}-{index}.{job_name}" for index in ("0", INDEX))
    arguments += ["--nodes", str(spec.nodes), "--node", INDEX]
    return [*arguments, "--leader", f"{leader}:{RENDEZVOUS_PORT}", "--address", own]


def one_pod_a_node(spec: FineTuneJobSpec) -> Manifest:
    """The Job's share: a pod for each index, all at once; complete when each of them is."""
    if spec.nodes == 1:
        return {}
    return {"completionMode": "Indexed", "completions": spec.nodes, "parallelism": spec.nodes}


def rendezvous_service(job: FineTuneJob, job_name: str, labels: dict[str, str]) -> Manifest:
    """Gives the pods their names; also before they are ready, since that is when they look for each other."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job_name,
            "namespace": job.metadata.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(job, controller=True)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }
