"""As much of CEL as the CRDs' rules need, so that a file can be judged without an API server. Pure.

The language: https://github.com/google/cel-spec. Not here: what no rule uses, such as arithmetic on timestamps; a rule
that needs it does not parse, and tests/unit/core/test_cel.py fails. Rules on changes (`oldSelf`) need an old object.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>'(?:[^'\\]|\\.)*')|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<mark>&&|\|\||==|!=|<=|>=|[-+<>!?:.,()\[\]]))"
)
END = ""
RELATIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "in": lambda left, right: left in right,
}
FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {"size": len, "double": float, "int": int}
METHODS: Mapping[str, Callable[..., Any]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
    "matches": lambda text, pattern: re.search(absolute(pattern), text) is not None,
    "substring": lambda text, begin, end=None: text[begin:end],
    "size": len,
}
LOOPS: Mapping[str, Callable[[list[Any], list[bool]], Any]] = {
    "all": lambda _, said: all(said),
    "exists": lambda _, said: any(said),
    "filter": lambda items, said: [item for item, kept in zip(items, said, strict=True) if kept],
}

Scope = dict[str, Any]
Expression = Callable[[Scope], Any]


class Unsupported(ValueError):
    """The rule is no CEL, or more of it than is known here."""


class Undecided(Exception):
    """An operand is absent; as in CEL, `&&` and `||` may still be decided by the other side."""


class _Token(NamedTuple):
    kind: str
    text: str


def absolute(pattern: str) -> str:
    """For Python, whose `$` also matches before a line break at the end; RE2's does not."""
    return re.sub(r"(?<!\\)\$(?=$|[)|])", r"\\Z", pattern)


def holds(rule: str, subject: object) -> bool:
    """Whether a rule is true of `self`. Raises `Unsupported`."""
    try:
        return parsed(rule)({"self": subject}) is True
    except (Undecided, TypeError, ValueError, KeyError):
        # As at the API server, a rule that can't be computed is one that does not hold.
        return False


@lru_cache(maxsize=512)
def parsed(rule: str) -> Expression:
    """A function of the variables. Raises `Unsupported`."""
    parser = _Parser(_tokens(rule))
    expression = parser.ternary()
    parser.expect(END)
    return expression


def _tokens(rule: str) -> list[_Token]:
    tokens, position = [], 0
    rule = rule.rstrip()
    while position < len(rule):
        found = TOKEN.match(rule, position)
        if found is None or found.lastgroup is None:
            raise Unsupported(f"unknown at {position}: {rule}")
        tokens.append(_Token(found.lastgroup, found[found.lastgroup]))
        position = found.end()
    return [*tokens, _Token("end", END)]


class _Parser:
    """Recursive descent, one method for each precedence."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def expect(self, text: str) -> None:
        if not self._taken(text):
            raise Unsupported(f"expected {text or 'the end'!r}, found {self._tokens[self._next].text!r}")

    def ternary(self) -> Expression:
        condition = self._or()
        if not self._taken("?"):
            return condition
        then = self.ternary()
        self.expect(":")
        otherwise = self.ternary()
        return lambda scope: then(scope) if condition(scope) else otherwise(scope)

    def _or(self) -> Expression:
        return self._sides(self._and, "||", decisive=True)

    def _and(self) -> Expression:
        return self._sides(self._relation, "&&", decisive=False)

    def _sides(self, operand: Callable[[], Expression], mark: str, *, decisive: bool) -> Expression:
        sides = [operand()]
        while self._taken(mark):
            sides.append(operand())
        return sides[0] if len(sides) == 1 else lambda scope: _decided(sides, scope, decisive)

    def _relation(self) -> Expression:
        left = self._sum()
        text = self._tokens[self._next].text
        if text not in RELATIONS or self._tokens[self._next].kind == "text":
            return left
        self._next += 1
        relation, right = RELATIONS[text], self._sum()
        return lambda scope: relation(left(scope), right(scope))

    def _sum(self) -> Expression:
        left = self._unary()
        while self._taken("+"):
            left = _added(left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._taken("!"):
            inner = self._unary()
            return lambda scope: not inner(scope)
        return self._member(self._primary())

    def _primary(self) -> Expression:
        kind, text = self._tokens[self._next]
        if kind == "end":
            raise Unsupported("the rule ends too early")
        self._next += 1
        if kind == "number":
            number: float = float(text) if "." in text else int(text)
            return lambda _: number
        if kind == "text":
            literal = re.sub(r"\\(.)", r"\1", text[1:-1])
            return lambda _: literal
        if text == "(":
            inner = self.ternary()
            self.expect(")")
            return inner
        if text == "[":
            items = self._arguments("]")
            return lambda scope: [item(scope) for item in items]
        if kind != "name":
            raise Unsupported(f"unexpected {text!r}")
        if text in ("true", "false"):
            return lambda _: text == "true"
        if self._taken("("):
            return self._call(text)
        return lambda scope: scope[text]

    def _call(self, name: str) -> Expression:
        arguments = self._arguments(")")
        if len(arguments) != 1 or (name != "has" and name not in FUNCTIONS):
            raise Unsupported(f"unknown function {name}")
        argument = arguments[0]
        if name == "has":
            return lambda scope: _is_there(argument, scope)
        function = FUNCTIONS[name]
        return lambda scope: function(argument(scope))

    def _member(self, owner: Expression) -> Expression:
        while self._taken("."):
            name = self._name()
            if not self._taken("("):
                owner = _field(owner, name)
            elif name in LOOPS:
                owner = self._loop(owner, name)
            elif name in METHODS:
                owner = _method(owner, METHODS[name], self._arguments(")"))
            else:
                raise Unsupported(f"unknown method {name}")
        return owner

    def _loop(self, owner: Expression, name: str) -> Expression:
        variable = self._name()
        self.expect(",")
        test = self.ternary()
        self.expect(")")
        loop = LOOPS[name]

        def run(scope: Scope) -> Any:
            items = list(owner(scope))
            return loop(items, [test(scope | {variable: item}) is True for item in items])

        return run

    def _arguments(self, closing: str) -> list[Expression]:
        if self._taken(closing):
            return []
        found = [self.ternary()]
        while self._taken(","):
            found.append(self.ternary())
        self.expect(closing)
        return found

    def _name(self) -> str:
        kind, text = self._tokens[self._next]
        if kind != "name":
            raise Unsupported(f"expected a name, found {text!r}")
        self._next += 1
        return text

    def _taken(self, text: str) -> bool:
        token = self._tokens[self._next]
        if token.text != text or token.kind == "text":
            return False
        self._next += 1
        return True


def _decided(sides: list[Expression], scope: Scope, decisive: bool) -> bool:
    undecided: Undecided | None = None
    for side in sides:
        try:
            if bool(side(scope)) is decisive:
                return decisive
        except Undecided as error:
            undecided = error
    if undecided is not None:
        raise undecided
    return not decisive


def _field(owner: Expression, name: str) -> Expression:
    def read(scope: Scope) -> Any:
        found = owner(scope)
        if not isinstance(found, Mapping) or name not in found:
            raise Undecided(name)
        return found[name]

    return read


def _method(owner: Expression, method: Callable[..., Any], arguments: list[Expression]) -> Expression:
    return lambda scope: method(owner(scope), *(argument(scope) for argument in arguments))


def _added(left: Expression, right: Expression) -> Expression:
    return lambda scope: left(scope) + right(scope)


def _is_there(path: Expression, scope: Scope) -> bool:
    """`has(a.b)`: whether b is in a; a itself has to be there."""
    try:
        path(scope)
    except Undecided:
        return False
    return True
