"""The search for an engine's limit, by named curves of what it gives, and against a server that speaks vLLM's API."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.evaluation import Saturation
from finetune_operator.contract.served_evaluation import SaturationConfig
from finetune_operator.evaluator.engine import Engine, Sampling
from finetune_operator.evaluator.questions import read_questions
from finetune_operator.evaluator.saturation import WORTHWHILE_GAIN, Highest, held_load, saturated
from tests.unit.evaluator.engine_double import IMPATIENT, KEY
from tests.unit.evaluator.test_evaluator import ROWS, TUNED, config_of, double, measured, rows_file


def searched(rates: list[float], max_concurrency: int) -> tuple[Highest, list[int]]:
    """What is found where 1, 2, 4 and so on at once are answered at these rates, and how many were asked at once."""
    tried: list[int] = []

    async def load(at_once: int) -> Saturation:
        rate = rates[len(tried)]
        tried.append(at_once)
        return Saturation(concurrency=at_once, requests_per_second=rate, tokens_per_second=10 * rate)

    return asyncio.run(saturated(load, max_concurrency)), tried


CURVES: dict[str, tuple[list[float], int, tuple[int, float, bool], int]] = {
    "no more than one at a time": ([1.0, 1.0], 256, (1, 1.0, True), 2),
    "several at once hinder each other": ([1.0, 0.5], 256, (1, 1.0, True), 2),
    "twice as many bring a little": ([1.0, 2.0, 4.0, 4.3], 256, (8, 4.3, True), 4),
    "a tenth more is worth another try": ([1.0, 1.1, 1.1], 256, (2, 1.1, True), 3),
    "our limit comes first": ([1.0, 2.0, 4.0], 4, (4, 4.0, False), 3),
    "a limit between two numbers": ([1.0, 2.0, 4.0], 7, (4, 4.0, False), 3),
    "one at once is all that is allowed": ([1.0], 1, (1, 1.0, False), 1),
    "our limit is the engine's": ([1.0, 2.0, 2.0], 4, (2, 2.0, True), 3),
}


@pytest.mark.parametrize(("rates", "most", "expected", "tries"), CURVES.values(), ids=CURVES.keys())
def test_known_curves(rates: list[float], most: int, expected: tuple[int, float, bool], tries: int) -> None:
    found, tried = searched(rates, most)
    assert (found.load.concurrency, found.load.requests_per_second, found.is_limit) == expected
    assert len(tried) == tries


@given(st.lists(st.floats(0.01, 1000), min_size=11, max_size=11), st.integers(1, 1024))
def test_it_tells_the_highest_rate_of_those_tried_and_tries_on_only_while_that_brings_something(
    rates: list[float], most: int
) -> None:
    found, tried = searched(rates, most)
    assert tried == [2**step for step in range(len(tried))]
    assert max(tried) <= most
    assert found.load.requests_per_second == max(rates[: len(tried)])
    gains = [rates[step] >= WORTHWHILE_GAIN * max(rates[:step]) for step in range(1, len(tried))]
    assert all(gains[:-1])
    assert found.is_limit is (bool(gains) and not gains[-1])


async def test_a_load_is_held_and_all_that_began_is_counted(tmp_path: Path) -> None:
    engine = double(delay_seconds={TUNED: 0.01})
    async with engine.running(), aiohttp.ClientSession() as session:
        asked = read_questions(config_of(engine, rows_file(tmp_path, ROWS)), {}).questions
        load = await held_load(Engine(session, engine.url, KEY, IMPATIENT), TUNED, asked, Sampling(16), 4, 0.5)
    assert engine.most_at_once == load.concurrency == 4
    answers = len(engine.asked)
    assert answers > len(ROWS)
    assert 0 < load.requests_per_second <= answers / 0.5
    # An answer has 4 tokens, or 5 where its end is counted as one.
    assert 4 <= load.tokens_per_second / load.requests_per_second <= 5


async def test_base_model_and_version_are_saturated_one_after_the_other(tmp_path: Path) -> None:
    wanted = SaturationConfig(step_seconds=0, max_concurrency=1)
    report = await measured(double(), rows_file(tmp_path, ROWS), saturation=wanted)
    for found in (report.base_saturation, report.fine_tuned_saturation):
        assert found is not None
        assert found.concurrency == 1
        assert found.requests_per_second > 0
    assert report.remark == (
        "tiny was not saturated by 1 requests at once: raise saturation.maxConcurrency; "
        "plato-v2 was not saturated by 1 requests at once: raise saturation.maxConcurrency"
    )


async def test_without_being_asked_for_there_is_no_load(tmp_path: Path) -> None:
    report = await measured(double(), rows_file(tmp_path, ROWS))
    assert (report.base_saturation, report.fine_tuned_saturation) == (None, None)
