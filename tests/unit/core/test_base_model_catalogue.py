"""The catalogue's numbers are of one and the same model: what is counted follows from the shape."""

import re

import pytest

from finetune_operator.core.base_model_catalogue import CATALOGUE, CatalogueModel, catalogued
from finetune_operator.core.job_texts import family_of
from finetune_operator.core.model_shape import ModelShape


def uncounted(shape: ModelShape) -> int:
    """Vectors that the estimate leaves out: biases of Qwen2's attention, and norms of Qwen3's queries and keys."""
    queries, keys = shape.linear_layers["q_proj"][1], shape.linear_layers["k_proj"][1]
    vectors = {"qwen2": queries + 2 * keys, "qwen3": 2 * (shape.head_dim or 0)}
    return shape.num_hidden_layers * vectors.get(shape.model_type, 0)


@pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model.id)
def test_parameters_follow_from_the_shape(model: CatalogueModel) -> None:
    shape = model.shape
    assert model.parameters == shape.linear_parameters + shape.other_parameters + uncounted(shape)


def test_each_is_there_once_and_can_be_trained_under_a_name() -> None:
    ids = [model.id for model in CATALOGUE]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[^/@\s]+/[^/@\s]+", each) and family_of(each) for each in ids)
    assert any(model.recommended_for for model in CATALOGUE)


def test_one_is_found_by_its_id_at_any_revision() -> None:
    assert catalogued("Qwen/Qwen3-0.6B@main") == catalogued("Qwen/Qwen3-0.6B")
    assert catalogued("nobody/knows") is None
