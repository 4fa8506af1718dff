"""Train the demo's tiny base model from scratch, so that the demo needs no model hub.

    python base_model.py --data conversations.jsonl --output /models/tiny-llama --seconds 90

Each line of the data is {"messages": [{"role": ..., "content": ...}, ...]}. The result is an ordinary Llama of about
one million parameters with a byte-level BPE tokenizer and a ChatML template. With the same data, seed and thread count
it is the same model, unless the time budget ends the training early.
"""

import argparse
import json
import math
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY_SIZE = 1024
CONTEXT_TOKENS = 512
HIDDEN_SIZE = 128  # 4 layers, 4 heads of 32: 0.9 million parameters with tied embeddings
LAYERS = 4
HEADS = 4
BATCH_SIZE = 16
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 50
PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="JSONL of conversations")
    parser.add_argument("--output", type=Path, required=True, help="directory of the model; left alone if it exists")
    parser.add_argument("--seconds", type=float, default=90, help="ceiling for the training itself")
    parser.add_argument("--epochs", type=int, default=24, help="passes over the data, if the time suffices")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def read_conversations(path: Path) -> list[list[dict[str, str]]]:
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(rows) < BATCH_SIZE:
        sys.exit(f"{path} has {len(rows)} conversations; give at least {BATCH_SIZE}")
    return rows


def train_tokenizer(conversations: list[list[dict[str, str]]]) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (message["content"] for messages in conversations for message in messages)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
        padding_side="right",
    )


def make_model(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN_SIZE,
            intermediate_size=344,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batches(rows: list[list[int]], shuffler: random.Random, pad: int) -> "list[tuple[Tensor, Tensor]]":
    """(input ids, labels) of one epoch: rows of like length together, so that little of a batch is padding."""
    import torch

    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), shuffler.random()))
    groups = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    shuffler.shuffle(groups)
    result = []
    for group in groups:
        width = max(len(rows[index]) for index in group)
        ids = torch.tensor([rows[index] + [pad] * (width - len(rows[index])) for index in group])
        result.append((ids, ids.masked_fill(ids == pad, -100)))
    return result


def learning_rate(step: int, done: float) -> float:
    """Warm-up, then a cosine down to a twentieth, over the part of the work (0 to 1) that is done."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_LEARNING_RATE * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def train(model: "LlamaForCausalLM", rows: list[list[int]], epochs: int, seconds: float, seed: int) -> None:
    """One plain loop; where the time runs short, the learning rate still comes down to its end."""
    import torch

    shuffler = random.Random(seed)  # noqa: S311 - an order of rows, not a secret
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    pad = model.config.pad_token_id
    started = time.monotonic()
    total_steps = epochs * math.ceil(len(rows) / BATCH_SIZE)
    step, losses = 0, []
    for epoch in range(1, epochs + 1):
        for ids, labels in batches(rows, shuffler, pad):
            elapsed = time.monotonic() - started
            if elapsed > seconds:
                report("the time is up", epoch=epoch, step=step, seconds=round(elapsed, 1))
                return
            rate = learning_rate(step, max(step / total_steps, elapsed / seconds))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = model(input_ids=ids, attention_mask=(ids != pad).long(), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            step += 1
        recent = losses[-math.ceil(len(rows) / BATCH_SIZE) :]
        percent = round(100 * step / total_steps)
        elapsed = round(time.monotonic() - started, 1)
        report("trained", epoch=epoch, percent=percent, loss=round(sum(recent) / len(recent), 3), seconds=elapsed)


def answer(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=40, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return str(tokenizer.decode(made, skip_special_tokens=True)).strip()


def report(message: str, **fields: Any) -> None:
    print(json.dumps({"message": message, **fields}), flush=True)


def main() -> None:
    arguments = parse_arguments()
    if (arguments.output / "config.json").exists():
        report("the model exists already", output=str(arguments.output))
        return
    import torch

    torch.manual_seed(arguments.seed)
    conversations = read_conversations(arguments.data)
    tokenizer = train_tokenizer(conversations)
    rows = [
        tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"][:CONTEXT_TOKENS]
        for messages in conversations
    ]
    model = make_model(tokenizer)
    tokens = sum(map(len, rows))
    report("training", conversations=len(rows), tokens=tokens, parameters=model.num_parameters())
    model.train()
    train(model, rows, arguments.epochs, arguments.seconds, arguments.seed)
    model.eval()
    for messages in conversations[:: max(1, len(conversations) // 5)][:5]:
        prompt = messages[0]["content"]
        report("sample", prompt=prompt, answer=answer(model, tokenizer, prompt))

    # A reader of the volume never sees half a model: the directory gets its name when it is whole.
    temporary = arguments.output.with_name(f".{arguments.output.name}.{os.getpid()}")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for path in temporary.iterdir():
        path.chmod(0o644)
    try:
        temporary.rename(arguments.output)
    except OSError:
        shutil.rmtree(temporary)
        if not (arguments.output / "config.json").exists():
            raise
    report("saved", output=str(arguments.output))


if __name__ == "__main__":
    main()
