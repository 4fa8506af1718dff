"""The server image's modules, which lie beside its program and not in a package."""

import importlib.util
from pathlib import Path
from types import ModuleType

SERVER_IMAGE = Path(__file__).parents[3] / "server_image"


def load_server_module(name: str) -> ModuleType:
    """One that imports none of the others."""
    spec = importlib.util.spec_from_file_location(f"server_image_{name}", SERVER_IMAGE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
