"""The lengths that the trainer gives conversations, by Transformers; run in the trainer's environment.

    python trainer_lengths.py < {"models": [directory, ...], "rows": [{"messages": [...]}, ...]}

Prints for each model a list of [tokens, where the first answer begins].
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "trainer_image"))

from rows import IGNORED, tokenize  # type: ignore[import-not-found]
from transformers import AutoTokenizer  # type: ignore[import-not-found]


def lengths(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    ids, labels = tokenize(tokenizer, messages, sys.maxsize)
    return [len(ids), next((at for at, label in enumerate(labels) if label != IGNORED), len(ids))]


def main() -> None:
    request = json.loads(sys.stdin.read())
    tokenizers = [AutoTokenizer.from_pretrained(model) for model in request["models"]]
    told = [[lengths(tokenizer, row["messages"]) for row in request["rows"]] for tokenizer in tokenizers]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
