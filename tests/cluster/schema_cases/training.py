"""Trainings, trackers and starting points of FineTuneJobs that the CRD takes, and those that it refuses."""

from typing import Any

from tests.cluster.schema_cases.case import Creation, Spec

KEY = {"name": "trackers", "key": "wandb"}
SERVER = "https://mlflow.example.com/tracking"
WANDB = {"project": "plato ethics", "apiKeySecretRef": KEY}


def training(**changes: Any) -> Spec:
    return {"training": changes}


def report_to(**changes: Any) -> Spec:
    return {"reportTo": changes}


def mlflow(uri: str) -> Spec:
    return report_to(mlflow={"trackingUri": uri})


ACCEPTED = [
    Creation("a learning rate in scientific notation", "FineTuneJob", {"training": {"learningRate": "2e-4"}}),
    Creation(
        "every knob of a training",
        "FineTuneJob",
        training(
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
    ),
    Creation(
        "as many arguments as are taken",
        "FineTuneJob",
        training(arguments={f"a{number}": "x" * 256 for number in range(24)}),
    ),
    Creation("early stopping with its defaults", "FineTuneJob", training(earlyStopping={})),
    Creation("warm-up steps", "FineTuneJob", training(warmupSteps=10)),
    Creation(
        "every tracker",
        "FineTuneJob",
        report_to(
            tensorBoard=True,
            mlflow={"trackingUri": SERVER, "experiment": "plato", "tokenSecretRef": KEY},
            wandb=WANDB | {"entity": "academy", "baseUrl": "http://wandb:8080"},
        ),
    ),
    Creation("TensorBoard alone", "FineTuneJob", report_to(tensorBoard=True)),
    Creation(
        "a training by Axolotl",
        "FineTuneJob",
        {
            "backend": "Axolotl",
            "training": {"evalSteps": 5, "earlyStopping": {}, "neftuneNoiseAlpha": "5", "optimizer": "adamw_8bit"},
        },
    ),
    Creation("pairs by Axolotl", "FineTuneJob", {"backend": "Axolotl", "method": "DPO"}),
    Creation("an earlier version", "FineTuneJob", {"initFrom": {"modelVersion": "plato-v1"}}),
]

REFUSED = [
    Creation("a wordy learning rate", "FineTuneJob", {"training": {"learningRate": "fast"}}, refused="should match"),
    Creation("no epochs", "FineTuneJob", {"training": {"epochs": 0}}, refused="greater than or equal to 1"),
    Creation(
        "packed by Axolotl",
        "FineTuneJob",
        {"backend": "Axolotl", "training": {"packing": True}},
        refused="Axolotl keeps packed conversations apart by Flash Attention, which its image lacks: "
        "set packing to false",
    ),
    Creation(
        "TRL's arguments for Axolotl",
        "FineTuneJob",
        {"backend": "Axolotl", "training": {"arguments": {"adam_beta2": "0.98"}}},
        refused="arguments are TRL's, which Axolotl is not told: remove them, or set backend Unsloth or HuggingFace",
    ),
    Creation(
        "noise on Axolotl's pairs",
        "FineTuneJob",
        {"backend": "Axolotl", "method": "DPO", "training": {"neftuneNoiseAlpha": "5"}},
        refused="Axolotl adds noise to conversations (SFT) alone: remove neftuneNoiseAlpha",
    ),
    Creation(
        "Axolotl on two nodes",
        "FineTuneJob",
        {"backend": "Axolotl", "nodes": 2},
        refused="only the backends Unsloth and HuggingFace train on several nodes: set nodes to 1",
    ),
    Creation(
        "two kinds of warm-up",
        "FineTuneJob",
        training(warmupSteps=10, warmupRatio="0.1"),
        refused="warmupSteps and warmupRatio say the same: set one of them",
    ),
    Creation(
        "packed pairs",
        "FineTuneJob",
        {"method": "DPO", "training": {"packing": True}},
        refused="only conversations (SFT) can be packed: set training.packing to false",
    ),
    Creation(
        "an evaluation of nothing",
        "FineTuneJob",
        {"dataset": {"testFraction": "0"}, "training": {"evalSteps": 5}},
        refused="evaluation during the training needs held-out rows: set dataset.testFraction above 0",
    ),
    Creation(
        "a stop by nothing",
        "FineTuneJob",
        {"dataset": {"testFraction": "0.0"}, "training": {"earlyStopping": {"patience": 1}}},
        refused="evaluation during the training needs held-out rows: set dataset.testFraction above 0",
    ),
    Creation(
        "no patience", "FineTuneJob", training(earlyStopping={"patience": 0}), refused="greater than or equal to 1"
    ),
    Creation("an unknown schedule", "FineTuneJob", training(lrScheduler="Exponential"), refused="supported values"),
    Creation(
        "an optimizer with a path",
        "FineTuneJob",
        training(optimizer="../adam"),
        refused="optimizer in body should match",
    ),
    Creation(
        "a warm-up of twice the training",
        "FineTuneJob",
        training(warmupRatio="2"),
        refused="warmupRatio in body should match",
    ),
    Creation(
        "an argument that is no name",
        "FineTuneJob",
        training(arguments={"__class__": "x"}),
        refused="arguments are named as TRL names them, such as adam_beta2",
    ),
    Creation(
        "an argument that is a number",
        "FineTuneJob",
        training(arguments={"adam_beta2": 0.98}),
        refused="must be of type string",
    ),
    Creation("a long argument", "FineTuneJob", training(arguments={"optim_args": "x" * 257}), refused="Too long"),
    Creation(
        "too many arguments",
        "FineTuneJob",
        training(arguments={f"a{number}": "1" for number in range(25)}),
        refused="must have at most 24",
    ),
    Creation("no tracker", "FineTuneJob", report_to(), refused="set tensorBoard, mlflow or wandb, or remove reportTo"),
    Creation(
        "a password in a tracker's URL",
        "FineTuneJob",
        mlflow("https://me:secret@mlflow"),
        refused="trackingUri in body should match",
    ),
    Creation("a file as a tracker", "FineTuneJob", mlflow("file:///etc"), refused="trackingUri in body should match"),
    Creation(
        "Weights & Biases without a key",
        "FineTuneJob",
        report_to(wandb={"project": "plato"}),
        refused="apiKeySecretRef: Required",
    ),
    Creation("a starting point without a version", "FineTuneJob", {"initFrom": {}}, refused="modelVersion: Required"),
    Creation(
        "a starting point elsewhere",
        "FineTuneJob",
        {"initFrom": {"modelVersion": "../v1"}},
        refused="modelVersion in body should match",
    ),
]
