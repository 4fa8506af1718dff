"""`spec.training.arguments`: any argument of TRL's configuration by its own name, as text.

Their types come from the configuration's own dataclass. Refused are those that the job already says in another way,
and those by which a training would run foreign code, leave its pod, or lose what makes it resumable.
"""

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from fnmatch import fnmatchcase
from typing import Any

from failures import GivenUp
from pydantic import TypeAdapter, ValidationError

from finetune_operator.contract.failures import FailureReason

# Argument, or pattern of arguments -> what says it instead.
SAID_ELSEWHERE = {
    "num_train_epochs": "spec.training.epochs",
    "max_steps": "spec.training.maxSteps",
    "per_device_train_batch_size": "spec.training.batchSize",
    "gradient_accumulation_steps": "spec.training.gradientAccumulationSteps",
    "gradient_checkpointing": "spec.training.gradientCheckpointing",
    "learning_rate": "spec.training.learningRate",
    "lr_scheduler_type": "spec.training.lrScheduler",
    "warmup_steps": "spec.training.warmupSteps or warmupRatio",
    "optim": "spec.training.optimizer",
    "weight_decay": "spec.training.weightDecay",
    "max_grad_norm": "spec.training.maxGradNorm",
    "neftune_noise_alpha": "spec.training.neftuneNoiseAlpha",
    "max_length": "spec.training.maxSeqLength",
    "packing": "spec.training.packing",
    "padding_free": "spec.training.packing",
    "seed": "spec.training.seed",
    "beta": "spec.training.dpoBeta",
    "save_steps": "spec.training.saveSteps",
    "eval_steps": "spec.training.evalSteps",
    "eval_strategy": "spec.training.evalSteps",
    "load_best_model_at_end": "spec.training.earlyStopping",
    "metric_for_best_model": "spec.training.earlyStopping",
    "greater_is_better": "spec.training.earlyStopping",
    "report_to": "spec.reportTo",
    "run_name": "the job's own name",
    "use_cpu": "spec.resources: a GPU is used where there is one",
    "bf16": "the GPU itself",
    "fp16": "the GPU itself",
}
REFUSED = {
    "output_dir": "the job's own directory is written to, and no other",
    "push_to_hub*": "nothing leaves the pod but the adapter on its volume",
    "hub_*": "nothing leaves the pod but the adapter on its volume",
    "trackio_*": "spec.reportTo names the trackers",
    "project": "spec.reportTo names the trackers",
    "trust_remote_code": "no code of a model is run",
    "model_init_kwargs": "the model is loaded from spec.baseModel",
    "chat_template_path": "the chat template is the base model's own",
    "dataset_*": "the dataset is prepared from spec.dataset",
    "eval_packing": "held-out rows are never packed",
    "remove_unused_columns": "the dataset is prepared from spec.dataset",
    "deepspeed": "the processes are started by the operator",
    "fsdp*": "the processes are started by the operator",
    "accelerator_config": "the processes are started by the operator",
    "parallelism_config": "the processes are started by the operator",
    "ddp_*": "the processes are started by the operator",
    "local_rank": "the processes are started by the operator",
    "save_*": "checkpoints are kept so that an interrupted training goes on",
    "enable_jit_checkpoint": "checkpoints are kept so that an interrupted training goes on",
    "resume_from_checkpoint": "checkpoints are kept so that an interrupted training goes on",
    "restore_callback_states_from_checkpoint": "checkpoints are kept so that an interrupted training goes on",
    "ignore_data_skip": "a resumed training must not see its first rows again",
    "do_*": "it has no effect here",
    "disable_tqdm": "the log is for programs",
    "prediction_loss_only": "the evaluation during the training is of the loss",
}


def parse(configuration: type, arguments: Mapping[str, str]) -> dict[str, Any]:
    """The arguments with the types that TRL gives them; raises GivenUp naming the first that can't be taken."""
    known = known_fields(configuration)
    hints = typing.get_type_hints(next(base for base in configuration.__mro__ if is_library(base)))
    return {name: _parse(name, text, known, hints) for name, text in sorted(arguments.items())}


def known_fields(configuration: type) -> dict[str, Field[Any]]:
    """Those of TRL and Transformers: Unsloth adds its own to a subclass."""
    library = next(base for base in configuration.__mro__ if is_library(base))
    return {field.name: field for field in fields(library)}


def is_library(base: type) -> bool:
    return base.__module__.startswith(("trl.", "transformers."))


def _parse(name: str, text: str, known: Mapping[str, Field[Any]], hints: Mapping[str, Any]) -> Any:
    if name in SAID_ELSEWHERE:
        raise refused(
            f"argument {name} is set by {SAID_ELSEWHERE[name]}", f"remove {name} from spec.training.arguments"
        )
    for pattern, why in REFUSED.items():
        if fnmatchcase(name, pattern):
            raise refused(f"argument {name} is refused: {why}", f"remove {name} from spec.training.arguments")
    if name not in known:
        raise refused(f"TRL knows no argument {name}", "correct its name in spec.training.arguments, or remove it")
    try:
        value = TypeAdapter(hints[name]).validate_python(_decoded(text, hints[name]))
    except (ValidationError, ValueError) as error:
        wanted = getattr(hints[name], "__name__", str(hints[name])) if isinstance(hints[name], type) else hints[name]
        raise refused(f"argument {name} is {text!r}, which is no {wanted}", f"correct {name} in {WHERE}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise refused(f"argument {name} is {text!r}, which is no finite number", f"correct {name} in {WHERE}")
    choices = known[name].metadata.get("choices") if known[name].metadata is not MISSING else None
    if choices and value not in choices:
        raise refused(f"argument {name} is {text!r}, not one of {', '.join(choices)}", f"correct {name} in {WHERE}")
    return value


WHERE = "spec.training.arguments"


def _decoded(text: str, hint: Any) -> Any:
    """JSON where the type is a list or a map, else the text itself; `null` is nothing where nothing is allowed."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if text == "null" and type(None) in members:
        return None
    kinds = {typing.get_origin(member) or member for member in members}
    if kinds & {dict, list} and text[:1] in ("{", "["):
        return json.loads(text)
    if list in kinds and str not in kinds:
        return text.split(",")
    return text


def refused(message: str, remedy: str) -> GivenUp:
    return GivenUp(FailureReason.INVALID_CONFIG, message, remedy)
