"""Request ids that tell which version was asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.request_ids import signed_request_id, version_of

KEY = "internal-token"
REQUEST = "8a1c1f5e-91a7-4a55-8c6c-4fd1b1d5a1c3"
UID = "0b0c66a3-6a0b-4a0f-9d4e-1f4f5f6a7b8c"
SIGNED = signed_request_id(REQUEST, UID, KEY)

ids = st.text(st.characters(codec="ascii", exclude_characters=".", categories=("L", "N", "Pd")), min_size=1)


def test_a_signed_id_tells_its_version_and_fits_into_a_sample() -> None:
    assert version_of(SIGNED, KEY) == UID
    assert SIGNED.startswith(f"{REQUEST}.{UID}.")
    assert len(f"{SIGNED}-shadow") <= 128


@given(ids, ids, st.text(min_size=1))
def test_whatever_is_signed_is_read_back(request_id: str, uid: str, key: str) -> None:
    assert version_of(signed_request_id(request_id, uid, key), key) == uid


OTHERS: dict[str, str] = {
    "of a base model's answer": REQUEST,
    "of a copy": f"{SIGNED}-shadow",
    "of another version": SIGNED.replace(UID, "another"),
    "of another request": SIGNED.replace(REQUEST, "another"),
    "with another key": signed_request_id(REQUEST, UID, "guess"),
    "without its code": f"{REQUEST}.{UID}.",
    "no more than a code": SIGNED.rpartition(".")[2],
    "points": "..",
    "of a client": "request-1",
    "not of ASCII": f"{REQUEST}.{UID}.é",
}


@pytest.mark.parametrize("request_id", OTHERS.values(), ids=OTHERS.keys())
def test_other_ids_tell_none(request_id: str) -> None:
    assert version_of(request_id, KEY) is None
