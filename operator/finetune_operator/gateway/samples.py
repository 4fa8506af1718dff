"""Tells the api how the arms of ABTests fare."""

from collections import deque
from itertools import islice

from finetune_operator.contract.experiments import SAMPLES_MAX_PER_BATCH, Sample, SampleBatch
from finetune_operator.contract.places import SAMPLES_PATH
from finetune_operator.gateway.outbox import Letter, Outbox


class SampleSender(Outbox[tuple[Sample, bool]]):
    """Samples, each with whether it is of a copy that nobody asked for."""

    what = "samples"
    room = 20_000

    def add(self, sample: Sample, *, shadow: bool = False) -> None:
        """Returns at once."""
        self.put((sample, shadow))

    def letter(self, items: deque[tuple[Sample, bool]]) -> Letter:
        oldest = tuple(islice(items, SAMPLES_MAX_PER_BATCH))
        batch = SampleBatch(
            samples=tuple(sample for sample, shadow in oldest if not shadow),
            shadows=tuple(sample for sample, shadow in oldest if shadow),
        )
        return Letter("POST", SAMPLES_PATH, batch.model_dump_json(by_alias=True).encode(), len(oldest))
