"""Exchanging the model in a body changes nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.gateway.bodies import answered_model, ends_event, error_event, first_event, parse_request
from finetune_operator.gateway.errors import GatewayError

NOT_ANY = ("model", "prompt_logprobs", "echo")
"""Members whose meaning the gateway knows; Hypothesis tries names that it finds in the code."""
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    members=st.dictionaries(st.text().filter(lambda name: name not in NOT_ANY), values),
    indent=st.none() | st.integers(0, 3),
    ascii_only=st.booleans(),
    first=st.booleans(),
)
def test_only_the_model_changes(members: dict[str, object], indent: int | None, ascii_only: bool, first: bool) -> None:
    named = {"model": "plato", **members} if first else {**members, "model": "plato"}
    raw = json.dumps(named, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    body = parse_request(raw)
    assert body.with_model("plato") == raw
    assert json.loads(body.with_model('pla"to-v1')) == {**named, "model": 'pla"to-v1'}


def test_what_a_serialiser_would_lose_is_kept() -> None:
    raw = b'{ "seed":1.0e2,"model" :\t"plato", "big":12345678901234567890.10, "x":"\\u00e9\\/", "x":2}\n'
    assert parse_request(raw).with_model("plato-v1") == raw.replace(b'"plato"', b'"plato-v1"')


def test_a_model_further_inside_is_left_alone() -> None:
    raw = b'{"metadata":{"model":"plato"},"model":"plato","tools":[{"model":"plato"}]}'
    changed = parse_request(raw).with_model("plato-v1")
    assert changed == b'{"metadata":{"model":"plato"},"model":"plato-v1","tools":[{"model":"plato"}]}'


REFUSED = {
    "nothing": (b"", "`{` is missing"),
    "not JSON": (b"model=plato", "`{` is missing"),
    "a list": (b'["plato"]', "`{` is missing"),
    "cut off": (b'{"model":"plato"', "`,` is missing"),
    "cut off in a value": (b'{"model":"plat', "Unterminated string"),
    "a value missing": (b'{"model":', "Expecting value"),
    "a comma at the end": (b'{"model":"plato",}', "a quoted name is missing"),
    "something behind it": (b'{"model":"plato"} {}', "something follows"),
    "not UTF-8": (b'{"model":"\xff"}', "UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"plato"}', "`{` is missing"),
    "NaN": (b'{"model":"plato","temperature":NaN}', "NaN is not a JSON number"),
    "too deep": (b'{"model":"plato","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "no model": (b'{"messages":[]}', "`model` is missing"),
    "an empty object": (b"{}", "`model` is missing"),
    "two models": (b'{"model":"plato","model":"tiny"}', "more than once"),
    "a number as model": (b'{"model":1}', "as a string"),
    "an empty model": (b'{"model":""}', "as a string"),
    "the prompt's log probabilities": (b'{"model":"plato","prompt_logprobs":0}', "`prompt_logprobs` asks for"),
    "the same by echo": (b'{"model":"plato","echo":true,"logprobs":1}', "`echo` of a chat or with `logprobs`"),
    "the same by echo of a chat": (b'{"model":"plato","messages":[],"echo":true}', "`echo` of a chat"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_bodies(case: str) -> None:
    raw, words = REFUSED[case]
    with pytest.raises(GatewayError) as caught:
        parse_request(raw)
    assert caught.value.status == 400
    assert words in caught.value.message


@pytest.mark.parametrize(
    "members", ['"logprobs":true,"messages":[]', '"echo":true', '"echo":false,"logprobs":1', '"prompt_logprobs":null']
)
def test_log_probabilities_of_the_answer_and_a_prompt_repeated_are_let_through(members: str) -> None:
    assert parse_request(f'{{"model":"plato",{members}}}'.encode()).model == "plato"


@pytest.mark.parametrize(
    ("raw", "subject"),
    [
        (b'{"model":"m","user":"alice"}', "alice"),
        (b'{"safety_identifier":"bob","model":"m"}', "bob"),
        (b'{"safety_identifier":"bob","model":"m","user":"alice"}', "alice"),
        (b'{"model":"m","user":""}', None),
        (b'{"model":"m","user":7}', None),
        (b'{"model":"m"}', None),
    ],
)
def test_the_subject_in_a_body(raw: bytes, subject: str | None) -> None:
    assert parse_request(raw).subject == subject


@pytest.mark.parametrize(
    ("raw", "model"),
    [
        (b'{"id":"1","model":"plato-v1","choices":[]}', "plato-v1"),
        (b'{"choices":[{"model":"other"}],"model":"plato-v1"}', "plato-v1"),
        (b'{"choices":[]}', None),
        (b'{"model":null}', None),
        (b"oops", None),
        (b"\xff", None),
        (b'{"model":"plato-v1", the rest is not looked at', "plato-v1"),
    ],
)
def test_the_model_of_an_answer(raw: bytes, model: str | None) -> None:
    assert answered_model(raw) == model


@pytest.mark.parametrize(
    ("buffer", "data"),
    [
        (b"", None),
        (b"data: 1", None),
        (b"data: 1\n", None),
        (b"data: 1\n\n", b"1"),
        (b"data:1\r\n\r\ndata: 2\r\n\r\n", b"1"),
        (b": comment\n\nevent: x\nid: 7\ndata: 1\n\n", b"1"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
    ],
)
def test_the_first_event(buffer: bytes, data: bytes | None) -> None:
    assert first_event(buffer) == data


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b'{"error":{"message":"m","code":500}}', 500),
        (b'{"error":{"message":"m","code":"429"}}', 429),
        (b'{"error":{"message":"m"}}', 502),
        (b'{"error":{"message":"m","code":200}}', 502),
        (b'{"error":{"message":"m","code":"oops"}}', 502),
        (b'{"error":"m"}', 502),
        (b'{"model":"plato-v1"}', None),
        (b"[DONE]", None),
        (b"[]", None),
    ],
)
def test_an_error_in_an_event(data: bytes, status: int | None) -> None:
    failure = error_event(data)
    assert (failure.status if failure else None) == status


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [(b"data: 1\n\n", True), (b"data: 1\r\n\r\n", True), (b"data: 1\n", False), (b"data: {", False), (b"", False)],
)
def test_where_an_event_ends(chunk: bytes, expected: bool) -> None:
    assert ends_event(chunk) is expected
