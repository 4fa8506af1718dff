"""Specs of FineTuneJobs whose training, trackers or starting point the CRD takes, and those that it refuses."""

from typing import Any

Spec = dict[str, Any]

KEY = {"name": "trackers", "key": "wandb"}
SERVER = "https://mlflow.example.com/tracking"
WANDB = {"project": "plato ethics", "apiKeySecretRef": KEY}
# Of all that a provider's training does not take, see the cases of providers.


def training(**changes: Any) -> Spec:
    return {"training": changes}


def report_to(**changes: Any) -> Spec:
    return {"reportTo": changes}


def mlflow(uri: str) -> Spec:
    return report_to(mlflow={"trackingUri": uri})


ACCEPTED: dict[str, Spec] = {
    "every knob of a training": training(
        packing=True,
        evalSteps=10,
        earlyStopping={"patience": 2, "minDelta": "0.01"},
        lrScheduler="CosineWithRestarts",
        warmupRatio="0.03",
        optimizer="adamw_8bit",
        weightDecay="0.01",
        maxGradNorm="0.3",
        neftuneNoiseAlpha="5",
        arguments={"adam_beta2": "0.98", "lr_scheduler_kwargs": '{"num_cycles": 2}'},
    ),
    "as many arguments as are taken": training(arguments={f"a{number}": "x" * 256 for number in range(24)}),
    "early stopping with its defaults": training(earlyStopping={}),
    "warm-up steps": training(warmupSteps=10),
    "every tracker": report_to(
        tensorBoard=True,
        mlflow={"trackingUri": SERVER, "experiment": "plato", "tokenSecretRef": KEY},
        wandb=WANDB | {"entity": "academy", "baseUrl": "http://wandb:8080"},
    ),
    "TensorBoard alone": report_to(tensorBoard=True),
    "a training by Axolotl": {
        "backend": "Axolotl",
        "training": {"evalSteps": 5, "earlyStopping": {}, "neftuneNoiseAlpha": "5", "optimizer": "adamw_8bit"},
    },
    "pairs by Axolotl": {"backend": "Axolotl", "method": "DPO"},
    "as many nodes as can be": {"nodes": 16, "backend": "HuggingFace"},
    "an earlier version": {"initFrom": {"modelVersion": "plato-v1"}},
}
REFUSED: dict[str, tuple[Spec, str]] = {
    "no node": ({"nodes": 0}, "spec.nodes in body should be greater than or equal to 1"),
    "too many nodes": ({"nodes": 17}, "spec.nodes in body should be less than or equal to 16"),
    "packed by Axolotl": (
        {"backend": "Axolotl", "training": {"packing": True}},
        "Axolotl keeps packed conversations apart by Flash Attention, which its image lacks: set packing to false",
    ),
    "TRL's arguments for Axolotl": (
        {"backend": "Axolotl", "training": {"arguments": {"adam_beta2": "0.98"}}},
        "arguments are TRL's, which Axolotl is not told: remove them, or set backend Unsloth or HuggingFace",
    ),
    "noise on Axolotl's pairs": (
        {"backend": "Axolotl", "method": "DPO", "training": {"neftuneNoiseAlpha": "5"}},
        "Axolotl adds noise to conversations (SFT) alone: remove neftuneNoiseAlpha",
    ),
    "Axolotl on two nodes": (
        {"backend": "Axolotl", "nodes": 2},
        "only the backends Unsloth and HuggingFace train on several nodes: set nodes to 1",
    ),
    "two kinds of warm-up": (
        training(warmupSteps=10, warmupRatio="0.1"),
        "warmupSteps and warmupRatio say the same: set one of them",
    ),
    "packed pairs": (
        {"method": "DPO", "training": {"packing": True}},
        "only conversations (SFT) can be packed: set training.packing to false",
    ),
    "an evaluation of nothing": (
        {"dataset": {"testFraction": "0"}, "training": {"evalSteps": 5}},
        "evaluation during the training needs held-out rows: set dataset.testFraction above 0",
    ),
    "a stop by nothing": (
        {"dataset": {"testFraction": "0.0"}, "training": {"earlyStopping": {"patience": 1}}},
        "evaluation during the training needs held-out rows: set dataset.testFraction above 0",
    ),
    "no patience": (training(earlyStopping={"patience": 0}), "greater than or equal to 1"),
    "an unknown schedule": (training(lrScheduler="Exponential"), "supported values"),
    "an optimizer with a path": (training(optimizer="../adam"), "optimizer in body should match"),
    "a warm-up of twice the training": (training(warmupRatio="2"), "warmupRatio in body should match"),
    "an argument that is no name": (
        training(arguments={"__class__": "x"}),
        "arguments are named as TRL names them, such as adam_beta2",
    ),
    "an argument that is a number": (training(arguments={"adam_beta2": 0.98}), "must be of type string"),
    "a long argument": (training(arguments={"optim_args": "x" * 257}), "Too long"),
    "too many arguments": (training(arguments={f"a{number}": "1" for number in range(25)}), "must have at most 24"),
    "no tracker": (report_to(), "set tensorBoard, mlflow or wandb, or remove reportTo"),
    "a password in a tracker's URL": (mlflow("https://me:secret@mlflow"), "trackingUri in body should match"),
    "a file as a tracker": (mlflow("file:///etc"), "trackingUri in body should match"),
    "Weights & Biases without a key": (report_to(wandb={"project": "plato"}), "apiKeySecretRef: Required"),
    "a starting point without a version": ({"initFrom": {}}, "modelVersion: Required"),
    "a starting point elsewhere": ({"initFrom": {"modelVersion": "../v1"}}, "modelVersion in body should match"),
}
AT_PROVIDER: dict[str, tuple[Spec, str]] = {
    "nodes at a provider": (
        {"nodes": 2},
        "only the backends Unsloth and HuggingFace train on several nodes: set nodes to 1",
    ),
    "a provider that goes on from an adapter": (
        {"initFrom": {"modelVersion": "plato-v1"}},
        "a provider knows no adapter of this cluster: name a model of its own in baseModel.source.openai",
    ),
    "a provider that reports to a tracker": (
        report_to(tensorBoard=True),
        "backend OpenAI trains at its provider, which reports to no tracker: remove reportTo",
    ),
}
