"""Versions and tests as a page lists them: the newest, since nobody chooses from thousands, and what was asked for."""

from collections.abc import Iterable
from functools import partial

from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import TESTS, VERSIONS, Acting
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.problems import FORBIDDEN, NOT_FOUND, Problem

CHOICES = 200


async def newest_versions(
    acting: Acting, namespace: str | None = None, *, model: str | None = None, states: Iterable[State] = ()
) -> tuple[ModelVersion, ...]:
    """At most `CHOICES`. Raises problems."""
    wanted = Wanted(VERSIONS.plural, model=model, states=tuple(state.value for state in states))
    page = await acting.page(VERSIONS, namespace, CHOICES, None, wanted)
    return each_shown(partial(parsed, ModelVersion), page.items)


async def newest_tests(acting: Acting, namespace: str, model: str) -> tuple[ABTest, ...]:
    """Of one model; all versions that are compared are its own. At most `CHOICES`. Raises problems."""
    page = await acting.page(TESTS, namespace, CHOICES, None, Wanted(TESTS.plural, model=model))
    return each_shown(partial(parsed, ABTest), page.items)


async def find_version(acting: Acting, namespace: str, name: str) -> ModelVersion | None:
    """None where it is gone, or not for this caller."""
    try:
        return parsed(ModelVersion, await acting.get(VERSIONS, ObjectId(namespace, name)))
    except Problem as problem:
        if problem.status not in (FORBIDDEN, NOT_FOUND):
            raise
        return None


def id_of(version: ModelVersion) -> ObjectId:
    return ObjectId(version.metadata.namespace, version.metadata.name)


def options_of(versions: Iterable[ModelVersion], *asked: str | None) -> list[tuple[str, str]]:
    """Ids and what they are shown as; ids that were asked for are there, however old they are."""
    options = [(str(found), f"{found.name} ({found.namespace})") for found in map(id_of, versions)]
    known = {identity for identity, _ in options}
    return options + [(each, each.partition(".")[2] or each) for each in asked if each and each not in known]
