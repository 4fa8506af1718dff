"""The CRDs' rules as `ftctl lint` asks them, and every one that is asked of a new resource."""

from typing import Any

import pytest

from finetune_operator.core.rules import compiled, holds
from finetune_operator.resources.crd import DEFINITIONS, custom_resource_definition
from tests.unit.core.crd_rules import entries_of

SELF: dict[str, Any] = {
    "count": 3,
    "share": "0.5",
    "name": "plato-v12",
    "model": "plato",
    "on": True,
    "items": ["a", "ab"],
    "inner": {"x": 1},
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("self.count == 3", True),
        ("self.count + 1 <= 3", False),
        ("self.count >= 1 && self.count < 4", True),
        ("!self.on || self.count > 2", True),
        ("has(self.inner.x) && !has(self.inner.y)", True),
        ("has(self.gone)", False),
        ("has(self.gone.deeper)", False),
        ("double(self.share) > 0.0", True),
        ("size(self.items) == 2 && self.items.size() == 2", True),
        ("'a' in self.items", True),
        ("self.count in [1, 2]", False),
        ("self.items.all(each, each.startsWith('a'))", True),
        ("self.items.exists(each, each == 'b')", False),
        ("[has(self.inner), has(self.gone)].filter(isSet, isSet).size() == 1", True),
        ("self.on ? self.count == 3 : self.count == 4", True),
        ("int(self.name.substring(size(self.model) + 2)) == 12", True),
        ("self.name.matches('^plato-v[0-9]+$')", True),
        ("(self.count == 3) == has(self.gone)", False),
        ("self.name == 'it\\'s'", False),
        # As in CEL, one side decides where the other can't be computed, on either side of it.
        ("self.gone == 1 || self.on", True),
        ("self.on || self.gone == 1", True),
        ("self.gone == 1 && !self.on", False),
        # And a rule that can't be computed does not hold.
        ("self.gone == 1", False),
        ("int(self.name) == 1", False),
        ("self.count.startsWith('3')", False),
    ],
)
def test_a_rule(rule: str, expected: bool) -> None:
    assert holds(rule, SELF) is expected


@pytest.mark.parametrize("rule", ["self.", "self.a ===", "self.a self.b", "a ~ b"])
def test_what_is_no_rule_is_said(rule: str) -> None:
    with pytest.raises(ValueError, match="Failed to parse"):
        compiled(rule)


def test_a_line_break_at_the_end_is_no_end() -> None:
    assert not holds("self.matches('^[a-z]+$')", "plato\n")


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.kind)
def test_every_rule_of_the_crds_compiles(definition: Any) -> None:
    rules = [entry["rule"] for entry in entries_of(custom_resource_definition(definition))]
    assert rules
    for rule in rules:
        assert compiled(rule)
