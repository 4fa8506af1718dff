"""What people send who mean harm, and where the OpenAPI document lets them put it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

TEXTS: dict[str, str] = {
    "quote": "' OR '1'='1",
    "stacked statement": "x'; DROP TABLE abtest_votes; --",
    "union": "' UNION SELECT prompt, response FROM ml_analysis_rating --",
    "comment": "plato'/*",
    "sleep": "'; SELECT pg_sleep(9) --",
    "double quote": '" OR ""="',
    "wildcards": "%_%",
    "backslash": "\\'; DELETE FROM feedback; --",
    "parent": "../../../../etc/passwd",
    "encoded parent": "..%2f..%2f..%2fetc%2fpasswd",
    "absolute": "/etc/passwd",
    "backslash parent": "..\\..\\windows",
    "file url": "file:///etc/passwd",
    "metadata service": "http://169.254.169.254/latest/meta-data/",
    "NUL": "plato\x00.jsonl",
    "line break": "plato\r\nX-Injected: 1",
    "log line": "x\n2026-01-01 [info] request path=/fake",
    "terminal": "\x1b[2J\x1b]0;owned\x07",
    "markup": "<script>alert(1)</script>",
    "template": "{{7*7}}${7*7}#{7*7}",
    "format": "%s%n{0.__class__}",
    "right to left": "\u202egnp.exe",
    "null word": "null",
    "long": "a" * 20_000,
    "emoji": "\U0001f600" * 200,
}
DEEP = 50_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "truncated": b'{"model": "pla',
    "array": b"[]",
    "text": b'"plato"',
    "null": b"null",
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"spec":' * DEEP + b"1" + b"}" * DEEP,
    "huge integer": b'{"limit": 1' + b"0" * 5000 + b', "zzz": 1}',
    "huge float": b'{"alpha": 1e999999, "zzz": 1}',
    "NaN": b'{"alpha": NaN, "zzz": 1}',
    "infinity": b'{"learning_rate": -Infinity, "zzz": 1}',
    "lone surrogate": b'{"zzz": "\\ud800"}',
    "surrogate name": b'{"\\ud800": 1}',
    "NUL": b'{"zzz": "a\\u0000b"}',
    "raw NUL": b'{"zzz": "a\x00b"}',
    "bad UTF-8": b'{"zzz": "\xff\xfe"}',
    "UTF-16": '{"zzz": 1}'.encode("utf-16"),
    "duplicate names": b'{"zzz": 1, "zzz": 2}',
    "prototype": b'{"__proto__": {"admin": true}}',
    "YAML": b"zzz: !!python/object/apply:os.system [id]",
    "XML": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "many members": json.dumps({f"zzz{number}": number for number in range(20_000)}).encode(),
    "large": b'{"zzz": "' + b"a" * 2_000_000 + b'"}',
}
JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
CONTENT_TYPES = ("text/plain", "application/xml", "multipart/form-data; boundary=x", FORM_TYPE)

Json = dict[str, Any]


class Place(NamedTuple):
    """Where a text goes in a request: into the path, the query, a header, a cookie, or a member of the body or form."""

    method: str
    path: str
    kind: str
    name: str


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def places(document: Json) -> list[Place]:
    """All of them that take a text."""
    found: list[Place] = []
    for method, path, operation in operations(document):
        found += [
            Place(method, path, parameter["in"], parameter["name"])
            for parameter in operation.get("parameters", ())
            if _takes_text(document, parameter["schema"])
        ]
        found += [Place(method, path, "body", name) for name in _members(document, operation, JSON_TYPE)]
        found += [Place(method, path, "form", name) for name in _members(document, operation, FORM_TYPE)]
    return found


def texts_of(every: Sequence[Place], count: int) -> dict[Place, dict[str, str]]:
    """For each place so many texts, or more: always the same ones, and all of them for each kind of place."""
    names = list(TEXTS)
    found: dict[Place, dict[str, str]] = {}
    for kind in dict.fromkeys(place.kind for place in every):
        alike = [place for place in every if place.kind == kind]
        each = min(len(names), max(count, -(-len(names) // len(alike))))
        for number, place in enumerate(alike):
            chosen = (names[(number * each + offset) % len(names)] for offset in range(each))
            found[place] = {name: TEXTS[name] for name in chosen}
    return found


def with_bodies(document: Json) -> list[tuple[str, str]]:
    """Operations that take JSON."""
    return [(method, path) for method, path, operation in operations(document) if _takes(operation, JSON_TYPE)]


def _takes(operation: Json, content_type: str) -> bool:
    return content_type in operation.get("requestBody", {}).get("content", {})


def _members(document: Json, operation: Json, content_type: str) -> Iterator[str]:
    if _takes(operation, content_type):
        schema = _resolved(document, operation["requestBody"]["content"][content_type]["schema"])
        for name, member in schema.get("properties", {}).items():
            yield from _texts_of(document, name, member)


def _texts_of(document: Json, name: str, schema: Json) -> Iterator[str]:
    """The member, or with a dot those of an object below it."""
    if _takes_text(document, schema):
        yield name
    for each in _choices(document, schema):
        for inner, below in each.get("properties", {}).items():
            if _takes_text(document, below):
                yield f"{name}.{inner}"


def _takes_text(document: Json, schema: Json) -> bool:
    return any(each.get("type") == "string" for each in _choices(document, schema))


def _choices(document: Json, schema: Json) -> list[Json]:
    return [_resolved(document, each) for each in (schema.get("anyOf") or schema.get("allOf") or [schema])]


def _resolved(document: Json, schema: Json) -> Json:
    found: Json = document
    if "$ref" not in schema:
        return schema
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found
