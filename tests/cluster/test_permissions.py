"""What the operator asked of the API server in all tests of this tier: no more than it may, and nothing it may not."""

import pytest

from finetune_operator.kube.errors import Rejected
from tests.cluster.audit import granted, used
from tests.cluster.control_plane import ControlPlane
from tests.cluster.world import World


async def test_every_granted_verb_was_used(control_plane: ControlPlane) -> None:
    """Run it with the whole tier: a part of the tests uses a part of the rights."""
    rights = granted(control_plane.operator_rules())

    assert rights - used(control_plane.audit.requests()) == set()


async def test_no_request_was_denied(control_plane: ControlPlane) -> None:
    denied = [str(request) for request in control_plane.audit.requests() if request.code in (401, 403)]

    assert denied == []


async def test_no_right_touches_secrets_and_none_was_asked_for(control_plane: ControlPlane) -> None:
    assert {resource for _, resource, _ in granted(control_plane.operator_rules())} & {"secrets", "*"} == set()
    assert [str(request) for request in control_plane.audit.requests() if request.resource == "secrets"] == []


async def test_the_spec_of_our_kinds_was_never_written(control_plane: ControlPlane) -> None:
    requests = control_plane.audit.requests()

    assert len(requests) > 0
    assert [str(request) for request in requests if request.touches_a_spec] == []


async def test_pod_security_is_enforced_where_our_pods_were_admitted(world: World) -> None:
    container = {"name": "c", "image": "localhost/any:test", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}

    with pytest.raises(Rejected, match='violates PodSecurity "restricted'):
        await world.create(pod)
