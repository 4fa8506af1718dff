"""ModelVersions that the CRD takes, those that it refuses, and what may change of them."""

from typing import Any

from tests.cluster.samples import OTHER_DIGEST, base_model
from tests.cluster.schema_cases.case import Creation, Spec, Update, immutable_fields
from tests.cluster.schema_cases.provider import ARTIFACT

THIRD_DIGEST = "sha256:" + "3" * 64
MERGED: Spec = {"artifact": {"mergedDigest": OTHER_DIGEST}, "serving": {"mergedWeights": True}}
NO_MERGED_WEIGHTS = (
    "serving.mergedWeights needs artifact.mergedDigest, which is set where the FineTuneJob's outputs have "
    "MergedWeights: ask a new FineTuneJob for that output, or remove serving.mergedWeights"
)
FROZEN_ARTIFACT = (
    "artifact is immutable, but for a mergedDigest or mergedSizeBytes that it lacks: create a new resource instead"
)
VERSION_NAME = "metadata.name must be <spec.model>-v<spec.version>"


def artifact(**changes: Any) -> Spec:
    return {"artifact": changes}


ACCEPTED = [
    Creation("a pinned version that is to be served later", "ModelVersion", {"state": "Deployed", "serving": None}),
    Creation("a promoted version that is to be served later", "ModelVersion", {"promotion": "Always", "serving": None}),
    Creation("a version that is served", "ModelVersion"),
    Creation("a version that is only registered", "ModelVersion", {"serving": None}),
    Creation("a version with a high number", "ModelVersion", name="plato-v999999"),
    Creation("a version of a model with a hyphen and a v", "ModelVersion", name="plato-v2-v7"),
    Creation("an archived version", "ModelVersion", {"state": "Archived"}, name="plato-v3"),
    Creation("a version by its merged weights", "ModelVersion", MERGED),
    Creation("an adapter that was also merged", "ModelVersion", artifact(mergedDigest=OTHER_DIGEST)),
    Creation("an adapter by name", "ModelVersion", {"serving": {"mergedWeights": False}}),
]

REFUSED = [
    Creation("an adapter without a digest", "ModelVersion", {"artifact": {"digest": None}}, refused=ARTIFACT),
    Creation("an adapter with a URL", "ModelVersion", artifact(baseUrl="https://x/v1"), refused=ARTIFACT),
    Creation("another number in the name", "ModelVersion", {"version": 2}, refused=VERSION_NAME),
    Creation("another model in the name", "ModelVersion", {"model": "kant"}, refused=VERSION_NAME),
    Creation("a name with a leading zero", "ModelVersion", name="plato-v01", refused=VERSION_NAME),
    Creation("version 0", "ModelVersion", name="plato-v0", refused="greater than or equal to 1"),
    Creation(
        "merged weights that nobody made",
        "ModelVersion",
        {"serving": {"mergedWeights": True}},
        refused=NO_MERGED_WEIGHTS,
    ),
    Creation(
        "a short digest of merged weights",
        "ModelVersion",
        artifact(mergedDigest="sha256:abc"),
        refused="mergedDigest in body should match",
    ),
    Creation("less than no bytes", "ModelVersion", {"artifact": {"sizeBytes": -1}}, refused="or equal to 0"),
    Creation("a short digest", "ModelVersion", artifact(digest="sha256:abc"), refused="digest in body should match"),
    Creation("a digest in capitals", "ModelVersion", artifact(digest="sha256:" + "A" * 64), refused="should match"),
    Creation("an adapter from the web", "ModelVersion", artifact(uri="https://x/y"), refused="uri in body should"),
    Creation("an adapter outside", "ModelVersion", artifact(uri="volume://artifacts/../x"), refused="uri in body"),
    Creation("an adapter without a path", "ModelVersion", artifact(uri="volume://artifacts"), refused="uri in body"),
    Creation("an unknown state", "ModelVersion", {"state": "Gone"}, refused="supported values"),
    Creation(
        "no time to become ready",
        "ModelVersion",
        {"serving": {"progressDeadlineSeconds": 0}},
        refused="greater than or equal to 1",
    ),
    Creation("no replicas", "ModelVersion", {"serving": {"replicas": 0}}, refused="greater than or equal to 1"),
    Creation(
        "more than all GPU memory",
        "ModelVersion",
        {"serving": {"gpuMemoryUtilization": "1.1"}},
        refused="gpuMemoryUtilization in body should match",
    ),
]

# One change of each field that keeps its value.
CHANGED: Spec = {
    "model": "kant",
    "version": 9,
    "baseModel": base_model("other"),
    "lineage": {"fineTuneJob": "somebody-else"},
}

UPDATES = [
    *immutable_fields("ModelVersion", CHANGED),
    *(
        Update(f"an artifact changes: {title}", "ModelVersion", artifact(**change), known, refused=FROZEN_ARTIFACT)
        for title, change, known in (
            ("another digest", {"digest": OTHER_DIGEST}, {}),
            ("another place", {"uri": "volume://artifacts/elsewhere/adapter"}, {}),
            ("a size", {"sizeBytes": 5}, {}),
            ("another size", {"sizeBytes": 5}, artifact(sizeBytes=4)),
            ("no size any more", {"sizeBytes": None}, artifact(sizeBytes=4)),
            ("other merged weights", {"mergedDigest": THIRD_DIGEST}, artifact(mergedDigest=OTHER_DIGEST)),
            ("no merged weights any more", {"mergedDigest": None}, artifact(mergedDigest=OTHER_DIGEST)),
            ("another size of merged weights", {"mergedSizeBytes": 5}, artifact(mergedSizeBytes=4)),
            ("no size of merged weights any more", {"mergedSizeBytes": None}, artifact(mergedSizeBytes=4)),
            ("another digest beside merged weights", {"digest": OTHER_DIGEST, "mergedDigest": OTHER_DIGEST}, {}),
        )
    ),
    Update("merged weights become known", "ModelVersion", artifact(mergedDigest=OTHER_DIGEST)),
    Update(
        "merged weights become known with their size",
        "ModelVersion",
        artifact(mergedDigest=OTHER_DIGEST, mergedSizeBytes=4),
    ),
    Update("merged weights become known and are served at once", "ModelVersion", MERGED),
    Update(
        "a version moves to its merged weights",
        "ModelVersion",
        {"serving": {"mergedWeights": True}},
        artifact(mergedDigest=OTHER_DIGEST),
    ),
    Update("a version moves back to its adapter", "ModelVersion", {"serving": {"mergedWeights": False}}, MERGED),
    Update(
        "a version without them asks for merged weights",
        "ModelVersion",
        {"serving": {"mergedWeights": True}},
        refused=NO_MERGED_WEIGHTS,
    ),
    Update("a version is deployed", "ModelVersion", {"state": "Deployed"}),
    Update("a version is archived", "ModelVersion", {"state": "Archived"}, {"state": "Deployed"}),
    Update("a version gets notes", "ModelVersion", {"notes": "the good one"}),
    Update("a version is scaled", "ModelVersion", {"serving": {"replicas": 3}}),
    Update("a version's engine gets more time", "ModelVersion", {"serving": {"progressDeadlineSeconds": 3600}}),
]
