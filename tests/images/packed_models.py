"""What small models say of packed conversations, with the trainer's attention and with SDPA's; run in its environment.

    python packed_models.py

Prints for each case {"alone", "dense", "gradients": greatest differences, "masks": how many blocks have one, "blocks"}:
logits of each conversation by itself, logits and embeddings' gradients by SDPA with a mask of the whole row.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "trainer_image"))

import packed_attention  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]
from peft import LoraConfig, get_peft_model  # type: ignore[import-not-found]
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM  # type: ignore[import-not-found]

LENGTHS = (1, 7, 30, 2, 16)
SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "sdpa"}


def difference(first: Any, second: Any) -> float:
    return float((first - second).abs().max())


def ran(model: Any, ids: Any, positions: Any) -> tuple[Any, Any]:
    """Logits, and the embeddings' gradient."""
    model.zero_grad()
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    logits.square().sum().backward()
    return logits.detach(), model.get_input_embeddings().weight.grad.clone()


def compared(plain: Any, *, together: int = 0, checkpointing: bool = False) -> dict[str, float]:
    model = get_peft_model(plain, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).train()
    model.get_input_embeddings().weight.requires_grad_(True)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    conversations = [torch.randint(64, (1, length)) for length in LENGTHS]
    ids, positions = torch.cat(conversations, dim=1), torch.cat([torch.arange(length) for length in LENGTHS])[None]
    dense, dense_gradient = ran(model, ids, positions)

    seen: list[Any] = []
    make = packed_attention.blocks_of
    packed_attention.blocks_of = lambda **asked: seen.append(make(**asked)) or seen[-1]
    packed_attention.TOGETHER_ON_CPU = together
    if not packed_attention.use_packed_attention(model):
        raise RuntimeError("the model does not take the attention")
    packed, gradient = ran(model, ids, positions)
    packed_attention.blocks_of = make
    (blocks,) = seen
    alone = torch.cat([model(input_ids=each, use_cache=False).logits for each in conversations], dim=1).detach()
    return {
        "alone": difference(packed, alone),
        "dense": difference(packed, dense),
        "gradients": difference(gradient, dense_gradient),
        "masks": sum(mask is not None for mask in blocks.masks),
        "blocks": len(blocks.lengths),
    }


def main() -> None:
    torch.manual_seed(7)

    def llama() -> Any:
        return LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS))

    cases = {
        "each by itself": compared(llama()),
        "neighbours together": compared(llama(), together=40),
        "recomputed in the backward pass": compared(llama(), checkpointing=True),
        "in a window": compared(MistralForCausalLM(MistralConfig(**SHAPE, **HEADS, sliding_window=8))),
    }
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
