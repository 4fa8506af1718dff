"""REST: the catalogue of base models to begin with. Any other model of the hub works as well."""

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from finetune_operator.core.base_model_catalogue import CATALOGUE, Capability, CatalogueModel, Vertical
from finetune_operator.web.auth import require_caller
from finetune_operator.web.problems import documented
from finetune_operator.web.required_rights import ANYBODY_KNOWN

BASE_MODELS_PATH = "/v1/fine-tuning/base-models"

router = APIRouter(prefix=BASE_MODELS_PATH, tags=["models"], dependencies=[Depends(require_caller)])


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class BaseModelEntry(_Body):
    """One model, as its publisher describes it."""

    id: str
    """`<owner>/<name>` of the hub, as `base_model` of a training takes it."""
    provider: str
    parameters: int
    context_tokens: int
    """The longest text that it was made for."""
    licence: str
    is_gated: bool
    """Whether the hub gives it out only to who has accepted the licence there."""
    vertical: Vertical
    capabilities: tuple[Capability, ...]
    recommended_for: str | None
    """What for, in a few words; null for what is not recommended."""

    @classmethod
    def of(cls, model: CatalogueModel) -> "BaseModelEntry":
        return cls(**{name: getattr(model, name) for name in cls.model_fields})


class BaseModelList(_Body):
    """All of the catalogue, in its order."""

    base_models: tuple[BaseModelEntry, ...]


@router.get("", responses=documented(401, 422, 503), openapi_extra=ANYBODY_KNOWN)
def get_base_models() -> BaseModelList:
    """Well-known open models to begin with."""
    return BaseModelList(base_models=tuple(map(BaseModelEntry.of, CATALOGUE)))
