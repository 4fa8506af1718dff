"""ABTests that the CRD takes, those that it refuses, and what may change of them."""

from tests.cluster.schema_cases.case import JOB_NAME_TOO_LONG, Creation, Spec, Update, immutable_fields

ACCEPTED = [
    Creation("two versions compared", "ABTest"),
    Creation("the base model as baseline", "ABTest", {"baseline": {"modelVersion": None, "base": True}}),
    Creation("no traffic", "ABTest", {"traffic": {"candidatePercent": 0}}),
    Creation("all traffic", "ABTest", {"traffic": {"candidatePercent": 100}}),
    Creation("copies beside a split", "ABTest", {"traffic": {"candidatePercent": 20, "shadowPercent": 100}}),
    Creation("copies alone", "ABTest", {"traffic": {"shadowPercent": 10}}),
    Creation("copies that people judge", "ABTest", {"traffic": {"shadowPercent": 10, "pairPercent": 100}}),
    Creation("copies that nobody judges", "ABTest", {"traffic": {"candidatePercent": 20, "pairPercent": 0}}),
    Creation(
        "copies of what the base model answers beside a split",
        "ABTest",
        {"traffic": {"candidatePercent": 1, "shadowPercent": 10}, "baseline": {"modelVersion": None, "base": True}},
    ),
    Creation("as many votes at least as at most", "ABTest", {"decision": {"minVotes": 5, "maxVotes": 5}}),
    Creation("a test of a fixed size", "ABTest", {"decision": {"method": "ChiSquared", "maxVotes": 100}}),
    Creation("weights", "ABTest", {"decision": {"weights": {"accuracy": 60, "latency": 20, "cost": 20}}}),
    Creation("a single weight", "ABTest", {"decision": {"weights": {"accuracy": 100, "latency": 0, "cost": 0}}}),
    Creation("the usual weights", "ABTest", {"decision": {"weights": {}}}),
    Creation("feedback that decides", "ABTest", {"decision": {"weights": {"accuracyFrom": "Ratings"}}}),
    Creation("a minimum effect", "ABTest", {"decision": {"minEffect": "0.1"}}),
    Creation("a minimum effect at a small alpha", "ABTest", {"decision": {"minEffect": "0.1", "alpha": "0.001"}}),
    Creation("a tiny alpha without a minimum effect", "ABTest", {"decision": {"alpha": "0.0000000001"}}),
    Creation("a minimum effect and most votes", "ABTest", {"decision": {"minEffect": "0.05", "maxVotes": 900}}),
    Creation(
        "many votes at least for a minimum effect", "ABTest", {"decision": {"minEffect": "0.1", "minVotes": 3000}}
    ),
    Creation("as many votes at least as a test takes", "ABTest", {"decision": {"minVotes": 2000}}),
    Creation("limits of samples", "ABTest", {"decision": {"minSamplesPerArm": 5, "maxSamplesPerArm": 5}}),
    Creation("guardrails", "ABTest", {"guardrails": {"maxErrorRate": "0.02", "maxLatencyRatio": "1.5"}}),
    Creation("no more errors than the baseline", "ABTest", {"guardrails": {"noMoreErrors": True}}),
    Creation("one guardrail", "ABTest", {"guardrails": {"maxLatencyRatio": "0.75"}}),
    Creation("a rollback to a version", "ABTest", {"onLoss": "Rollback"}),
]

REFUSED = [
    Creation(
        "no baseline", "ABTest", {"baseline": {"modelVersion": None}}, refused="exactly one of base, modelVersion"
    ),
    Creation("two baselines", "ABTest", {"baseline": {"base": True}}, refused="set exactly one of base, modelVersion"),
    Creation(
        "a false base",
        "ABTest",
        {"baseline": {"modelVersion": None, "base": False}},
        refused="base can only be true; otherwise name a modelVersion",
    ),
    Creation(
        "a version against itself",
        "ABTest",
        {"candidate": {"modelVersion": "plato-v1"}},
        refused="baseline and candidate must be different versions",
    ),
    Creation(
        "a candidate of another model",
        "ABTest",
        {"candidate": {"modelVersion": "kant-v1"}},
        refused="candidate must be a version of spec.model",
    ),
    Creation(
        "a baseline of another model",
        "ABTest",
        {"baseline": {"modelVersion": "kant-v1"}},
        refused="baseline must be a version of spec.model",
    ),
    Creation("less than no traffic", "ABTest", {"traffic": {"candidatePercent": -1}}, refused="or equal to 0"),
    Creation("more than all traffic", "ABTest", {"traffic": {"candidatePercent": 101}}, refused="or equal to 100"),
    Creation("more copies than requests", "ABTest", {"traffic": {"shadowPercent": 101}}, refused="or equal to 100"),
    Creation(
        "more judged than copied",
        "ABTest",
        {"traffic": {"shadowPercent": 10, "pairPercent": 101}},
        refused="or equal to 100",
    ),
    Creation(
        "judged without being copied",
        "ABTest",
        {"traffic": {"candidatePercent": 20, "pairPercent": 10}},
        refused="pairPercent is of the copied requests: raise shadowPercent, too",
    ),
    Creation(
        "less than none judged",
        "ABTest",
        {"traffic": {"shadowPercent": 10, "pairPercent": -1}},
        refused="or equal to 0",
    ),
    Creation("less than no copies", "ABTest", {"traffic": {"shadowPercent": -1}}, refused="or equal to 0"),
    Creation(
        "copies alone of what the base model answers",
        "ABTest",
        {"traffic": {"shadowPercent": 10}, "baseline": {"modelVersion": None, "base": True}},
        refused="shadowPercent alone copies what the active version answers: "
        "name it in baseline.modelVersion, or raise candidatePercent",
    ),
    Creation(
        "more votes at least than at most",
        "ABTest",
        {"decision": {"minVotes": 11, "maxVotes": 10}},
        refused="minVotes must not be larger than maxVotes",
    ),
    Creation(
        "more votes at least than a test takes",
        "ABTest",
        {"decision": {"minVotes": 2001}},
        refused="without maxVotes the test ends at 2000 votes: set maxVotes, or lower minVotes",
    ),
    Creation(
        "a minimum effect for a single look",
        "ABTest",
        {"decision": {"method": "ChiSquared", "minEffect": "0.1"}},
        refused="minEffect needs method AlwaysValid: ChiSquared looks once, at maxVotes",
    ),
    Creation(
        "feedback that decides without weight",
        "ABTest",
        {"decision": {"weights": {"accuracy": 0, "latency": 50, "cost": 50, "accuracyFrom": "Ratings"}}},
        refused="without accuracy no feedback decides: raise weights.accuracy, or leave weights.accuracyFrom out",
    ),
    Creation(
        "feedback that decides in a single look at votes",
        "ABTest",
        {"decision": {"method": "ChiSquared", "weights": {"accuracyFrom": "References"}}},
        refused="weights.accuracyFrom other than Votes lets feedback decide, not votes: leave method and minEffect out",
    ),
    Creation(
        "a minimum effect at a tiny alpha",
        "ABTest",
        {"decision": {"minEffect": "0.1", "alpha": "0.00099"}},
        refused="minEffect needs an alpha of at least 0.001: raise alpha, or leave minEffect out",
    ),
    Creation("no minimum effect", "ABTest", {"decision": {"minEffect": "0.00"}}, refused="minEffect in body should"),
    Creation("a tiny effect", "ABTest", {"decision": {"minEffect": "0.009"}}, refused="minEffect in body should"),
    Creation("half as an effect", "ABTest", {"decision": {"minEffect": "0.5"}}, refused="minEffect in body should"),
    Creation("an effect as a number", "ABTest", {"decision": {"minEffect": 0.1}}, refused="must be of type string"),
    Creation("an alpha of 0", "ABTest", {"decision": {"alpha": "0.00"}}, refused="alpha in body should match"),
    Creation("an alpha of 1", "ABTest", {"decision": {"alpha": "1.0"}}, refused="alpha in body should match"),
    Creation("an alpha as a number", "ABTest", {"decision": {"alpha": 0.05}}, refused="must be of type string"),
    Creation("an unknown consequence", "ABTest", {"onWin": "Delete"}, refused="supported values"),
    Creation("an unknown consequence of a loss", "ABTest", {"onLoss": "Delete"}, refused="supported values"),
    Creation(
        "a rollback to a base model",
        "ABTest",
        {"onLoss": "Rollback", "baseline": {"modelVersion": None, "base": True}},
        refused="onLoss Rollback needs baseline.modelVersion: name a version to go back to, or set onLoss to Keep",
    ),
    Creation("an unknown statistic", "ABTest", {"decision": {"method": "Feeling"}}, refused="supported values"),
    Creation(
        "weights of 90 percent",
        "ABTest",
        {"decision": {"weights": {"accuracy": 60, "latency": 20, "cost": 10}}},
        refused="weights must sum to 100 (those left out",
    ),
    Creation(
        "one weight beside the usual others",
        "ABTest",
        {"decision": {"weights": {"accuracy": 100}}},
        refused="weights must sum to 100 (those left out are accuracy 60, latency 20, cost 20): change them",
    ),
    Creation(
        "a negative weight",
        "ABTest",
        {"decision": {"weights": {"accuracy": 120, "latency": -20}}},
        refused="greater than or equal to 0",
    ),
    Creation(
        "more samples at least than at most",
        "ABTest",
        {"decision": {"minSamplesPerArm": 31, "maxSamplesPerArm": 30}},
        refused="minSamplesPerArm must not be larger than maxSamplesPerArm",
    ),
    Creation("no samples", "ABTest", {"decision": {"minSamplesPerArm": 0}}, refused="greater than or equal to 1"),
    Creation("no errors ever", "ABTest", {"guardrails": {"maxErrorRate": "0"}}, refused="maxErrorRate in body should"),
    Creation("only errors", "ABTest", {"guardrails": {"maxErrorRate": "1.0"}}, refused="maxErrorRate in body should"),
    Creation("no latency", "ABTest", {"guardrails": {"maxLatencyRatio": "0.0"}}, refused="maxLatencyRatio in body"),
    Creation("a test with a name of 53 characters", "ABTest", name="a" * 53, refused=JOB_NAME_TOO_LONG),
]

# One change of each field that keeps its value.
CHANGED: Spec = {
    "model": "kant",
    "baseline": {"modelVersion": "plato-v3"},
    "candidate": {"modelVersion": "plato-v3"},
    "decision": {"alpha": "0.2"},
    "guardrails": {"maxErrorRate": "0.5"},
}

CANCELLED = "a cancelled test can't be taken up again: create a new one"

UPDATES = [
    *immutable_fields("ABTest", CHANGED),
    Update("a test is cancelled", "ABTest", {"cancel": True}),
    Update("a cancelled test gets prompts", "ABTest", {"prompts": ["What is virtue?"]}, {"cancel": True}),
    Update("a cancelled test is taken up", "ABTest", {"cancel": False}, {"cancel": True}, CANCELLED),
    Update("a cancelled test forgets it", "ABTest", {"cancel": None}, {"cancel": True}, CANCELLED),
    Update("a test's share grows", "ABTest", {"traffic": {"candidatePercent": 50}}),
    Update("a test's copies end with its split", "ABTest", {"traffic": {"candidatePercent": 50, "shadowPercent": 0}}),
    Update("a test's copies are judged", "ABTest", {"traffic": {"shadowPercent": 5, "pairPercent": 50}}),
    Update("a test gets prompts", "ABTest", {"prompts": ["What is virtue?"]}),
    Update("a test's win only notifies", "ABTest", {"onWin": "Notify"}),
    Update("a running test's loss rolls back", "ABTest", {"onLoss": "Rollback"}, status={"phase": "Running"}),
    Update("a lost test's prompts change", "ABTest", {"prompts": ["What is virtue?"]}, status={"verdict": "Lost"}),
    Update(
        "a lost test's loss rolls back",
        "ABTest",
        {"onLoss": "Rollback"},
        refused="onWin and onLoss are immutable once the test has its verdict: "
        "set the spec.state of a ModelVersion instead",
        status={"verdict": "Lost"},
    ),
    Update(
        "a won test's win only notifies", "ABTest", {"onWin": "Notify"}, {}, "onWin and onLoss are", {"verdict": "Won"}
    ),
    Update(
        "a test's guardrails go",
        "ABTest",
        {"guardrails": None},
        {"guardrails": {"maxErrorRate": "0.5"}},
        "guardrails is immutable",
    ),
]
