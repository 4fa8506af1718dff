"""Ratings as the prepare container reads them: by filters that are never SQL, from databases in whatever state."""

import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_operator.contract.dataset import RatingsSource
from tests.unit.store.prepare_pod import Pod, config, prompts
from tests.unit.store.ratings_database import rating

LOOKS_LIKE_INJECTION = (
    "' OR '1'='1",
    "plato'; DROP TABLE ml_analysis_rating; --",
    '" OR 1=1 --',
    "plato' UNION SELECT 1, sql, sql, 5 FROM sqlite_master --",
    "%",
    ":domain",
    "\x00",
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RatingsSource(philosopher="kant"), {2}),
        (RatingsSource(domain="logic"), {3}),
        (RatingsSource(task_type="visualization"), {4}),
        (RatingsSource(min_rating=5), {1, 2, 3, 4}),
        (RatingsSource(gold_star_only=False), {1, 2, 3, 4, 5, 6}),
        (RatingsSource(gold_star_only=False, min_rating=1, limit=2), {6, 7}),
    ],
)
def test_filters(pod: Pod, source: RatingsSource, expected: set[int]) -> None:
    pod.ratings(
        rating(1),
        rating(2, philosopher="kant"),
        rating(3, domain="logic"),
        rating(4, task_type="visualization"),
        rating(5, is_gold_star=False),
        rating(6, is_gold_star=False, rating=4),
        rating(7, is_gold_star=False, rating=2),
    )
    assert pod.run(config(source=source)) == 0
    assert prompts(pod.rows("train") + pod.rows("test")) == {rating(number)["prompt"] for number in expected}


@pytest.mark.parametrize("column", ["philosopher", "domain", "task_type"])
@pytest.mark.parametrize("value", LOOKS_LIKE_INJECTION)
def test_filters_are_values_and_never_sql(pod: Pod, column: str, value: str) -> None:
    pod.ratings(rating(1), rating(2, **{column: value}))
    assert pod.run(config(source=RatingsSource(**{column: value}))) == 0
    assert prompts(pod.rows("train")) == {rating(2)["prompt"]}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_filter_text_selects_exactly_its_rows(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    pod = Pod(tmp_path_factory.mktemp("pod")).ratings(rating(1, domain=f"{value}x"), rating(2, domain=value))
    assert pod.run(config(source=RatingsSource(domain=value))) == 0
    assert prompts(pod.rows("train")) == {rating(2)["prompt"]}


def test_a_database_that_is_being_written_is_read_without_locks(pod: Pod) -> None:
    pod.ratings(rating(1), rating(2))
    writer = sqlite3.connect(pod.root / "ratings.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert pod.run(config()) == 0
    finally:
        writer.rollback()
        writer.close()


def test_columns_of_odd_content_fall_to_the_quality_rules(pod: Pod) -> None:
    pod.ratings(rating(1))
    with sqlite3.connect(pod.root / "ratings.db") as connection:
        connection.execute(
            "INSERT INTO ml_analysis_rating "
            "SELECT 9, x'00ff', response, rating, 1, 1, NULL, NULL, NULL, NULL, created_at FROM ml_analysis_rating"
        )
    connection.close()
    assert pod.run(config()) == 0
    assert (pod.report.dropped, pod.report.dropped_rows) == ({"InvalidText": 1}, {"InvalidText": ("9",)})


def test_on_a_read_only_volume_the_database_is_read_without_its_log(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.ratings(rating(1), rating(2))
    writer = sqlite3.connect(pod.root / "ratings.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE ml_analysis_rating SET domain = 'logic'")
    writer.commit()
    monkeypatch.setattr("finetune_operator.store.ratings.os.access", lambda *_: False)
    assert pod.run(config(source=RatingsSource(domain="ethics"))) == 0
    writer.close()
    assert "write-ahead log" in pod.report.warnings[0]
