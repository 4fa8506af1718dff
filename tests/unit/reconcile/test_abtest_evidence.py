"""What an ABTest tells of its evidence: counts, intervals, the course of the win rate, who voted, and who was split."""

from datetime import timedelta

import pytest

from finetune_operator.contract.experiments import (
    AbTestTally,
    ArmTallies,
    ArmTally,
    SplitTally,
    VoteCounts,
    VotersTally,
    WinRatePoint,
)
from finetune_operator.core.conditions import find
from finetune_operator.core.sequential import p_value
from finetune_operator.reconcile.abtest import reconcile
from finetune_operator.resources.abtest import WIN_RATES_MAX_POINTS, Verdict
from tests.builders import CONFIG, NOON, after, make_test
from tests.unit.reconcile.comparisons import (
    CLEAR,
    RUNNING,
    WEIGHTS,
    answers,
    decide,
    status_of,
    tally,
    traffic,
    world,
)


class TestCount:
    def test_what_votes_look_like(self) -> None:
        arms = ArmTallies(baseline=ArmTally(samples=80, errors=1, mean_latency_ms=120), candidate=ArmTally(samples=20))
        seen = world(AbTestTally(votes=VoteCounts(fine_tuned=12, base=5, tie=3), arms=arms))
        status = status_of(decide(make_test(status=RUNNING), seen))
        assert status.votes is not None
        assert status.votes.to_dict() == {
            "fineTuned": 12,
            "base": 5,
            "tie": 3,
            "total": 20,
            "winRate": "0.675",
            "winRatePercent": "67.5%",
            "preferenceLower": "0.3644",
            "preferenceUpper": "0.9335",
        }
        assert status.arms is not None
        assert (len(status.arms.error_evidence or ()), status.arms.error_rates_p_value) == (14, "1")
        unused = {"error_evidence": None, "error_counts": None, "error_rates_p_value": None}
        counted = status.arms.model_copy(update=unused)
        assert counted.to_dict() == {
            "baseline": {"servedName": "plato-v1", "samples": 80, "errors": 1, "meanLatencyMs": 120},
            "candidate": {"servedName": "plato-v2", "samples": 20, "errors": 0},
            "lastUpdateTime": "2026-01-01T12:00:00Z",
        }
        assert status.leader == "plato-v2"
        assert status.p_value is not None
        assert float(status.p_value) >= p_value(seen.tally.votes if seen.tally else VoteCounts())
        assert status.votes_still_needed == 45
        assert status.message == "about 45 more votes at the present win rate"

    @pytest.mark.parametrize(
        ("seconds", "more_votes", "samples"),
        [(10, 0, 80), (4, 1, 95), (12, 0, 95)],
        ids=["traffic alone waits", "a vote takes it along", "after twelve seconds it is written"],
    )
    def test_traffic_alone_is_written_once_in_ten_seconds(self, seconds: int, more_votes: int, samples: int) -> None:
        def counts(wins: int, count: int) -> AbTestTally:
            arms = ArmTallies(baseline=ArmTally(samples=count), candidate=ArmTally(samples=20))
            return AbTestTally(votes=VoteCounts(fine_tuned=wins), arms=arms)

        first = make_test(status=RUNNING)
        second = after(first, decide(first, world(counts(3, 80))))
        later = NOON + timedelta(seconds=seconds)
        status = status_of(reconcile(second, world(counts(3 + more_votes, 95)), later, CONFIG))
        assert status.arms is not None
        assert status.arms.baseline.samples == samples

    def test_while_the_api_is_away_the_last_counts_stay(self) -> None:
        test = make_test(status=RUNNING)
        counted = after(test, decide(test, world(tally(12, 5, 3))))
        assert decide(counted, world(None)).status == counted.status.to_dict()

    def test_evidence_once_seen_stays(self) -> None:
        test = make_test({"decision": {"minVotes": 1000}}, status=RUNNING)
        strong = after(test, decide(test, world(tally(30, 5))))
        weaker = status_of(decide(strong, world(tally(31, 15))))
        assert weaker.p_value == strong.status.p_value

    def test_but_not_for_the_other_arm(self) -> None:
        """A strong start of one arm must not make the other one win later."""
        test = make_test({"decision": {"minVotes": 40}}, status=RUNNING)
        strong = after(test, decide(test, world(tally(30, 5))))
        for later in (tally(30, 30), tally(30, 31)):
            status = status_of(decide(strong, world(later)))
            assert (status.verdict, status.p_value) == (None, "1")

    def test_nor_where_votes_were_taken_back(self) -> None:
        """Of votes that a release counts by a better rule, or that somebody deletes."""
        test = make_test({"decision": {"minVotes": 1000}}, status=RUNNING)
        strong = after(test, decide(test, world(tally(30, 5))))
        fewer = status_of(decide(strong, world(tally(12, 5))))
        assert fewer.p_value is not None
        assert float(fewer.p_value) == pytest.approx(p_value(VoteCounts(fine_tuned=12, base=5)), rel=0.01)

    def test_nor_where_a_look_was_at_votes_that_were_taken_back(self) -> None:
        """It had waited for the weighted score."""
        spec = {"decision": {"minEffect": "0.1", "weights": WEIGHTS}}
        waiting = after(make_test(spec, status=RUNNING), decide(make_test(spec, status=RUNNING), world(tally(80, 20))))
        assert waiting.status.looks
        assert waiting.status.looks[-1].is_significant
        status = status_of(decide(waiting, world(traffic((11, 10, 0), answers(latency_ms=10)))))
        assert (status.verdict, status.looks) == (None, None)

    def test_nor_where_other_votes_took_their_place(self) -> None:
        test = make_test({"decision": {"minVotes": 1000}}, status=RUNNING)
        strong = after(test, decide(test, world(tally(30, 5))))
        as_many = status_of(decide(strong, world(tally(25, 10))))
        assert float(as_many.p_value or 0) == pytest.approx(p_value(VoteCounts(fine_tuned=25, base=10)), rel=0.01)

    def test_the_estimate_knows_the_least_number_of_votes(self) -> None:
        test = make_test({"decision": {"minVotes": 100}}, status=RUNNING)
        assert status_of(decide(test, world(tally(30, 5)))).votes_still_needed == 65


class TestVotes:
    def test_who_calls_both_bad_is_counted_among_the_ties_and_apart(self) -> None:
        seen = world(AbTestTally(votes=VoteCounts(fine_tuned=1, tie=3, both_bad=2)))
        votes = status_of(decide(make_test(status=RUNNING), seen)).votes
        assert votes is not None
        assert (votes.tie, votes.both_bad, votes.total, votes.win_rate) == (3, 2, 4, "0.625")

    def test_without_decisive_votes_nothing_is_said_of_preference(self) -> None:
        votes = status_of(decide(make_test(status=RUNNING), world(tally(0, 0, 9)))).votes
        assert votes is not None
        assert (votes.both_bad, votes.preference_lower, votes.preference_upper) == (None, None, None)

    def test_a_stricter_alpha_widens_the_interval(self) -> None:
        votes = [
            status_of(decide(make_test({"decision": {"alpha": alpha}}, status=RUNNING), world(tally(20, 10)))).votes
            for alpha in ("0.05", "0.01")
        ]
        bounds = [(float(v.preference_lower or 1), float(v.preference_upper or 0)) for v in votes if v]
        assert bounds[1][0] < bounds[0][0] < bounds[0][1] < bounds[1][1]

    def test_the_win_rate_over_time_stays_bounded(self) -> None:
        """Also where a later api tells more points than this operator may write."""
        points = tuple(
            WinRatePoint(time=NOON + timedelta(seconds=n), votes=VoteCounts(fine_tuned=n, tie=1)) for n in range(60)
        )
        found = status_of(decide(make_test(status=RUNNING), world(AbTestTally(win_rates=points)))).win_rates
        assert found is not None
        assert len(found) == WIN_RATES_MAX_POINTS
        assert found[-1].to_dict() == {"time": "2026-01-01T12:00:59Z", "votes": 60, "winRate": "0.9917"}


def cast(all_votes: tuple[int, int, int], heaviest: tuple[int, int, int]) -> AbTestTally:
    """Votes for candidate, baseline and neither, and how many of them were cast by one person."""
    voters = VotersTally(evaluators=4, heaviest=tally(*heaviest).votes, agreement=0.75)
    return AbTestTally(votes=tally(*all_votes).votes, voters=voters)


FRAIL: dict[str, tuple[AbTestTally, str | None]] = {
    "it survives": (cast((60, 20, 5), (10, 5, 0)), None),
    "not significant": (
        cast((40, 10, 0), (30, 0, 0)),
        "without the 30 votes of its heaviest voter neither would lead",
    ),
    "the other way round": (
        cast((40, 10, 0), (35, 0, 0)),
        "without the 35 votes of its heaviest voter plato-v1 would lead",
    ),
    "too few votes": (cast((24, 4, 0), (10, 1, 0)), "without the 11 votes of its heaviest voter p would be 0.211"),
    "a single voter": (cast((40, 10, 0), (40, 10, 0)), "without the 50 votes of its heaviest voter neither would lead"),
}


class TestVoters:
    def test_what_is_told_of_them(self) -> None:
        status = status_of(decide(make_test(status=RUNNING), world(cast((12, 5, 3), (7, 1, 0)))))
        assert status.voters is not None
        assert status.voters.to_dict() == {
            "evaluators": 4,
            "heaviestVotes": 8,
            "leaderWithoutHeaviest": "plato-v2",
            "pValueWithoutHeaviest": "1",
            "agreement": "0.75",
        }

    def test_an_older_api_does_not_tell(self) -> None:
        assert status_of(decide(make_test(status=RUNNING), world(tally(12, 5, 3)))).voters is None

    def test_a_voter_who_was_counted_a_moment_later_leaves_no_fewer_than_no_votes(self) -> None:
        status = status_of(decide(make_test(status=RUNNING), world(cast((5, 1, 0), (7, 1, 0)))))
        assert status.voters is not None
        assert (status.voters.leader_without_heaviest, status.voters.p_value_without_heaviest) == (None, "1")

    @pytest.mark.parametrize(("seen", "remark"), FRAIL.values(), ids=FRAIL.keys())
    def test_a_verdict_tells_where_it_hangs_on_one_person(self, seen: AbTestTally, remark: str | None) -> None:
        status = status_of(decide(make_test(status=RUNNING), world(seen)))
        assert status.verdict is Verdict.WON
        assert ("heaviest voter" in (status.message or "")) is (remark is not None)
        assert (remark or "is preferred") in (status.message or "")

    def test_it_is_the_methods_own_p_value(self) -> None:
        test = make_test({"decision": {"method": "ChiSquared", "maxVotes": 50}}, status=RUNNING)
        status = status_of(decide(test, world(cast((40, 10, 0), (10, 0, 0)))))
        assert status.voters is not None
        assert status.voters.p_value_without_heaviest == "0.00267"
        assert "heaviest voter" not in (status.message or "")


def subjects(baseline: int, candidate: int, votes: AbTestTally | None = None, percent: int = 50) -> AbTestTally:
    """So many subjects were split, and these votes cast."""
    split = SplitTally(candidate_percent=percent, baseline=baseline, candidate=candidate)
    return (votes or tally()).model_copy(update={"splits": (split,)})


class TestSampleRatio:
    @pytest.mark.parametrize(
        ("seen", "status", "reason"),
        [
            (None, "Unknown", "NoSubjects"),
            (tally(3, 1), "Unknown", "NoSubjects"),
            (subjects(520, 480), "True", "AsSplit"),
            (subjects(5000, 4500), "False", "SampleRatioMismatch"),
        ],
        ids=["no api", "nobody", "as split", "mismatch"],
    )
    def test_the_condition(self, seen: AbTestTally | None, status: str, reason: str) -> None:
        found = find(status_of(decide(make_test(status=RUNNING), world(seen))).conditions, "SampleRatioMatches")
        assert found is not None
        assert (found.status.value, found.reason) == (status, reason)

    def test_a_mismatch_is_told_once_and_everywhere(self) -> None:
        test, seen = make_test(status=RUNNING), world(subjects(5000, 4500))
        plan = decide(test, seen)
        status = status_of(plan)
        assert status.arms is not None
        assert (status.arms.baseline.subjects, status.arms.candidate.subjects) == (5000, 4500)
        fact = "5000 subjects of plato-v1 and 4500 of plato-v2 are not split as traffic.candidatePercent says"
        assert fact in (status.message or "")
        assert [(event.type, event.reason) for event in plan.events if fact in event.message] == [
            ("Warning", "SampleRatioMismatch")
        ]
        assert decide(after(test, plan), seen).events == ()

    def test_votes_alone_decide_all_the_same(self) -> None:
        """They are of pairs of answers, not of traffic."""
        seen = world(subjects(5000, 4500, tally(40, 10, 5)))
        assert status_of(decide(make_test(status=RUNNING), seen)).verdict is Verdict.WON

    @pytest.mark.parametrize(("candidate", "verdict"), [(4500, None), (4950, Verdict.WON)])
    def test_weights_do_not_decide_by_the_latency_of_other_people(
        self, candidate: int, verdict: Verdict | None
    ) -> None:
        test = make_test({"decision": {"weights": WEIGHTS}}, status=RUNNING)
        status = status_of(decide(test, world(subjects(5000, candidate, traffic(CLEAR, answers())))))
        assert status.verdict is verdict
        assert "the weighted score prefers" not in (status.message or "")
