"""Judges a resource by its CRD's schema, as the API server would on creation, without one. Pure."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

from finetune_operator.core.rules import holds

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]
OLD_SELF = "oldSelf"
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (Mapping,),
}
ARTICLES = {"integer": "an integer", "array": "a list", "object": "a mapping"}
SHOWN_CHARACTERS = 60


class Mistake(NamedTuple):
    """Something the API server would refuse, and where it is."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{written(self.path)}: {self.message}" if self.path else self.message


def written(path: Path) -> str:
    """`spec.prompts[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def mistakes(schema: Schema, body: Mapping[str, Any]) -> list[Mistake]:
    """All that is wrong with a body. Rules that compare its parts are asked once the parts themselves are right."""
    checked = {name: value for name, value in body.items() if name != "status"}
    wrong = list(_structure(schema, checked, ()))
    return wrong or list(_rules(schema, with_defaults(schema, checked), ()))


def with_defaults(schema: Schema, value: Any) -> Any:
    """As the API server stores it: what is absent has its default, and so have the parts of a default."""
    if isinstance(value, Mapping) and "properties" in schema:
        known: Mapping[str, Schema] = schema["properties"]
        defaults = {name: part["default"] for name, part in known.items() if "default" in part and name not in value}
        kept = {name: each for name, each in value.items() if each is not None}
        return {
            name: with_defaults(known[name], each) if name in known else each
            for name, each in (kept | defaults).items()
        }
    if isinstance(value, Mapping) and isinstance(schema.get("additionalProperties"), Mapping):
        return {name: with_defaults(schema["additionalProperties"], each) for name, each in value.items()}
    if isinstance(value, list | tuple) and "items" in schema:
        return [with_defaults(schema["items"], each) for each in value]
    return value


def _structure(schema: Schema, value: Any, path: Path) -> Iterator[Mistake]:
    if value is None:
        yield Mistake(path, "is empty: give it a value, or remove the line")
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield Mistake(path, f"must be an integer or text, not {_shown(value)}")
            return
    elif (kind := schema.get("type", "")) in TYPES:
        is_bool = isinstance(value, bool)
        if not isinstance(value, TYPES[kind]) or (is_bool and kind != "boolean"):
            yield Mistake(path, _of_type(kind, value))
            return
    yield from _value(schema, value, path)
    if isinstance(value, Mapping):
        yield from _mapping(schema, value, path)
    elif isinstance(value, list | tuple):
        yield from _items(schema, value, path)


def _of_type(kind: str, value: Any) -> str:
    if kind == "string" and isinstance(value, int | float):
        return f"must be text, not {_shown(value)}: put it in quotes"
    if kind in ("integer", "boolean", "number") and isinstance(value, str):
        return f"must be {ARTICLES.get(kind, f'a {kind}')}, not text: write it without quotes"
    return f"must be {ARTICLES.get(kind, f'a {kind}')}, not {_shown(value)}"


def _value(schema: Schema, value: Any, path: Path) -> Iterator[Mistake]:
    if "enum" in schema and value not in schema["enum"]:
        options = ", ".join(map(str, schema["enum"]))
        near = get_close_matches(str(value), list(map(str, schema["enum"])), 1)
        yield Mistake(path, f"{_shown(value)} is none of {options}" + (f"; did you mean {near[0]}?" if near else ""))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield Mistake(path, f"{value} is too small: at least {schema['minimum']}")
        if value > schema.get("maximum", value):
            yield Mistake(path, f"{value} is too large: at most {schema['maximum']}")
    if isinstance(value, str):
        length = len(value)
        if length < schema.get("minLength", 0):
            yield Mistake(
                path, "must not be empty" if not value else f"needs at least {schema['minLength']} characters"
            )
        if length > schema.get("maxLength", length):
            yield Mistake(path, f"has {length} characters: at most {schema['maxLength']}")
        elif "pattern" in schema and not re.search(_absolute(schema["pattern"]), value):
            yield Mistake(path, f"{_shown(value)} does not look like {schema['pattern']}")
        if schema.get("format") == "date-time" and not _is_time(value):
            yield Mistake(path, f"{_shown(value)} is no time: write it as 2026-01-31T12:00:00Z")


def _mapping(schema: Schema, value: Mapping[str, Any], path: Path) -> Iterator[Mistake]:
    if len(value) > schema.get("maxProperties", len(value)):
        yield Mistake(path, f"has {len(value)} entries: at most {schema['maxProperties']}")
    known: Mapping[str, Schema] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Mistake((*path, name), "is missing")
    others = schema.get("additionalProperties")
    for name, each in value.items():
        if name in known:
            if path or name not in ("metadata", "apiVersion", "kind"):
                yield from _structure(known[name], each, (*path, name))
        elif isinstance(others, Mapping):
            yield from _structure(others, each, (*path, name))
        elif known:
            near = get_close_matches(name, known, 1)
            yield Mistake((*path, name), "is no field here" + (f"; did you mean {near[0]}?" if near else ": remove it"))


def _items(schema: Schema, value: Sequence[Any], path: Path) -> Iterator[Mistake]:
    if len(value) > schema.get("maxItems", len(value)):
        yield Mistake(path, f"has {len(value)} entries: at most {schema['maxItems']}")
    if len(value) < schema.get("minItems", 0):
        yield Mistake(path, f"has {len(value)} entries: at least {schema['minItems']}")
    if schema.get("x-kubernetes-list-type") == "set":
        seen: set[str] = set()
        for index, each in enumerate(value):
            if (text := json.dumps(each, sort_keys=True, default=str)) in seen:
                yield Mistake((*path, index), f"{_shown(each)} is there twice")
            seen.add(text)
    for index, each in enumerate(value):
        yield from _structure(schema.get("items", {}), each, (*path, index))


def _rules(schema: Schema, value: Any, path: Path) -> Iterator[Mistake]:
    for entry in schema.get("x-kubernetes-validations", ()):
        if OLD_SELF not in entry["rule"] and not holds(entry["rule"], value):
            yield Mistake((*path, *_parts(entry.get("fieldPath", ""))), entry["message"])
    for part, below, each in _below(schema, value):
        yield from _rules(below, each, (*path, part))


def _below(schema: Schema, value: Any) -> Iterable[tuple[str | int, Schema, Any]]:
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            below = known.get(name, others)
            if isinstance(below, Mapping):
                yield name, below, each
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield index, schema.get("items", {}), each


def _parts(field_path: str) -> list[str]:
    return [part for part in field_path.split(".") if part]


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _absolute(pattern: str) -> str:
    """For Python, whose `$` also matches before a line break at the end; RE2's does not."""
    return re.sub(r"(?<!\\)\$(?=$|[)|])", r"\\Z", pattern)
