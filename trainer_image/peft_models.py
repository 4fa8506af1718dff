"""A base model with a fresh LoRA adapter on it, for TRL's trainers, by Unsloth or by Hugging Face's PEFT.

Both return (model, tokenizer). Unsloth patches Transformers and TRL when it is
imported, so the import has to come before theirs: the caller imports them afterwards.
"""

import sys
from typing import Any

from failures import GivenUp

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import TrainingConfig


def load_unsloth(config: TrainingConfig, dtype: Any) -> tuple[Any, Any]:
    """Base model and tokenizer by Unsloth, on a GPU with its kernels, else by its CPU path."""
    hide_vllm()
    from unsloth import FastLanguageModel

    training, lora = config.training, config.lora
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=config.base_model_path,
        max_seq_length=training.max_seq_length,
        dtype=dtype,
        load_in_4bit=training.quantization == "4bit",
        load_in_8bit=training.quantization == "8bit",
        local_files_only=True,
    )
    model = with_adapter(
        FastLanguageModel.get_peft_model,
        model,
        r=lora.r,
        target_modules=list(lora.target_modules),
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        use_gradient_checkpointing="unsloth" if training.gradient_checkpointing else False,
        random_state=training.seed,
    )
    return model, tokenizer


def load_peft(config: TrainingConfig, dtype: Any) -> tuple[Any, Any]:
    """Base model and tokenizer by Transformers, adapter by PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer

    training, lora = config.training, config.lora
    quantized = quantization(config, dtype)
    model = AutoModelForCausalLM.from_pretrained(
        config.base_model_path, dtype=dtype, quantization_config=quantized, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(config.base_model_path, local_files_only=True)
    if quantized is not None:
        model = prepare_model_for_kbit_training(model, training.gradient_checkpointing)
    elif training.gradient_checkpointing:
        model.enable_input_require_grads()
    torch.manual_seed(training.seed)
    adapter = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )
    if not torch.cuda.is_available():
        _let_trl_train_without_gpu()
    return with_adapter(get_peft_model, model, peft_config=adapter), tokenizer


def quantization(config: TrainingConfig, dtype: Any) -> Any:
    """Transformers' config of the weights that the job trains on; None for those that are as they are.

    Unsloth also quantizes the constants of each block (bnb_4bit_use_double_quant).
    """
    wanted = config.training.quantization
    if wanted == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=wanted == "4bit",
        load_in_8bit=wanted == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=wanted == "4bit" and config.backend == "Unsloth",
    )


def with_adapter(get_peft_model: Any, model: Any, **arguments: Any) -> Any:
    """PEFT's complaint about module names that the model lacks is the user's to mend."""
    try:
        return get_peft_model(model, **arguments)
    except ValueError as error:
        if "target modules" not in str(error).lower():
            raise
        raise GivenUp(
            FailureReason.INVALID_CONFIG,
            str(error).splitlines()[0],
            "set spec.lora.targetModules to names of linear layers of the base model",
        ) from error


def hide_vllm() -> None:
    """The CPU layer has vLLM in it, which no training needs.

    Unsloth loads vLLM's compiled parts to see whether they work. The first is built for AVX-512 with bfloat16, and ends
    the process (SIGILL) on a CPU without; vLLM itself chooses the one that fits.
    """
    sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]


def _let_trl_train_without_gpu() -> None:
    """TRL 1.15 computes its losses by a Triton kernel alone; Unsloth has the same function in plain PyTorch."""
    hide_vllm()
    import unsloth  # noqa: F401 - unsloth_zoo asks for it to be imported first
    from unsloth_zoo.cpu.ops import patch_trl_fused_lm_head

    patch_trl_fused_lm_head()
