"""What the wizard's choices come to: the spec of a training."""

from typing import Any

import pytest

from finetune_operator.resources.finetunejob import FineTuneJobSpec
from finetune_operator.web.dashboard.wizard_choices import WrongChoice, choices_of, prefilled, spec_of_choices

HUB = {"base_model": "Qwen/Qwen3-0.6B", "model": "plato"}
LIKE: dict[str, Any] = {
    "model": "plato",
    "baseModel": {"name": "tiny", "source": {"volume": {"claimName": "models", "path": "tiny"}}},
    "dataset": {
        "ratings": {"secretRef": {"name": "ratings-db", "key": "url"}, "claimName": "ratings", "domain": "emotion"},
        "testFraction": "0.1",
        "minExamples": 20,
    },
    "training": {"epochs": 20, "quantization": "none", "maxSeqLength": 256, "saveSteps": 20},
    "resources": {"limits": {"memory": "6Gi"}},
    "serving": {"maxModelLen": 512},
    "promotion": "Always",
    "cancel": True,
}


def spec_of(sent: dict[str, str], like: dict[str, Any] | None = None) -> dict[str, Any]:
    found = spec_of_choices(choices_of(sent), like, "finetune", None)
    FineTuneJobSpec.model_validate(found)
    return found


def test_the_defaults_are_served_and_promoted_by_nobody_but_a_person() -> None:
    assert spec_of(HUB) == {
        "model": "plato",
        "baseModel": {"name": "qwen3-0.6b", "source": {"hub": {"id": "Qwen/Qwen3-0.6B"}}},
        "dataset": {"ratings": {}},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "serving": {},
        "promotion": "Manual",
    }


def test_filters_choose_the_ratings() -> None:
    chosen = spec_of(HUB | {"domain": " ethics ", "min_rating": "5", "gold_star_only": "false"})
    assert chosen["dataset"]["ratings"] == {"domain": "ethics", "minRating": 5, "goldStarOnly": False}


def test_a_repeated_training_keeps_what_is_of_the_installation_and_takes_what_is_new() -> None:
    chosen = spec_of({"like": "finetune.plato-1", "model": "plato", "domain": "ai", "num_epochs": "3"}, LIKE)
    assert chosen["baseModel"] == LIKE["baseModel"]
    assert chosen["resources"] == LIKE["resources"]
    assert chosen["serving"] == {"maxModelLen": 512}
    assert chosen["training"] == LIKE["training"] | {"epochs": 3}
    place = {"secretRef": {"name": "ratings-db", "key": "url"}, "claimName": "ratings"}
    assert chosen["dataset"] == {"testFraction": "0.1", "minExamples": 20, "ratings": place | {"domain": "ai"}}
    assert chosen["promotion"] == "Manual"
    assert "cancel" not in chosen


ON_L4 = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
PLACED = {"nodeSelector": {"pool": "train"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
MACHINES: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "as it was": ({}, {}, {"limits": {"memory": "6Gi"}}, None),
    "where it was": ({}, {"scheduling": PLACED}, {"limits": {"memory": "6Gi"}}, PLACED),
    "cores as well": ({"cpus": "4"}, {}, {"limits": {"memory": "6Gi"}, "requests": {"cpu": "4"}}, None),
    "a type of GPU": ({"gpus": "2", "gpu_type": "NVIDIA-L4"}, {}, {"limits": {"nvidia.com/gpu": 2}}, ON_L4),
    "a type of GPU there": (
        {"gpus": "2", "gpu_type": "NVIDIA-L4"},
        {"scheduling": PLACED},
        {"limits": {"nvidia.com/gpu": 2}},
        PLACED | {"nodeSelector": PLACED["nodeSelector"] | ON_L4["nodeSelector"]},
    ),
}


@pytest.mark.parametrize(("sent", "had", "resources", "scheduling"), MACHINES.values(), ids=MACHINES)
def test_a_repeated_training_runs_where_it_did_but_for_what_is_said_anew(
    sent: dict[str, str], had: dict[str, Any], resources: dict[str, Any], scheduling: dict[str, Any] | None
) -> None:
    chosen = spec_of({"like": "finetune.plato-1", "model": "plato", **sent}, LIKE | had)
    assert (chosen["resources"], chosen.get("scheduling")) == (resources, scheduling)


def test_a_filter_that_was_emptied_is_gone() -> None:
    assert "domain" not in spec_of({"like": "finetune.plato-1", "model": "plato"}, LIKE)["dataset"]["ratings"]


def test_a_dataset_takes_the_place_of_the_ratings() -> None:
    sent = {"model": "plato", "domain": "ai", "dataset_path": "volume://datasets/a/train.jsonl"}
    chosen = spec_of(sent | {"like": "finetune.plato-1"}, LIKE)
    assert chosen["dataset"]["volume"] == {"claimName": "datasets", "path": "a/train.jsonl"}
    assert "ratings" not in chosen["dataset"]
    assert "ratings" not in spec_of(sent | HUB)["dataset"]


def test_fields_begin_as_the_other_training_was() -> None:
    found = prefilled(LIKE)
    assert (found["num_epochs"], found["quantization"], found["domain"], found["lora_r"]) == (
        "20",
        "none",
        "emotion",
        "16",
    )
    assert prefilled(None)["num_epochs"] == "3"


def test_what_is_no_choice_is_left_out() -> None:
    found = choices_of({"domain": "x" * 5000, "evil": "1", "model": "  ", "philosopher": 3})
    assert dict(found.said) == {"domain": "x" * 1024}


WRONG = {
    "no base model": ({"model": "plato"}, None, "base_model"),
    "no number": (HUB | {"num_epochs": "many"}, None, "num_epochs"),
    "no place": (HUB | {"base_model": "nowhere"}, None, "write <owner>/<name>"),
    "no GPU": (HUB | {"gpus": "0", "quantization": "4bit"}, None, "needs a GPU"),
    "a name of nobody": (HUB | {"model": "Two Words"}, None, "model"),
}


@pytest.mark.parametrize(("sent", "like", "hint"), WRONG.values(), ids=WRONG)
def test_a_mistake_says_what_to_change(sent: dict[str, str], like: dict[str, Any] | None, hint: str) -> None:
    with pytest.raises(WrongChoice, match=hint):
        spec_of_choices(choices_of(sent), like, "finetune", None)
