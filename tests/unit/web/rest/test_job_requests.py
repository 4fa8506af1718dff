"""Which FineTuneJob a request stands for, and what is wrong with others."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.resources.finetunejob import FineTuneJobSpec
from finetune_operator.web.creation import name_from_key, request_digest
from finetune_operator.web.job_requests import PLACES, ApiVolumes, JobRequest, WrongRequest, spec_of

HUB = {"name": "qwen3-0.6b", "source": {"hub": {"id": "Qwen/Qwen3-0.6B"}}}
FLAT = {"model": "plato", "base_model": "Qwen/Qwen3-0.6B"}
SPEC = {"model": "plato", "baseModel": HUB}
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
DERIVED = {
    "model": "qwen3-0-6b",
    "baseModel": {"name": "qwen3-0.6b", "source": {"hub": {"id": "Qwen/Qwen3-0.6B", "revision": "v1"}}},
}
CLAIM = ApiVolumes("finetune", "datasets")

EXPORTED, UPLOADED = f"chatml-{'0' * 32}/train.jsonl", f"file-{'0' * 32}/data.jsonl"
SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as little as possible": ({"base_model": "Qwen/Qwen3-0.6B@v1"}, DERIVED | GPU),
    "a name": (FLAT, SPEC | GPU),
    "without a GPU": (FLAT | {"quantization": "none"}, SPEC | {"training": {"quantization": "none"}}),
    "some GPUs": (FLAT | {"gpus": 2}, SPEC | {"resources": {"limits": {"nvidia.com/gpu": 2}}}),
    "a budget": (
        FLAT | {"gpus": 1, "max_cost": "25.00", "currency": "EUR"},
        SPEC | GPU | {"budget": {"maxCost": "25", "currency": "EUR"}},
    ),
    "a type of GPU": (
        FLAT | {"gpu_type": "NVIDIA-L4"},
        SPEC | GPU | {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}},
    ),
    "CPU cores": (
        FLAT | {"quantization": "none", "cpus": 1.5},
        SPEC | {"training": {"quantization": "none"}, "resources": {"requests": {"cpu": "1.5"}}},
    ),
    "CPU cores beside a GPU": (
        FLAT | {"cpus": 8},
        SPEC | {"resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "8"}}},
    ),
    "no GPUs": (FLAT | {"gpus": 0, "quantization": "none"}, SPEC | {"training": {"quantization": "none"}}),
    "a revision": (
        FLAT | {"base_model": "Qwen/Qwen3-0.6B@v1"},
        {
            "model": "plato",
            "baseModel": {"name": "qwen3-0.6b", "source": {"hub": {"id": "Qwen/Qwen3-0.6B", "revision": "v1"}}},
        }
        | GPU,
    ),
    "a base model on a volume": (
        FLAT | {"base_model": "volume://models/tiny/llama"},
        {
            "model": "plato",
            "baseModel": {"name": "llama", "source": {"volume": {"claimName": "models", "path": "tiny/llama"}}},
        }
        | GPU,
    ),
    "a base model as a FineTuneJob has it": (FLAT | {"base_model": HUB}, SPEC | GPU),
    "a provider": (
        FLAT | {"base_model": "gpt-4.1-mini", "backend": "OpenAI", "openai": {"secretRef": {"name": "o", "key": "k"}}},
        {
            "model": "plato",
            "baseModel": {"name": "gpt-4.1-mini", "source": {"openai": {"model": "gpt-4.1-mini"}}},
            "backend": "OpenAI",
            "openai": {"secretRef": {"name": "o", "key": "k"}},
        },
    ),
    "training": (
        FLAT
        | {
            "num_epochs": 1,
            "batch_size": 2,
            "learning_rate": 1e-5,
            "lora_r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0,
            "max_seq_length": 512,
            "quantization": "none",
            "gradient_checkpointing": False,
            "method": "DPO",
            "backend": "HuggingFace",
            "gpus": 1,
        },
        SPEC
        | {
            "training": {
                "epochs": 1,
                "batchSize": 2,
                "learningRate": "0.00001",
                "maxSeqLength": 512,
                "quantization": "none",
                "gradientCheckpointing": False,
            },
            "lora": {"r": 8, "alpha": 16, "dropout": "0"},
            "method": "DPO",
            "backend": "HuggingFace",
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        },
    ),
    "zero is written as zero": (
        FLAT | {"lora_dropout": "0e-100000000"},
        SPEC | GPU | {"lora": {"dropout": "0"}},
    ),
    "a number as text": (FLAT | {"learning_rate": "2e-4"}, SPEC | GPU | {"training": {"learningRate": "0.0002"}}),
    "ratings": (
        FLAT | {"philosopher": "ada", "domain": "law", "min_rating": 5, "format": "alpaca"},
        SPEC
        | GPU
        | {"dataset": {"ratings": {"philosopher": "ada", "domain": "law", "minRating": 5}, "format": "Alpaca"}},
    ),
    "ratings by default": (FLAT | {"min_examples": 5}, SPEC | GPU | {"dataset": {"minExamples": 5, "ratings": {}}}),
    "pairs two points apart": (
        FLAT | {"method": "dpo", "min_rating_difference": 2},
        SPEC | GPU | {"method": "DPO", "dataset": {"minRatingDifference": 2, "ratings": {}}},
    ),
    "pairs half the scale apart": (
        FLAT | {"method": "dpo", "min_confidence_diff": 0.5},
        SPEC | GPU | {"method": "DPO", "dataset": {"minConfidenceDiff": "0.5", "ratings": {}}},
    ),
    "a file on a volume": (
        FLAT | {"dataset_path": "volume://data/rows.jsonl", "test_fraction": 0.25},
        SPEC | GPU | {"dataset": {"testFraction": "0.25", "volume": {"claimName": "data", "path": "rows.jsonl"}}},
    ),
    "an object": (
        FLAT | {"dataset_path": "s3://bucket/rows.jsonl"},
        SPEC | GPU | {"dataset": {"s3": {"url": "s3://bucket/rows.jsonl"}}},
    ),
    "an exported dataset": (
        FLAT | {"dataset_path": "chatml-0/train.jsonl", "format": "chatml"},
        SPEC
        | GPU
        | {"dataset": {"format": "ChatML", "volume": {"claimName": "datasets", "path": "chatml-0/train.jsonl"}}},
    ),
    "a version that is served": (FLAT | {"serve": True}, SPEC | GPU | {"serving": {}}),
    "a spec": ({"spec": SPEC | {"suspend": True}}, SPEC | {"suspend": True}),
}


STORED: dict[str, tuple[dict[str, str], ApiVolumes | None, dict[str, Any]]] = {
    "without a volume": ({"dataset_path": EXPORTED}, None, {"path": EXPORTED}),
    "whose volume is elsewhere": ({"dataset_path": EXPORTED}, ApiVolumes("other", "d"), {"path": EXPORTED}),
    "uploaded, and on the volume under another name": ({"dataset_path": UPLOADED}, CLAIM, {"path": UPLOADED}),
    "with one to evaluate by": (
        {"dataset_path": EXPORTED, "validation_path": UPLOADED},
        CLAIM,
        {"path": EXPORTED, "validationPath": UPLOADED},
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_what_the_api_keeps_is_fetched_from_it(case: str) -> None:
    body, claim, stored = STORED[case]
    found = spec_of(JobRequest.model_validate(FLAT | body), "finetune", claim)
    assert found["dataset"] == {"stored": stored}
    FineTuneJobSpec.model_validate(found)


RATINGS_ON_A_VOLUME: dict[str, tuple[dict[str, Any], str, dict[str, Any] | None]] = {
    "the api's own": ({}, "finetune", {"ratings": {"claimName": "ratings"}}),
    "with a filter": ({"domain": "law"}, "finetune", {"ratings": {"domain": "law", "claimName": "ratings"}}),
    "another one": ({"ratings_claim": "mine"}, "finetune", {"ratings": {"claimName": "mine"}}),
    "of another namespace": ({}, "elsewhere", None),
    "no ratings": ({"dataset_path": "s3://bucket/rows.jsonl"}, "finetune", {"s3": {"url": "s3://bucket/rows.jsonl"}}),
}


@pytest.mark.parametrize("case", RATINGS_ON_A_VOLUME)
def test_trainings_read_the_ratings_that_the_api_counts(case: str) -> None:
    body, namespace, dataset = RATINGS_ON_A_VOLUME[case]
    volumes = ApiVolumes("finetune", ratings="ratings")
    found = spec_of(JobRequest.model_validate(FLAT | body), namespace, volumes)
    assert found.get("dataset") == dataset
    FineTuneJobSpec.model_validate(found)


@pytest.mark.parametrize("case", SPECS)
def test_specs(case: str) -> None:
    body, spec = SPECS[case]
    found = spec_of(JobRequest.model_validate(body), "finetune", CLAIM)
    assert found == spec
    FineTuneJobSpec.model_validate(found)


def test_flat_defaults_are_those_of_a_finetunejob() -> None:
    told = FineTuneJobSpec.model_validate(SPEC).to_dict()
    for name, place in PLACES.items():
        default: Any = told
        for part in place:
            default = default.get(part, {}) if isinstance(default, dict) else None
        shown = getattr(JobRequest.model_validate(FLAT), name)
        if name not in FLAT and shown is not None:
            assert float(shown) == float(default) if not isinstance(shown, str) else shown == default, name


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown member": (FLAT | {"epochs": 3}, "epochs"),
    "both forms": ({"spec": SPEC, "model": "plato"}, "not both: remove model"),
    "neither form": ({"model": "plato"}, "base_model must be set, or `spec`"),
    "nothing": ({}, "base_model must be set"),
    "4bit by default without a GPU": (FLAT | {"gpus": 0}, "set quantization none, or gpus"),
    "8bit without a GPU": (FLAT | {"gpus": 0, "quantization": "8bit"}, "quantization 8bit needs a GPU"),
    "a type of no GPU": (FLAT | {"gpu_type": "NVIDIA-L4", "quantization": "none"}, "gpu_type is of a GPU, and none"),
    "a type of no GPUs": (FLAT | {"gpu_type": "NVIDIA-L4", "quantization": "none", "gpus": 0}, "or remove gpu_type"),
    "a type that is no label": (FLAT | {"gpu_type": "NVIDIA L4"}, "(?s)gpu_type.*pattern"),
    "no cores": (FLAT | {"cpus": 0}, "(?s)cpus.*greater than 0"),
    **{
        f"a number of many digits, {name}={text}": (FLAT | {name: text}, f"(?s){name}.*at most 24 characters")
        for name in ("learning_rate", "dpo_beta", "lora_dropout", "test_fraction")
        for text in ("1e-100000000", "1e-13", "0." + "1" * 30)
    },
    "a budget of nothing": (FLAT | {"max_cost": 0}, "(?s)max_cost.*greater than 0"),
    "a currency of no budget": (FLAT | {"currency": "EUR"}, "currency is of max_cost"),
    "a large number": (FLAT | {"learning_rate": "1e7"}, "at most 24 characters"),
    "a large number that is none in a string": (FLAT | {"learning_rate": 1e300}, "at most 24 characters"),
    "filters of what is no export": (FLAT | {"dataset_path": "s3://b/k", "domain": "law"}, "domain choose ratings"),
    "a truth as a number": (FLAT | {"num_epochs": True}, "num_epochs"),
    "not a number": (FLAT | {"learning_rate": "fast"}, "learning_rate"),
    "infinite": (FLAT | {"learning_rate": "Infinity"}, "learning_rate"),
    "both differences": (FLAT | {"min_rating_difference": 2, "min_confidence_diff": 0.5}, "set one of min_rating_diff"),
    "a namespace that is none": (FLAT | {"namespace": "A/b"}, "namespace"),
    "a method that is none": (FLAT | {"method": "rlhf"}, "method"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case: str) -> None:
    body, message = MISTAKES[case]
    with pytest.raises(ValidationError, match=message):
        JobRequest.model_validate(body)


REFUSED: dict[str, tuple[dict[str, Any], ApiVolumes | None, str]] = {
    "a base model that no family can be called by": (
        {"base_model": {"name": "_", "source": {}}},
        CLAIM,
        "model: base_model has no name",
    ),
    "a base model that is nowhere": (FLAT | {"base_model": "llama"}, CLAIM, "write <owner>/<name>"),
    "a volume without a path": (FLAT | {"base_model": "volume://models"}, CLAIM, "volume://<claim>/<path>, not"),
    "what the api can't keep": (FLAT | {"dataset_path": "x/train.jsonl"}, None, "<id>/<file> of what this api keeps"),
    "a path with a line feed": (FLAT | {"dataset_path": f"{UPLOADED}\n"}, None, "<id>/<file> of what this api keeps"),
    "a format for people": (FLAT | {"format": "gauntlet"}, CLAIM, "a training reads alpaca, chatml"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_job_can_be_made_of(case: str) -> None:
    body, claim, message = REFUSED[case]
    with pytest.raises(WrongRequest, match=message):
        spec_of(JobRequest.model_validate(body), "finetune", claim)


def test_a_key_is_a_name_in_its_namespace() -> None:
    names = [
        name_from_key("job", interface, namespace, caller, key)
        for interface in ("/v1", "/api")
        for namespace in "ab"
        for caller in ("ada", "eve")
        for key in "kl"
    ]
    assert len(set(names)) == 16
    assert name_from_key("job", "/v1", "a", "ada", "k") == names[0]


def test_the_digest_does_not_depend_on_the_order() -> None:
    assert request_digest({"a": 1, "b": {"c": 2, "d": 3}}) == request_digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert request_digest({"a": 1}) != request_digest({"a": "1"})
