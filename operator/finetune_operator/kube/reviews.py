"""Who somebody is to the API server: everybody who can log in may ask that of themselves."""

from collections.abc import Mapping
from typing import Any, Protocol

from finetune_operator.kube.errors import KubeError

ANONYMOUS = "system:anonymous"
UNAUTHENTICATED = 401


class Creator(Protocol):
    """The part of `KubeClient` that asks, with the rights of the caller."""

    async def create(self, plural: str, namespace: str | None, body: Mapping[str, Any]) -> dict[str, Any]: ...


async def user_name(caller: Creator) -> str:
    """Such as `system:serviceaccount:team-a:ada`. Raises `KubeError`, 401 if unknown."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await caller.create("selfsubjectreviews", None, body)
    name: str = answer["status"]["userInfo"]["username"]
    if name == ANONYMOUS:
        raise KubeError("the API server did not look at the token", UNAUTHENTICATED)
    return name
