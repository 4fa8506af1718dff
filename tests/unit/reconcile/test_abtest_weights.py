"""What the weights of an ABTest let a verdict depend on, and what is told of the weighted score."""

from typing import Any

import pytest

from finetune_operator.contract.experiments import AbTestTally, VotersTally
from finetune_operator.resources.abtest import Verdict
from tests.builders import make_test
from tests.unit.reconcile.comparisons import (
    CLEAR,
    CLEARLY_NOT,
    RUNNING,
    WEIGHTS,
    answers,
    decide,
    status_of,
    tally,
    traffic,
    world,
)

QUICK = {"accuracy": 20, "latency": 40, "cost": 40}
WEIGHED: dict[str, tuple[dict[str, Any], AbTestTally, Verdict | None, str]] = {
    "votes and score for the candidate": (
        {},
        traffic(CLEAR, answers()),
        Verdict.WON,
        "weighted score 0.6636 (0.5111 to 0.7659) against 0.3364 (0.2341 to 0.4889)",
    ),
    "votes and score for the baseline": ({}, traffic(CLEARLY_NOT, answers()), Verdict.LOST, "plato-v1 is preferred"),
    "preferred, but slow and long": (
        {"weights": QUICK},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        None,
        "the votes are significant; people prefer plato-v2, the weighted score 0.1833 (0.133 to 0.217) of plato-v2 "
        "prefers plato-v1",
    ),
    "not preferred, but quick and short": (
        {"weights": QUICK},
        traffic(CLEARLY_NOT, answers(latency_ms=5, tokens=2)),
        None,
        "of plato-v2 prefers plato-v2",
    ),
    "preferred, but too slow and long to be sure": (
        {},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        None,
        "of plato-v2 does not exclude a tie",
    ),
    "preferred, but now slow and now quick": (
        {},
        traffic(CLEAR, answers(spread=2)),
        None,
        "of plato-v2 does not exclude a tie",
    ),
    "an api that does not know deviations": (
        {},
        traffic(CLEAR, answers(spread=None)),
        None,
        "no weighted score: how much the latencies of answers differ is not known",
    ),
    "quick and short alone win nothing": ({}, traffic((5, 5, 5), answers(latency_ms=5, tokens=2)), None, "no leader"),
    "scores are alike": (
        {"weights": {"latency": 100, "accuracy": 0, "cost": 0}},
        traffic(CLEAR, answers()),
        None,
        "does not exclude a tie",
    ),
    "disagreement until the last vote": (
        {"maxVotes": 55},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        Verdict.INCONCLUSIVE,
        "no agreement of votes and weights after 55 votes; people prefer plato-v2, the weighted score ",
    ),
    "too few answers": ({}, traffic(CLEAR, answers(29)), None, "no weighted score: latency needs 30 answers"),
    "fewer than an interval needs": (
        {"minSamplesPerArm": 29},
        traffic(CLEAR, answers(29)),
        None,
        "how much the latencies of answers differ needs 30 subjects of each arm, not 29",
    ),
    "unknown tokens": ({}, traffic(CLEAR, answers(tokens=None)), None, "no weighted score: cost needs 30 answers with"),
    "tokens without weight": (
        {"weights": {"accuracy": 80, "latency": 20, "cost": 0}},
        traffic(CLEAR, answers(tokens=None)),
        Verdict.WON,
        "weighted score",
    ),
    "chi-squared agrees": ({"method": "ChiSquared", "maxVotes": 55}, traffic(CLEAR, answers()), Verdict.WON, "chi"),
    "chi-squared disagrees": (
        {"method": "ChiSquared", "maxVotes": 55},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        Verdict.INCONCLUSIVE,
        "no agreement of votes and weights",
    ),
    "as many samples as allowed": (
        {"maxSamplesPerArm": 40},
        traffic((5, 5, 0), answers()),
        Verdict.INCONCLUSIVE,
        "no significant difference after 40 samples of each arm",
    ),
    "one sample fewer": ({"maxSamplesPerArm": 40}, traffic((5, 5, 0), answers(39)), None, "no leader yet"),
}


RIGHT = {"accuracyFrom": "References"}
TOLD: dict[str, tuple[dict[str, Any], AbTestTally, Verdict | None, str]] = {
    "nearer to what they should be": (
        {},
        traffic((0, 0, 0), answers(accuracy=0.9), answers(accuracy=0.5)),
        Verdict.WON,
        "plato-v2 is better by answers to users: weighted score 0.5857 (0.5677 to 0.6035) against 0.4143",
    ),
    "farther from it": (
        {},
        traffic((0, 0, 0), answers(accuracy=0.5), answers(accuracy=0.9)),
        Verdict.LOST,
        "plato-v1 is better by answers to users",
    ),
    "whatever people voted": (
        {},
        traffic(CLEARLY_NOT, answers(accuracy=0.9), answers(accuracy=0.5)),
        Verdict.WON,
        "plato-v2 is better by answers to users",
    ),
    "by ratings": (
        {"weights": {"accuracyFrom": "Ratings"}},
        traffic((0, 0, 0), answers(accuracy=0.9), answers(accuracy=0.5)),
        Verdict.WON,
        "plato-v2 is better by answers to users",
    ),
    "about the same": (
        {},
        traffic((0, 0, 0), answers(accuracy=0.9), answers(accuracy=0.89)),
        None,
        "feedback on answers to users decides; the weighted score 0.5017 (0.4",
    ),
    "better, but slow and long": (
        {"weights": QUICK | RIGHT},
        traffic((0, 0, 0), answers(accuracy=0.9, latency_ms=2000, tokens=2000), answers(accuracy=0.5)),
        Verdict.LOST,
        "plato-v1 is better by answers to users",
    ),
    "feedback on few answers": (
        {},
        traffic((0, 0, 0), answers(29, accuracy=0.9), answers(accuracy=0.5)),
        None,
        "feedback with a reference of 30 subjects of each arm, there is some of 40 of the baseline and 29 of",
    ),
    "ratings of none": (
        {"weights": {"accuracyFrom": "Ratings"}},
        traffic((0, 0, 0), answers(), answers()),
        None,
        "accuracy needs feedback with a rating of 30 subjects of each arm, there is some of 0 of the baseline and 0 of",
    ),
    "an api that does not know deviations": (
        {"weights": {"accuracy": 100, "latency": 0, "cost": 0} | RIGHT},
        traffic((0, 0, 0), answers(accuracy=0.9, spread=None), answers(accuracy=0.5)),
        None,
        "how much the accuracies of answers differ is not known",
    ),
    "no accuracy in the score": (
        {"weights": {"accuracy": 0, "latency": 50, "cost": 50} | RIGHT, "minVotes": 1000},
        traffic((0, 0, 0), answers(latency_ms=5, tokens=2)),
        None,
        "no leader",
    ),
    "as many votes as a test takes": ({"maxVotes": 55}, traffic(CLEAR, answers()), None, "accuracy needs feedback"),
    "as many samples as allowed": (
        {"maxSamplesPerArm": 40},
        traffic((0, 0, 0), answers(accuracy=0.9), answers(accuracy=0.89)),
        Verdict.INCONCLUSIVE,
        "no significant difference after 40 samples of each arm; the weighted score 0.5017",
    ),
}


class TestFeedback:
    @pytest.mark.parametrize(("decision", "seen", "verdict", "hint"), TOLD.values(), ids=TOLD.keys())
    def test_it_decides_without_votes(
        self, decision: dict[str, Any], seen: AbTestTally, verdict: Verdict | None, hint: str
    ) -> None:
        spec = {"decision": {"weights": RIGHT} | decision, "traffic": {"candidatePercent": 50}}
        status = status_of(decide(make_test(spec, status=RUNNING), seen=world(seen)))
        assert status.verdict is verdict
        assert status.message is not None
        assert hint in status.message
        assert "votes" not in status.message

    def test_who_is_ahead_is_ahead_by_the_score(self) -> None:
        seen = traffic(CLEARLY_NOT, answers(accuracy=0.9), answers(accuracy=0.89))
        status = status_of(decide(make_test({"decision": {"weights": RIGHT}}, status=RUNNING), world(seen)))
        assert status.leader == "plato-v2"
        assert status.arms is not None
        candidate = status.arms.candidate.to_dict()
        assert {name: candidate[name] for name in ("accuracySubjects", "meanAccuracy", "deviationAccuracy")} == {
            "accuracySubjects": 40,
            "meanAccuracy": "0.9000",
            "deviationAccuracy": "0.0451",
        }

    @pytest.mark.parametrize("votes", [CLEAR, CLEARLY_NOT, (3, 1, 0)])
    def test_nothing_of_the_votes_stands_as_if_it_decided(self, votes: tuple[int, int, int]) -> None:
        """They are told as what they are; whoever reads a p-value beside a leader takes the one for the other's."""
        voted = traffic(votes, answers(accuracy=0.9), answers(accuracy=0.89))
        seen = voted.model_copy(update={"voters": VotersTally(evaluators=4, heaviest=voted.votes, agreement=0.75)})
        status = status_of(decide(make_test({"decision": {"weights": RIGHT}}, status=RUNNING), world(seen)))
        assert status.votes is not None
        assert (status.votes.fine_tuned, status.votes.base, status.votes.tie) == votes
        assert (status.p_value, status.chi_squared_p_value, status.votes_still_needed) == (None, None, None)
        assert status.voters is not None
        assert status.voters.to_dict() == {"evaluators": 4, "heaviestVotes": sum(votes), "agreement": "0.75"}

    def test_a_p_value_of_votes_goes_once_feedback_decides(self) -> None:
        before = RUNNING | {"pValue": "0.001", "leader": "plato-v2", "votes": {"fineTuned": 3, "base": 1, "total": 4}}
        seen = traffic((3, 1, 0), answers(accuracy=0.9), answers(accuracy=0.89))
        status = status_of(decide(make_test({"decision": {"weights": RIGHT}}, status=before), world(seen)))
        assert (status.leader, status.p_value) == ("plato-v2", None)

    def test_without_traffic_nobody_can_give_any(self) -> None:
        status = status_of(
            decide(
                make_test({"decision": {"weights": RIGHT}, "traffic": {"candidatePercent": 0}}, status=RUNNING),
                world(tally()),
            )
        )
        assert "raise traffic.candidatePercent" in (status.message or "")


class TestWeights:
    @pytest.mark.parametrize(("decision", "seen", "verdict", "hint"), WEIGHED.values(), ids=WEIGHED.keys())
    def test_the_rule(self, decision: dict[str, Any], seen: AbTestTally, verdict: Verdict | None, hint: str) -> None:
        test = make_test({"decision": {"weights": WEIGHTS} | decision}, status=RUNNING)
        status = status_of(decide(test, world(seen)))
        assert hint in (status.message or "")
        assert status.verdict is verdict

    @pytest.mark.parametrize(("count", "is_said"), [(40, True), (99, True), (100, False)])
    def test_fewer_answers_than_are_recommended_are_remarked(self, count: int, is_said: bool) -> None:
        test = make_test({"decision": {"weights": WEIGHTS}}, status=RUNNING)
        status = status_of(decide(test, world(traffic((3, 1, 0), answers(count), answers(200)))))
        remark = f"200 answers of the baseline and {count} of the candidate: 100 of each are recommended"
        assert (remark in (status.message or "")) is is_said

    def test_votes_alone_have_no_such_remark(self) -> None:
        status = status_of(decide(make_test(status=RUNNING), world(traffic((3, 1, 0), answers()))))
        assert "recommended" not in (status.message or "")

    def test_what_a_score_looks_like(self) -> None:
        test = make_test({"decision": {"weights": WEIGHTS}}, status=RUNNING)
        seen = traffic((3, 1, 0), answers(latency_ms=50, tokens=25))
        arms = status_of(decide(test, world(seen))).arms
        assert arms is not None
        assert (arms.candidate.score, arms.baseline.score) == ("0.7167", "0.2833")
        assert (arms.candidate.score_lower, arms.candidate.score_upper) == ("0.3222", "0.8732")
        assert (arms.baseline.score_lower, arms.baseline.score_upper) == ("0.1268", "0.6778")
        assert (arms.candidate.samples_with_tokens, arms.candidate.mean_completion_tokens) == (40, "25.0")

    @pytest.mark.parametrize(
        ("weights", "count"), [(None, 40), (WEIGHTS, 29)], ids=["without weights", "with too few answers"]
    )
    def test_there_may_be_none(self, weights: dict[str, int] | None, count: int) -> None:
        test = make_test({"decision": {"weights": weights} if weights else {}}, status=RUNNING)
        arms = status_of(decide(test, world(traffic((3, 1, 0), answers(count))))).arms
        assert arms is not None
        assert (arms.candidate.score, arms.baseline.score) == (None, None)

    def test_without_weights_the_message_says_nothing_of_them(self) -> None:
        status = status_of(decide(make_test(status=RUNNING), world(tally(3, 1))))
        assert "weight" not in (status.message or "")

    def test_before_anything_is_counted(self) -> None:
        test = make_test({"decision": {"weights": WEIGHTS}}, status=RUNNING)
        assert "nothing has been counted" in (status_of(decide(test, world(None))).message or "")
