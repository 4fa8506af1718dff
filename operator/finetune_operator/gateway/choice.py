"""From the name that a client asked for to the one model that may answer."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from finetune_operator.core.routing import Answerer, Pairing, RouteTable, Split
from finetune_operator.core.split import pseudonym
from finetune_operator.core.vouched_callers import CALLER_HEADER, vouched_caller
from finetune_operator.gateway.errors import (
    ambiguous_model,
    invalid_arm,
    invalid_token,
    no_kubernetes_token,
    unknown_model,
)
from finetune_operator.resources.abtest import Arm

SUBJECT_HEADER = "x-finetune-subject"
ARM_HEADER = "x-finetune-arm"
"""In a request: which arm shall answer. In an answer: which one did."""


@dataclass(frozen=True)
class Choice:
    """Who shall answer and, while an ABTest splits the name, for which arm.

    The test is to know of it only where it has chosen the arm itself: who asks for one is no random subject.
    """

    answerer: Answerer
    arm: Arm | None = None
    test_uid: str | None = None
    shadow: Answerer | None = None
    """Who gets a copy of the request once it has been answered."""
    subject: str | None = None
    """A pseudonym within this test."""
    candidate_percent: int | None = None
    pairing: Pairing | None = None
    """Whether people may be shown what it was asked, and both answers."""

    @property
    def served_name(self) -> str | None:
        return self.answerer.served_name


def choose(table: RouteTable, name: str, subject: str, asked_arm: str | None = None, *, splits: bool = True) -> Choice:
    """Raises `GatewayError` for a name that has no meaning (404) or more than one (409), or not such an arm (400).

    Where nothing is to be split, the baseline answers everybody, and the test is not told.
    """
    routes = table.routes_of(name)
    if not routes:
        raise unknown_model(name, (table.public_name(route) for route in table.routes))
    if len(routes) > 1:
        raise ambiguous_model(name, routes)
    match routes[0].destination:
        case Split() as split if asked_arm is None and not splits:
            return Choice(split.baseline, Arm.BASELINE)
        case Split() as split if asked_arm is None:
            arm = split.arm_of(subject)
            stands_for, percent = pseudonym(split.test_uid, subject), split.candidate_percent
            shadow = split.candidate if split.is_shadowed(subject) else None
            pairing = split.pairing if shadow else None
            return Choice(split.answerer(arm), arm, split.test_uid, shadow, stands_for, percent, pairing)
        case Split() as split if asked_arm in set(Arm):
            arm = Arm(asked_arm)
            return Choice(split.answerer(arm), arm)
        case Split():
            raise invalid_arm(f"{ARM_HEADER} is {' or '.join(Arm)}, not {asked_arm!r}")
        case _ if asked_arm is not None:
            raise invalid_arm(f"no ABTest splits the traffic of `{name}`: leave {ARM_HEADER} out")
        case destination:
            return Choice(destination)


def subject_of(headers: Mapping[str, str], in_body: str | None, asker: str | None, address: str | None) -> str:
    """Who asks, as far as is known: said in the header, said in the body, `asker_of`, or the address."""
    return headers.get(SUBJECT_HEADER) or in_body or asker or address or ""


def asker_of(headers: Mapping[str, str], tokens: tuple[str, ...], key: str) -> str | None:
    """Who asks with a good token: the caller that the api vouches for by `key`, else the token itself, None for nobody
    in particular; raises `GatewayError` (401).
    """
    token = authorize(headers, tokens)
    return vouched_caller(headers.get(CALLER_HEADER, ""), key) or token


def authorize(headers: Mapping[str, str], tokens: tuple[str, ...]) -> str | None:
    """The token that the client showed, None for an open gateway; raises `GatewayError` (401)."""
    if not tokens:
        return None
    shown = _bearer_token(headers)
    given = shown.encode("utf-8", "surrogateescape")
    # All are compared, so that the time taken does not tell which one was close.
    matches = [hmac.compare_digest(given, token.encode()) for token in tokens]
    if not any(matches):
        raise invalid_token()
    return shown


def kubernetes_token(headers: Mapping[str, str]) -> str:
    """A token that only the API server can judge; raises `GatewayError` (401) where there is none to show it."""
    shown = _bearer_token(headers)
    if not shown or not shown.isascii():
        raise no_kubernetes_token()
    return shown


def _bearer_token(headers: Mapping[str, str]) -> str:
    """What the client showed, empty where it showed nothing."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""
