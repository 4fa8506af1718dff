"""What a blind comparison is made of: a pair of answers that is there already, or both arms' answers to a prompt."""

import asyncio
from typing import NamedTuple

from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.store import pairs
from finetune_operator.store.experiment_tables import StoredPair
from finetune_operator.web.acting import VERSIONS, Acting
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import ArmUnavailable, Services


class Material(NamedTuple):
    """What a comparison shows, and who really answered."""

    prompt: str
    baseline_served_name: str
    candidate_served_name: str
    baseline_answer: str
    candidate_answer: str
    pair_id: str


async def material_of(acting: Acting, test: ABTest, evaluator: str, number: int) -> Material:
    """Answers that nobody has judged: stored ones as long as there are some, then those to the test's own prompts.

    Where there is neither, a stored pair that somebody else has judged: it shows how well people agree.
    """
    engine, uid = acting.services.engine, test.metadata.uid
    if pair := await pairs.next_pair(engine, uid, evaluator, judged=False):
        return _stored(pair)
    if test.spec.prompts:
        return await _asked(acting, test, test.spec.prompts[number % len(test.spec.prompts)])
    if pair := await pairs.next_pair(engine, uid, evaluator, judged=True):
        return _stored(pair)
    detail = f"ABTest {test.metadata.name} has no prompts to compare; add some to spec.prompts"
    if test.spec.traffic.pair_percent:
        detail = "no request that you have not judged has both answers yet; come back later"
    raise Problem(409, "no-prompts", detail)


def _stored(pair: StoredPair) -> Material:
    return Material(
        pair.prompt,
        pair.baseline_served_name,
        pair.candidate_served_name,
        pair.baseline_answer,
        pair.candidate_answer,
        pair.id,
    )


async def _asked(acting: Acting, test: ABTest, prompt: str) -> Material:
    baseline, candidate = await baseline_name(acting, test), test.spec.candidate.model_version
    if baseline is None:
        detail = f"the candidate, ModelVersion {candidate}, does not exist; create it, or make a new ABTest"
        raise Problem(409, "unknown-model-version", detail)
    answers = await _ask_both(acting.services, baseline, candidate, prompt)
    return Material(prompt, baseline, candidate, *answers, pairs.pair_id(test.metadata.uid, prompt, *answers))


async def baseline_name(acting: Acting, test: ABTest) -> str | None:
    """Name by which the gateway knows the baseline; the base model's is in the candidate's version."""
    if test.spec.baseline.model_version is not None:
        return test.spec.baseline.model_version
    try:
        found = await acting.get(VERSIONS, ObjectId(test.metadata.namespace, test.spec.candidate.model_version))
    except Problem as problem:
        if problem.status == 404:
            return None
        raise
    return parsed(ModelVersion, found).spec.base_model.name


async def _ask_both(services: Services, baseline: str, candidate: str, prompt: str) -> tuple[str, str]:
    try:
        return await _together(services, baseline, candidate, prompt)
    except ArmUnavailable as error:
        raise Problem(502, "arm-unavailable", f"{error}; nothing was stored, try again once it answers") from error


async def _together(services: Services, baseline: str, candidate: str, prompt: str) -> tuple[str, str]:
    """Both at the same time, so that a slow engine delays neither arm more than the other."""
    tasks = [asyncio.create_task(services.arms.ask(served_name, prompt)) for served_name in (baseline, candidate)]
    try:
        first, second = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return first, second
