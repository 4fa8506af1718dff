"""How an API key is written, recognised and compared."""

import pytest

from finetune_operator.core.api_keys import digest_of, is_secret, new_key, parsed_key

RANDOM = bytes(range(40))
KEY = "ftk_0001020304050607_CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic"


def test_a_key_is_its_id_and_its_secret() -> None:
    key = new_key(RANDOM)
    assert str(key) == KEY
    assert parsed_key(KEY) == key
    assert key.secret not in repr(key)


NO_KEYS = {
    "empty": "",
    "a Kubernetes token": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
    "no secret": "ftk_0001020304050607_",
    "a secret that is too short": KEY[:-1],
    "one that is too long": KEY + "A",
    "another prefix": "sk-" + KEY,
    "an id in capitals": KEY.replace("07_", "0A_"),
    "something after it": KEY + "\n",
}


@pytest.mark.parametrize("case", NO_KEYS)
def test_what_is_no_key(case: str) -> None:
    assert parsed_key(NO_KEYS[case]) is None


def test_only_the_secret_has_its_digest() -> None:
    key = new_key(RANDOM)
    digest = digest_of(key.secret)
    assert key.secret not in digest
    assert is_secret(key.secret, digest)
    assert not is_secret(key.secret[:-1] + "A", digest)
    assert not is_secret("", digest)
    assert not is_secret(digest, digest)


def test_too_little_randomness_makes_no_key() -> None:
    with pytest.raises(ValueError, match="40 bytes, not 39"):
        new_key(RANDOM[1:])
