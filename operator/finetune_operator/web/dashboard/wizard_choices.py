"""What somebody has chosen on the way through the wizard, and the training that it comes to. Pure.

All choices are in the address of each step, so that a reload, the back button and a second tab have them, and nothing
is kept at the server until something is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune_operator.resources.dataset import Ratings
from finetune_operator.resources.training import Lora, Training
from finetune_operator.web.dashboard.forms import mistakes_of
from finetune_operator.web.job_requests import ApiVolumes, JobRequest, WrongRequest, spec_of

Spec = dict[str, Any]
TEXT_MAX_CHARACTERS = 1024

FILTERS = ("philosopher", "domain", "task_type", "min_rating", "gold_star_only")
MACHINE = ("gpus", "gpu_type", "cpus")
SETTINGS = ("num_epochs", "batch_size", "learning_rate", "max_seq_length", "quantization", "lora_r", *MACHINE)
NAMES = ("key", "namespace", "like", "base_model", "model", "dataset_path", *FILTERS, *SETTINGS)
OWN = frozenset({"key", "like"})
"""What no `JobRequest` knows."""
TAKEN_OVER = (
    "backend", "baseModel", "method", "lora", "training", "evaluation", "resources", "scheduling", "serving",
)  # fmt: skip
"""Of a training that somebody wants to repeat with changes."""
KEPT_OF_RATINGS = ("secretRef", "claimName")
KEPT_OF_DATASET = ("testFraction", "minExamples", "minPromptCharacters", "minResponseCharacters", "format")


class WrongChoice(ValueError):
    """No training can be made of it; the text says what to change."""


@dataclass(frozen=True)
class Choices:
    """By the names of fields; what is absent or empty has its default."""

    said: Mapping[str, str]

    def get(self, name: str, default: str = "") -> str:
        return self.said.get(name) or default

    def beside(self, *shown: str) -> Mapping[str, str]:
        """What a form has to carry along that shows these fields itself."""
        return {name: text for name, text in self.said.items() if name not in shown}


def choices_of(sent: Mapping[str, Any]) -> Choices:
    """Of a query or a form; whatever else it has is left out."""
    found = {name: sent[name].strip() for name in NAMES if isinstance(sent.get(name), str)}
    return Choices({name: text[:TEXT_MAX_CHARACTERS] for name, text in found.items() if text})


def request_of_choices(choices: Choices, like: Spec | None) -> JobRequest:
    """Raises `WrongChoice`."""
    said = {name: text for name, text in choices.said.items() if name not in OWN}
    if "dataset_path" in said:
        said = {name: text for name, text in said.items() if name not in FILTERS}
    if like is None:
        defaults = prefilled(None)
        said = {name: text for name, text in said.items() if text != defaults.get(name)}
    else:
        said["base_model"] = said.get("base_model") or "taken/over"
    try:
        request = JobRequest.model_validate_strings(said)
    except ValidationError as error:
        raise WrongChoice(mistakes_of(error)) from None
    return request.model_copy(update={"base_model": like["baseModel"]}) if like else request


def spec_of_choices(choices: Choices, like: Spec | None, namespace: str, volumes: ApiVolumes | None) -> Spec:
    """A FineTuneJob's, of a model that is served and that nobody promotes but a person. Raises `WrongChoice`."""
    request = request_of_choices(choices, like)
    try:
        chosen = spec_of(request, namespace, volumes)
    except WrongRequest as error:
        raise WrongChoice(str(error)) from None
    chosen.setdefault("dataset", {"ratings": {}})
    if like is None:
        return chosen | {"serving": {}, "promotion": "Manual"}
    taken = {name: like[name] for name in TAKEN_OVER if name in like}
    chosen |= _machine(request, chosen, taken)
    merged = taken | chosen | {name: taken.get(name, {}) | chosen.get(name, {}) for name in ("training", "lora")}
    merged["dataset"] = _dataset(chosen["dataset"], like.get("dataset") or {})
    merged = {name: value for name, value in merged.items() if value != {}}
    return merged | {"serving": like.get("serving") or {}, "promotion": "Manual"}


def _machine(request: JobRequest, chosen: Spec, taken: Spec) -> Spec:
    """As in the other training, but for what was said anew: an amount, or a type of GPU."""
    said, had = chosen.get("resources") or {}, taken.get("resources") or {}
    limits = had.get("limits") if request.gpus is None else said.get("limits")
    requests = (had.get("requests") or {} if request.gpus is None else {}) | (said.get("requests") or {})
    resources = {name: amounts for name, amounts in (("limits", limits), ("requests", requests)) if amounts}
    place = taken.get("scheduling") or {}
    labels = (place.get("nodeSelector") or {}) | (chosen.get("scheduling") or {}).get("nodeSelector", {})
    return {"resources": resources, "scheduling": place | ({"nodeSelector": labels} if labels else {})}


def prefilled(like: Spec | None) -> dict[str, str]:
    """What the fields say before somebody changes them: defaults, or what the other training had."""
    like = like or {}
    training, lora = like.get("training") or {}, like.get("lora") or {}
    defaults, ratings = Training(), ((like.get("dataset") or {}).get("ratings") or {})
    found = {
        "model": like.get("model", ""),
        "philosopher": ratings.get("philosopher", ""),
        "domain": ratings.get("domain", ""),
        "task_type": ratings.get("taskType", ""),
        "min_rating": ratings.get("minRating", Ratings().min_rating),
        "gold_star_only": str(ratings.get("goldStarOnly", Ratings().gold_star_only)).lower(),
        "num_epochs": training.get("epochs", defaults.epochs),
        "batch_size": training.get("batchSize", defaults.batch_size),
        "learning_rate": training.get("learningRate", defaults.learning_rate),
        "max_seq_length": training.get("maxSeqLength", defaults.max_seq_length),
        "quantization": training.get("quantization", defaults.quantization),
        "lora_r": lora.get("r", Lora().r),
    }
    return {name: str(value) for name, value in found.items() if value not in ("", None)}


def _dataset(chosen: Spec, like: Spec) -> Spec:
    """Where the ratings are is of the installation; which of them are taken was chosen anew."""
    kept = {name: like[name] for name in KEPT_OF_DATASET if name in like}
    if "ratings" not in chosen:
        return kept | chosen
    place = {name: value for name, value in (like.get("ratings") or {}).items() if name in KEPT_OF_RATINGS}
    return kept | chosen | {"ratings": place | chosen["ratings"]}
