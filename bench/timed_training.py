"""trainer_image/train.py with a clock around the training, and other changes that a benchmark needs.

    python timed_training.py product|bare|leave@STEP <measured.json> <arguments of train.py>

`bare` is without the product's callbacks and progress reports; `leave@STEP` gets SIGTERM after that step, as on a node
that is drained. Needs trainer_image on the module path, and runs in the trainer's environment.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import train  # type: ignore[import-not-found]  # of the trainer image, which alone runs this
import trainers  # type: ignore[import-not-found]  # as above

OURS = ("ProgressCallback", "CheckpointCallback")


def instrumented(make_trainer: Any, variant: str, output: Path) -> Any:
    """A `make_trainer` whose trainer writes down how long it trained and, if bare, takes any callback but ours."""

    def make(*arguments: Any, **options: Any) -> Any:
        trainer = make_trainer(*arguments, **options)
        add_callback, run = trainer.add_callback, trainer.train

        def add(callback: Any) -> None:
            if type(callback).__name__ not in OURS:
                add_callback(callback)

        def timed(*values: Any, **keywords: Any) -> Any:
            began, wall, cpu = time.time(), time.perf_counter(), time.process_time()
            outcome = run(*values, **keywords)
            seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            output.write_text(json.dumps(seconds | {"began": began, "steps": trainer.state.global_step} | memory()))
            return outcome

        trainer.train = timed
        if variant == "bare":
            trainer.add_callback = add
        if variant.startswith("leave@"):
            add_callback(leaving(int(variant.removeprefix("leave@"))))
        return trainer

    return make


def leaving(step: int) -> Any:
    """A callback that has this process asked to leave."""
    from transformers import TrainerCallback

    class Leaving(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

    return Leaving()


def memory() -> dict[str, int | None]:
    """The most that was ever in use: by the whole process, and of that by torch on the GPU where there is one."""
    import torch

    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"peakResidentBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "peakGpuBytes": gpu}


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
