"""The loop of the README, asserted: ratings, training, serving, hot load, votes, promotion, rollback."""

from tests.e2e.conftest import World


def conditions(resource: dict) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in resource["status"]["conditions"]}


class TestFirstTraining:
    def test_ends_with_every_condition_true_but_a_price_that_nobody_named(self, world: World) -> None:
        assert conditions(world.story.first.job) == {
            "CostKnown": "False",
            "DatasetReady": "True",
            "Trained": "True",
            "Published": "True",
            "Evaluated": "True",
            "Succeeded": "True",
            "Ready": "True",
        }

    def test_reported_percent_epoch_loss_best_loss_and_eta_on_the_way(self, world: World) -> None:
        on_the_way = [entry for entry in world.story.first.progress_seen if 0 < entry["percent"] < 100]
        assert on_the_way, world.story.first.progress_seen
        for entry in on_the_way:
            assert float(entry["epoch"]) > 0
            assert float(entry["bestLoss"]) <= float(entry["loss"]) + 1e-9
            assert entry["etaSeconds"] >= 0
            assert entry["summary"] == f"{entry['percent']}%"

    def test_lowers_the_loss_of_rows_that_it_never_saw(self, world: World) -> None:
        result = world.story.first.job["status"]["result"]
        assert float(result["testLoss"]) < float(result["baseTestLoss"])

    def test_scores_answers_that_it_never_saw_and_passes_what_is_required(self, world: World) -> None:
        evaluation = world.story.first.job["status"]["evaluation"]
        assert [score["name"] for score in evaluation["metrics"]] == ["TokenF1", "RougeL", "TokenAccuracy"]
        assert all(0 < float(score["fineTuned"]) < 1 for score in evaluation["metrics"])
        assert evaluation["examples"] == world.story.first.job["status"]["dataset"]["testRows"]
        version = world.story.first.version
        assert version["spec"]["lineage"]["evaluation"]["metrics"] == evaluation["metrics"]
        assert conditions(version)["EvaluationPassed"] == "True"

    def test_trains_only_on_gold_stars_of_the_domain(self, world: World) -> None:
        dataset = world.story.first.job["status"]["dataset"]
        assert 100 <= dataset["rows"] + dataset["testRows"] <= 147

    def test_makes_a_version_with_its_lineage(self, world: World) -> None:
        job, version = world.story.first.job, world.story.first.version
        assert version["metadata"]["name"] == job["status"]["modelVersion"] == "plato-v1"
        assert version["spec"]["lineage"]["jobUid"] == job["metadata"]["uid"]
        assert version["spec"]["lineage"]["datasetDigest"] == job["status"]["dataset"]["digest"]
        assert "ownerReferences" not in version["metadata"]

    def test_is_promoted_and_answers_differently_from_the_base_model(self, world: World) -> None:
        assert world.story.first.version["status"]["state"] == "Deployed"
        for _, base, tuned in world.story.first.answers:
            assert (base.version, tuned.version) == ("tiny-llama", "plato-v1")
        assert any(base.text != tuned.text for _, base, tuned in world.story.first.answers)


class TestHotLoad:
    def test_restarts_no_pod(self, world: World) -> None:
        assert world.story.second.engine_before == world.story.second.engine_after
        assert [pod.restarts for pod in world.story.second.engine_after] == [0]

    def test_fails_no_request(self, world: World) -> None:
        assert world.story.second.chat_failures == ()
        assert world.story.second.chat_answers > 0

    def test_does_not_make_the_second_version_active(self, world: World) -> None:
        assert world.story.second.version["status"]["state"] == "Ready"


class TestExperiment:
    def test_is_won_by_the_version_that_knows_the_domain(self, world: World) -> None:
        status = world.story.experiment.test["status"]
        assert status["verdict"] == "Won"
        assert float(status["pValue"]) <= 0.05

    def test_counts_every_vote_once_and_a_tie_half(self, world: World) -> None:
        votes = world.story.experiment.test["status"]["votes"]
        assert votes["total"] == votes["fineTuned"] + votes["base"] + votes["tie"] <= world.story.experiment.votes_cast
        expected = (votes["fineTuned"] + votes["tie"] / 2) / votes["total"]
        assert abs(float(votes["winRate"]) - expected) < 1e-3

    def test_splits_the_traffic_of_the_alias(self, world: World) -> None:
        assert set(world.story.experiment.chat_versions) == {"plato-v1", "plato-v2"}
        assert world.story.experiment.chat_failures == ()

    def test_promotes_the_winner(self, world: World) -> None:
        assert world.story.experiment.version["status"]["state"] == "Deployed"
        assert "won ABTest" in world.story.experiment.version["status"]["history"][-1]["why"]
        assert world.story.experiment.answer_after.version == "plato-v2"


class TestRollback:
    def test_the_next_answer_comes_from_the_first_version(self, world: World) -> None:
        assert world.story.rollback.answer.version == "plato-v1"
        assert world.story.rollback.seconds < 1.0
        assert world.story.rollback.failures == ()
