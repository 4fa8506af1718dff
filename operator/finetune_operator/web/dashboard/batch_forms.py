"""From the form of a batch run to the request of REST that it stands for. Pure."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finetune_operator.resources.common import ShortText
from finetune_operator.resources.dataset import StoredPath
from finetune_operator.web.abtest_requests import VersionName
from finetune_operator.web.batch_requests import BatchRequest
from finetune_operator.web.creation import request_digest
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN


class BatchForm(BaseModel):
    """What the form says; empty fields are absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")]
    name: Annotated[str, Field(max_length=52, pattern=f"^{NAME_PATTERN}$")]
    model_version: VersionName
    """A version that is served."""
    compare_with: VersionName | Literal["base", "nobody"] = "base"
    """Who gets the same rows."""
    source: Literal["ratings", "file"] | StoredPath = "ratings"
    """Where the questions are: `<id>/<file>` of an exported dataset is such a place, too."""
    domain: ShortText | None = None
    """Only this domain of the ratings."""
    ratings_claim: Annotated[str, Field(max_length=253, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Volume of an SQLite ratings database; empty for a database server."""
    path: Annotated[str, Field(max_length=1024)] | None = None
    """`volume://<claim>/<path>`, `s3://<bucket>/<key>`, or `<id>/<file>` of what the api keeps."""
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Ask only the first rows."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 256
    """Longest answer in tokens."""
    judged: bool = True
    """Whether people vote on the pairs of answers, blind."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.source == "file" and self.path is None:
            raise ValueError("path: say where the file is, as volume://<claim>/<path>")
        return self

    @property
    def digest(self) -> str:
        """The same form makes its objects once."""
        return request_digest(self.model_dump(mode="json"))

    def request(self) -> BatchRequest:
        """Raises `ValidationError`."""
        has_opponent = self.compare_with != "nobody"
        said: dict[str, Any] = {
            "namespace": self.namespace,
            "name": self.name,
            "model_version": self.model_version,
            "compare_with": self.compare_with if has_opponent else None,
            "limit": self.limit,
            "max_tokens": self.max_tokens,
            "vote": self.judged and has_opponent,
        }
        if self.source == "ratings":
            said |= {"domain": self.domain, "ratings_claim": self.ratings_claim}
        else:
            said["dataset_path"] = self.path if self.source == "file" else self.source
        return BatchRequest.model_validate({member: value for member, value in said.items() if value is not None})
