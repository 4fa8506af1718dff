"""Who may talk to engines, trainers and those that ask engines."""

import pytest

from finetune_operator.contract.places import ENGINE_PORT
from finetune_operator.manifests import batch_inference, evaluation, serving, training
from finetune_operator.manifests.common import labels
from tests.helm.conftest import NAMESPACE, Helm, Manifest, named, of_kind


def test_engine_answers_operator_gateway_and_those_that_ask_alone(rendered: list[Manifest]) -> None:
    spec = named(rendered, "NetworkPolicy", "finetune-engine")["spec"]
    engine = labels(serving.COMPONENT_NAME, {})
    assert spec["podSelector"]["matchLabels"] == engine
    assert spec["policyTypes"] == ["Ingress"]
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": ENGINE_PORT}]
    *processes, evaluators, batches = rule["from"]
    # No namespaceSelector: only those of the engine's own namespace.
    for peer, component in ((evaluators, evaluation.COMPONENT_NAME), (batches, batch_inference.COMPONENT_NAME)):
        assert peer == {"podSelector": {"matchLabels": labels(component, {})}}
    admitted = set()
    for peer in processes:
        assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
        wanted = peer["podSelector"]["matchLabels"].items()
        admitted |= {
            deployment["metadata"]["name"]
            for deployment in of_kind(rendered, "Deployment")
            if wanted <= deployment["spec"]["template"]["metadata"]["labels"].items()
        }
    assert admitted == {"finetune-operator", "finetune-gateway"}


def test_trainers_answer_each_other_alone(rendered: list[Manifest]) -> None:
    spec = named(rendered, "NetworkPolicy", "finetune-trainer")["spec"]
    assert spec["podSelector"]["matchLabels"] == labels(training.COMPONENT_NAME, {})
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [{"from": [{"podSelector": spec["podSelector"]}]}]


@pytest.mark.parametrize("component", [evaluation.COMPONENT_NAME, batch_inference.COMPONENT_NAME])
def test_those_that_ask_answer_nobody(rendered: list[Manifest], component: str) -> None:
    spec = named(rendered, "NetworkPolicy", f"finetune-{component}")["spec"]
    assert spec == {
        "podSelector": {"matchLabels": labels(component, {})},
        "policyTypes": ["Ingress"],
    }


def test_network_policies_can_be_left_out(helm: Helm) -> None:
    assert not of_kind(helm.render("--set", "networkPolicy.enabled=false"), "NetworkPolicy")
