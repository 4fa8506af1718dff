"""A kept pass of the images' tests holds until something changes that they can depend on."""

import pytest

from tests import inputs

IMPORTED = (
    "demo/conversations.py",
    "operator/finetune_operator/evaluator/app.py",
    "operator/finetune_operator/store/__init__.py",
    "operator/finetune_operator/store/durable.py",
    "tests/builders.py",
)
LISTED = ("trainer_image/train.py", "trainer_image/requirements-cpu.txt", "server_image/Dockerfile", "uv.lock")
APART = (
    "README.md",
    "operator/finetune_operator/reconcile/finetunejob.py",
    "operator/finetune_operator/gateway/app.py",
    "operator/finetune_operator/web/app.py",
    "tests/cluster/world.py",
)


def names() -> set[str]:
    return {file.relative_to(inputs.REPOSITORY).as_posix() for file in inputs.imported() | inputs.listed()}


@pytest.mark.parametrize("name", IMPORTED + LISTED)
def test_what_the_tests_use_is_an_input(name: str) -> None:
    assert name in names()


@pytest.mark.parametrize("name", APART)
def test_what_they_cannot_reach_is_none(name: str) -> None:
    assert (inputs.REPOSITORY / name).exists()
    assert name not in names()


def test_nothing_changed_gives_the_same_digest() -> None:
    assert inputs.digest() == inputs.digest()
