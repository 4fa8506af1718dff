"""Which heads are read here, and which are left to aiohttp because they are not quite plain."""

import pytest

from finetune_operator.gateway.plain_requests import HEAD_MAX_BYTES, HeadReader

PATH = "/v1/chat/completions"
READER = HeadReader([PATH, "/v1/embeddings"])
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"


def test_a_plain_head() -> None:
    head = READER.read(LINE + b"Host: a\r\nX-Name:  two words\t \r\nx-empty:\r\nContent-Length: 12\r\nX-NAME: second")
    assert head is not None
    assert (head.path, head.body_bytes) == (PATH, 12)
    assert head.headers == {"host": "a", "x-name": "two words", "x-empty": "", "content-length": "12"}


def test_other_characters_are_read_as_aiohttp_reads_them() -> None:
    head = READER.read(LINE + b"Content-Length: 0\r\nx-utf-8: \xc3\xa9\r\nx-latin-1: \xe9")
    assert head is not None
    assert (head.headers["x-utf-8"], head.headers["x-latin-1"]) == ("é", "\udce9")


@pytest.mark.parametrize("kept", [b"Connection: keep-alive", b"connection: Keep-Alive"])
def test_what_is_the_default_anyway_may_be_said(kept: bytes) -> None:
    assert READER.read(LINE + b"Content-Length: 0\r\n" + kept) is not None


LENGTH = b"Content-Length: 1"
FOR_AIOHTTP: dict[str, bytes] = {
    "another path": b"POST /v1/models/switch HTTP/1.1\r\n" + LENGTH,
    "a query": b"POST /v1/chat/completions?a=b HTTP/1.1\r\n" + LENGTH,
    "another method": b"GET /v1/chat/completions HTTP/1.1\r\n" + LENGTH,
    "an older version": b"POST /v1/chat/completions HTTP/1.0\r\n" + LENGTH,
    "a whole URL": b"POST http://a/v1/chat/completions HTTP/1.1\r\n" + LENGTH,
    "no length": LINE + b"Host: a",
    "two lengths": LINE + b"Content-Length: 1\r\ncontent-length: 1",
    "two wishes": LINE + LENGTH + b"\r\nConnection: keep-alive\r\nConnection: close",
    "a list of lengths": LINE + b"Content-Length: 1, 1",
    "a signed length": LINE + b"Content-Length: +1",
    "a length in other digits": LINE + b"Content-Length: \xd9\xa1",
    "an enormous length": LINE + b"Content-Length: " + b"9" * 16,
    "chunks": LINE + LENGTH + b"\r\nTransfer-Encoding: chunked",
    "a compressed body": LINE + LENGTH + b"\r\nContent-Encoding: gzip",
    "a question in advance": LINE + LENGTH + b"\r\nExpect: 100-continue",
    "the last request": LINE + LENGTH + b"\r\nConnection: close",
    "another protocol": LINE + LENGTH + b"\r\nUpgrade: h2c",
    "a space before the colon": LINE + LENGTH + b"\r\nTransfer-Encoding : chunked",
    "a folded line": LINE + LENGTH + b"\r\nx-a: b\r\n c",
    "a line feed alone": LINE + LENGTH + b"\r\nx-a: b\nTransfer-Encoding: chunked",
    "a carriage return alone": LINE + LENGTH + b"\r\nx-a: b\rTransfer-Encoding: chunked",
    "a zero byte": LINE + LENGTH + b"\r\nx-a: b\0",
    "a line without a colon": LINE + LENGTH + b"\r\nx-a",
    "a name that is none": LINE + LENGTH + b"\r\nx a: b",
    "many headers and a bad one": LINE + LENGTH + b"".join(b"\r\na: b" for _ in range(200)) + b"\r\nx-a: b\0",
    "many blanks and a bad character": LINE + LENGTH + b"\r\na:" + b" " * 9000 + b"\0",
    "a very long head": LINE + LENGTH + b"\r\nx-a: " + b"b" * HEAD_MAX_BYTES,
}


@pytest.mark.parametrize("case", FOR_AIOHTTP)
def test_what_is_left_to_aiohttp(case: str) -> None:
    assert READER.read(FOR_AIOHTTP[case]) is None


@pytest.mark.parametrize(
    ("received", "waits"),
    [
        (b"P", True),
        (LINE[:20], True),
        (LINE + b"Host: ", True),
        (b"POST /v1/emb", True),
        (b"GET ", False),
        (b"POST /v1/models", False),
        (b"\r\n", False),
        (LINE + b"x" * HEAD_MAX_BYTES, False),
        (LINE.replace(b"\r", b""), False),
        (LINE + b"Host: a\nContent-Length: 1\n\n", False),
    ],
)
def test_the_rest_of_a_head_is_waited_for_only_if_it_may_be_plain(received: bytes, waits: bool) -> None:
    assert READER.may_become_plain(received) is waits
