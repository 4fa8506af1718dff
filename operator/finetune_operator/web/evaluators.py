"""Who judges: one person is one evaluator, wherever it is known who asks."""

import hashlib

from pydantic import TypeAdapter, ValidationError

from finetune_operator.web.auth import Caller
from finetune_operator.web.problems import Problem
from finetune_operator.web.schemas import Evaluator

_NAME: TypeAdapter[str] = TypeAdapter(Evaluator)


def evaluator_of(caller: Caller, said: str | None) -> str:
    """A Kubernetes user judges as that user; all others are known by the name that they give. Raises problems."""
    if caller.token is None:
        if said is None:
            raise Problem(422, "invalid-request", "body.evaluator: say who judges, always the same for the same person")
        return said
    own = _written(caller.name)
    if said not in (None, own, caller.name):
        detail = f"evaluator: your token is of {own}, and nobody votes as somebody else: leave it out"
        raise Problem(403, "foreign-evaluator", detail)
    return own


def _written(user: str) -> str:
    """A user that no evaluator can be called by is a digest, always the same."""
    try:
        return _NAME.validate_python(user)
    except ValidationError:
        return f"sha256:{hashlib.sha256(user.encode()).hexdigest()}"
