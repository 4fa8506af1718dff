"""From what a browser sends to the requests of REST: texts become values by the request's own fields. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from finetune_operator.web.problems import Problem

Request = TypeVar("Request", bound=BaseModel)


def request_of(model: type[Request], form: Mapping[str, Any]) -> Request:
    """What the form says, without what it leaves empty or at its default. Raises 422 with what to change.

    A switch that is off is not sent at all, so that the form names its switches in `switches`.
    """
    known = model.model_fields
    texts = {name: value.strip() for name, value in form.items() if isinstance(value, str) and name in known}
    switches = str(form.get("switches", "")).split()
    texts |= {name: "true" if name in form else "false" for name in switches if name in known}
    sent = {name: text for name, text in texts.items() if text}
    parsed = _validated(model, sent)
    said = {name: text for name, text in sent.items() if getattr(parsed, name) != known[name].default}
    required = {name: sent[name] for name in sent if known[name].default is PydanticUndefined}
    return _validated(model, said | required)


def described(model: type[BaseModel]) -> Mapping[str, tuple[Any, str]]:
    """Default and description of each field, so that a form says what the request says of itself."""
    return {
        name: ("" if field.default in (None, PydanticUndefined) else field.default, one_line(field.description or ""))
        for name, field in model.model_fields.items()
    }


def one_line(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def _validated(model: type[Request], texts: Mapping[str, str]) -> Request:
    try:
        return model.model_validate_strings(dict(texts))
    except ValidationError as error:
        raise Problem(422, "invalid-request", mistakes_of(error)) from None


def mistakes_of(error: ValidationError) -> str:
    """One sentence for each."""
    found = error.errors(include_url=False, include_context=False)
    told = ((".".join(map(str, mistake["loc"])), mistake["msg"].removeprefix("Value error, ")) for mistake in found)
    return "; ".join(": ".join(filter(None, each)) for each in told)
