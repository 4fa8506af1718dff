"""Which of two checkpoints the trainer takes when the newer is damaged; runs in the trainer's environment.

python damaged_checkpoints.py <trainer_image> <empty directory>
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from checkpoints import (  # type: ignore[import-not-found]
    COMPLETE_MARKER,
    Checkpoint,
    last_complete_checkpoint,
    mark,
)

WEIGHTS, MARKER = "adapter_model.safetensors", COMPLETE_MARKER


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "none": lambda directory: None,
    "weights that are cut": lambda directory: cut(directory / WEIGHTS),
    "weights with one bit changed": lambda directory: changed(directory / WEIGHTS),
    "weights that are missing": lambda directory: (directory / WEIGHTS).unlink(),
    "no marker": lambda directory: (directory / MARKER).unlink(),
    "a marker that is cut": lambda directory: cut(directory / MARKER),
    "an empty marker": lambda directory: (directory / MARKER).write_text(""),
    "a marker that is no map": lambda directory: (directory / MARKER).write_text("[]"),
    "a marker of an older release": lambda directory: (directory / MARKER).write_text('{"step": 10}'),
}


def main() -> None:
    taken = {}
    for number, (name, damage) in enumerate(DAMAGES.items()):
        root = Path(sys.argv[2]) / str(number)
        for step in (5, 10):
            directory = root / f"checkpoint-{step}"
            directory.mkdir(parents=True)
            (directory / WEIGHTS).write_bytes(bytes(range(256)) * 5000)
            mark(Checkpoint(directory, step, 1.5, 100, datetime.now(UTC)))
        damage(root / "checkpoint-10")
        found = last_complete_checkpoint(root)
        left = sorted(path.name for path in root.iterdir())
        taken[name] = {"step": found.step, "train_seconds": found.train_seconds, "tokens": found.tokens, "left": left}
    Path(sys.argv[2], "taken.json").write_text(json.dumps(taken))


main()
