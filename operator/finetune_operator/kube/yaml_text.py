"""Objects as YAML that Kubernetes reads as it was meant."""

import re
from collections.abc import Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Quotes text such as 2e-4, which is a number to Kubernetes' YAML 1.2 and none to PyYAML's 1.1."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9.]+[eE][-+]?[0-9]+$"), None)


def yaml_text(body: Mapping[str, Any]) -> str:
    """In the order of the fields."""
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
