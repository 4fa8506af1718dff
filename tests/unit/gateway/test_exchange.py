"""What is told about a request."""

import uuid

from finetune_operator.gateway.exchange import new_request_id


def test_a_new_request_id_is_a_random_uuid_and_no_other_is_like_it() -> None:
    made = [new_request_id() for _ in range(1000)]
    found = [uuid.UUID(request_id) for request_id in made]
    assert [str(each) for each in found] == made
    assert {(each.version, each.variant) for each in found} == {(4, uuid.RFC_4122)}
    assert len(set(made)) == len(made)
