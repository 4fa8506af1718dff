"""What the API server's refusals mean to a caller of the REST interface, and what to do about them."""

import math
import re

from finetune_operator.kube.errors import KubeError
from finetune_operator.web.identity import Right
from finetune_operator.web.problems import RETRY_AFTER_SECONDS, Problem

LOGIN_REMEDY = "`kubectl create token <serviceaccount> -n <namespace>` prints one"
ROLES_REMEDY = "the ClusterRole `view` is enough to read, `edit` to change, bound to it by a RoleBinding in {namespace}"

TO_PROGRAMS, TO_PEOPLE = " as `Authorization: Bearer <token>`", ", with which you log in"
"""How a token is shown."""
RBAC_PATTERN = re.compile(r"cannot \S+ resource")
"""Other 403s are of admission, a quota or a namespace that ends, which no role helps against."""


def unauthorized() -> Problem:
    """Nobody that anybody knows."""
    detail = (
        "send `Authorization: Bearer <token>` with the api's FINETUNE_API_TOKEN, an API key, or a Kubernetes token: "
        f"{LOGIN_REMEDY}"
    )
    return Problem(401, "unauthorized", detail)


def token_needed(namespace: str | None) -> Problem:
    """The api has no rights to lend: whoever changes something does so in their own name."""
    where = f"namespace {namespace}" if namespace else "the namespace"
    detail = (
        f"this needs a Kubernetes token of your own{TO_PROGRAMS}: "
        f"{LOGIN_REMEDY}; {ROLES_REMEDY.format(namespace=where)}"
    )
    return Problem(403, "kubernetes-token-needed", detail)


def to_people(detail: str) -> str:
    """What REST says of a refusal, as a page says it."""
    return detail.replace(TO_PROGRAMS, TO_PEOPLE)


def forbidden(right: Right, namespace: str | None, reason: str) -> Problem:
    """RBAC says no to what is in the database."""
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    said = f" ({reason})" if reason else ""
    return Problem(
        403, "forbidden", f"this needs {right} {where}{said}; have it granted by a Role or ClusterRole there"
    )


def refused(error: KubeError, namespace: str | None, *, own_token: bool) -> Problem:
    """Any answer of the API server that is no object; `own_token` says that it was the caller's own."""
    match error.status:
        case 401 if own_token:
            return unauthorized()
        case 403 if own_token:
            if not RBAC_PATTERN.search(str(error)):
                return Problem(403, "forbidden", str(error))
            where = f"namespace {namespace}" if namespace else "the namespace"
            return Problem(403, "forbidden", f"{error}; {ROLES_REMEDY.format(namespace=where)}")
        case 403:
            return token_needed(namespace)
        case 404:
            return Problem(404, "not-found", str(error))
        case 409:
            return Problem(409, "conflict", f"{error}; look at it again")
        case 410:
            return Problem(410, "too-old", f"{error}; begin anew")
        case 400 | 422:
            return Problem(422, "invalid-request", str(error))
    retry_after = max(RETRY_AFTER_SECONDS, math.ceil(error.retry_after_seconds or 0))
    detail = "the Kubernetes API did not answer; try again"
    return Problem(503, "cluster-unavailable", detail, retry_after_seconds=retry_after)
