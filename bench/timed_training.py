"""trainer_image/train.py with a clock around the training, with or without the product's callbacks.

    python timed_training.py product|bare <seconds.json> <arguments of train.py>

Needs trainer_image on the module path, and runs in the trainer's environment. Without callbacks there are no progress
reports either; all else is the same.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import train  # type: ignore[import-not-found]
import trainers  # type: ignore[import-not-found]

OURS = ("ProgressCallback", "CheckpointCallback")


def instrumented(make_trainer: Any, variant: str, output: Path) -> Any:
    """A `make_trainer` whose trainer writes down how long it trained and, if bare, takes any callback but ours."""

    def make(*arguments: Any) -> Any:
        trainer = make_trainer(*arguments)
        add_callback, run = trainer.add_callback, trainer.train

        def add(callback: Any) -> None:
            if type(callback).__name__ not in OURS:
                add_callback(callback)

        def timed(*values: Any, **keywords: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            outcome = run(*values, **keywords)
            seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            output.write_text(json.dumps(seconds | {"steps": trainer.state.global_step}))
            return outcome

        trainer.train = timed
        if variant == "bare":
            trainer.add_callback = add
        return trainer

    return make


def main() -> int:
    variant, output = sys.argv[1], Path(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    trainers.make_trainer = instrumented(trainers.make_trainer, variant, output)
    if variant == "bare":
        train.make_reporter = lambda config: None
    return int(train.main())


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # As train.py does: what is torn down now belongs to no measurement.
    os._exit(code)
