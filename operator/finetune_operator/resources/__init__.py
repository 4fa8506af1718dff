"""The API: custom resources as frozen pydantic models, the only author of `crds/`."""
