"""The termination message of a training at a provider, whatever the provider says."""

import pytest

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES
from finetune_operator.providers.files import termination_message


@pytest.mark.parametrize("letter", ["a", '"', "\u6f22", "\U0001f600", "\x01"], ids=ascii)
def test_a_failure_fits_the_termination_message(letter: str) -> None:
    failure = Failure(reason=FailureReason.PROVIDER_REFUSED, message=letter * 5000, remedy="pay " * 200)

    content = termination_message(failure)

    assert len(content) <= TERMINATION_MESSAGE_MAX_BYTES
    told = Failure.model_validate_json(content)
    assert failure.message.startswith(told.message)
    assert len(told.message) >= 400
