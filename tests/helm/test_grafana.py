"""The dashboard of costs: only where it is asked for, and of series that there are."""

import json
import re

from finetune_operator.gateway.metrics import Metrics
from finetune_operator.shell.metrics import GAUGES
from tests.helm.conftest import Helm, Manifest, named, of_kind

ENABLED = ("--set", "grafana.dashboards.enabled=true")
NAMES = re.compile(r"\bfinetune_[a-z_]+")


def test_it_comes_only_where_it_is_asked_for(rendered: list[Manifest]) -> None:
    assert not [each for each in of_kind(rendered, "ConfigMap") if each["metadata"]["name"] == "finetune-dashboards"]


def test_the_sidecar_finds_it_and_all_its_series_exist(helm: Helm) -> None:
    found = named(helm.render(*ENABLED), "ConfigMap", "finetune-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    panels = json.loads(found["data"]["finetune-cost.json"])["panels"]
    assert panels
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for expression in expressions for name in NAMES.findall(expression)}
    counters = {f"{metric.name}_total" for metric in Metrics().registry.collect() if metric.type == "counter"}
    assert asked <= counters | {name for _, name, _, _ in GAUGES}
    assert all(expression.count("(") == expression.count(")") for expression in expressions)
