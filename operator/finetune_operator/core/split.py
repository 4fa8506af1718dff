"""Which arm of a running ABTest answers a subject.

A subject's point on the circle depends on the test alone, so that a subject keeps its arm for the life of the test,
raising the share moves subjects only towards the candidate, and two tests split the same people independently.
"""

import hashlib

from finetune_operator.resources.abtest import Arm

POINT_BYTES = 8
POINTS = 1 << (8 * POINT_BYTES)


def assign(salt: str, subject: str, candidate_percent: int) -> Arm:
    """The candidate for exactly `candidate_percent` of all points; integers, so that no rounding moves the border."""
    return Arm.CANDIDATE if point(salt, subject) * 100 < candidate_percent * POINTS else Arm.BASELINE


def is_shadowed(salt: str, subject: str, candidate_percent: int, shadow_percent: int) -> bool:
    """Of the baseline's subjects exactly `shadow_percent`: those whom the candidate would get next."""
    share_in_ten_thousandths = 100 * candidate_percent + (100 - candidate_percent) * shadow_percent
    is_of_baseline = assign(salt, subject, candidate_percent) is Arm.BASELINE
    return is_of_baseline and point(salt, subject) * 10_000 < share_in_ten_thousandths * POINTS


def is_judged(salt: str, request_id: str, pair_percent: int) -> bool:
    """Of the copied requests exactly `pair_percent`, whoever sent them."""
    return point(salt, request_id) * 100 < pair_percent * POINTS


def pseudonym(salt: str, subject: str) -> str:
    """Stands for a subject within one test: 16 hexadecimal digits."""
    return f"{point(salt, subject):0{2 * POINT_BYTES}x}"


def point(salt: str, subject: str) -> int:
    """Uniform in [0, POINTS); the separator can't be part of a uid, so no two (salt, subject) share their input."""
    digest = hashlib.sha256(f"{salt}\0{subject}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:POINT_BYTES], "big")
