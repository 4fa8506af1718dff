"""A base model's directory without weights: config, a byte-level tokenizer and a ChatML template."""

import json
from pathlib import Path
from typing import Any

CHAT_ML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")
TINY_LLAMA = {
    "model_type": "llama", "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4,
    "num_attention_heads": 4, "vocab_size": 1024, "tie_word_embeddings": True,
}  # fmt: skip


def byte_level_tokenizer() -> str:
    """A token for each byte and special token: lengths can be counted by hand."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: index for index, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer.to_str()


def write_model(
    directory: Path, template: str | None = CHAT_ML, config: dict[str, Any] | None = None, **files: str | None
) -> Path:
    """`files` are further ones, or others than the usual, by their names without the suffix; None leaves one out."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        "config": json.dumps(TINY_LLAMA if config is None else config),
        "tokenizer": byte_level_tokenizer(),
        "tokenizer_config": json.dumps({"eos_token": "<|im_end|>"} | ({"chat_template": template} if template else {})),
        **files,
    }
    for name, content in contents.items():
        if content is not None:
            (directory / f"{name}.json").write_text(content)
    return directory


def conversation(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
