"""What the short texts stand for by which a training is asked for: by REST, and by flags. Pure.

Each interface says in its own words what is wrong with a text.
"""

import re
from typing import Any

GPU_RESOURCE = "nvidia.com/gpu"
FAMILY_MAX_CHARACTERS = 40
VOLUME = "volume://"
HUB_FORM = re.compile(r"(?P<id>[^/@\s]+/(?P<name>[^/@\s]+))(@(?P<revision>\S+))?")

Spec = dict[str, Any]


class NoVolumePath(ValueError):
    """Not `volume://<claim>/<path>`."""


class NoHubModel(ValueError):
    """Not `<owner>/<name>[@<revision>]`."""


def base_model_of(text: str, *, of_provider: bool) -> Spec:
    """Of `<owner>/<name>[@<revision>]`, `volume://<claim>/<path>`, or a provider's model.

    Raises `NoVolumePath` and `NoHubModel`.
    """
    if of_provider:
        return {"name": text, "source": {"openai": {"model": text}}}
    if text.startswith(VOLUME):
        volume = volume_of(text)
        return {"name": volume["path"].rsplit("/", 1)[-1], "source": {"volume": volume}}
    found = HUB_FORM.fullmatch(text)
    if found is None:
        raise NoHubModel(text)
    hub = {"id": found["id"]} | ({"revision": found["revision"]} if found["revision"] else {})
    return {"name": found["name"].lower(), "source": {"hub": hub}}


def volume_of(text: str) -> dict[str, str]:
    """Claim and path as a spec has them. Raises `NoVolumePath`."""
    claim, slash, path = text.removeprefix(VOLUME).partition("/")
    if not claim or not slash or not path:
        raise NoVolumePath(text)
    return {"claimName": claim, "path": path}


def family_of(base_model: str) -> str:
    """The family that a base model's name, or its place, stands for; empty where nothing of it can be a name."""
    return family_named(base_model.partition("@")[0].rsplit("/", 1)[-1])


def family_named(text: str) -> str:
    """As a family can be called; empty where nothing of it can be a name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:FAMILY_MAX_CHARACTERS].strip("-")


def put_gpus(spec: Spec, gpus: int | None, *, needs_gpu: bool) -> None:
    """Into the `resources` of a spec: as many as are said, else one where one is needed; nothing on CPUs."""
    if wanted := int(needs_gpu) if gpus is None else gpus:
        spec["resources"] = {"limits": {GPU_RESOURCE: wanted}} | spec.get("resources", {})
