"""Stop conditions: a small expression language over results, read by a parser of our own. Nothing is ever evaluated as code.

``accuracy >= 0.9 and loss < 0.1``, ``1 - error > 0.99``, ``status in ("good", "fine")``, ``abs(delta) < 1e-3``,
``results["my.key"] > 3``. Names are results of the iteration just finished.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from .errors import InvalidArgument
from .values import short

MAX_LENGTH = 1000
MAX_DEPTH = 40
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'[^'\\]*'|\"[^\"\\]*\")"
    r"|(?P<name>[^\W\d]\w*)|(?P<op>==|!=|<=|>=|//|&&|\|\||[<>+\-*/%(),\[\]!]))"
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_CALCULATE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod, "//": operator.floordiv,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max, "round": round, "len": len, "float": float, "int": int}
_CONSTANTS = {"True": True, "False": False, "None": None, "true": True, "false": False}
_WORDS = ("and", "or", "not", "in")

Results = dict[str, Any]
Node = Callable[[Results], Any]


class Condition:
    """A parsed condition. Raises InvalidArgument when the text is not one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._node = _Parser(text).parse()

    def holds(self, results: Results) -> bool:
        """Whether it holds for these results. Raises InvalidArgument when it names a result that is not there."""
        try:
            return bool(self._node(results))
        except (TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(f"stop condition {short(self.text)} cannot be computed: {error}") from None


class _Parser:
    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or len(text) > MAX_LENGTH:
            raise InvalidArgument(f"stop condition {short(text)} must be a text of at most {MAX_LENGTH} characters")
        self._text, self._depth, self._at = text, 0, 0
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if not found or not found.lastgroup:
                raise self._wrong(f"'{text[position:].strip()[0]}' is not understood")
            self._tokens.append((found.lastgroup, found.group(found.lastgroup)))
            position = found.end()

    def parse(self) -> Node:
        node = self._either()
        if self._at < len(self._tokens):
            raise self._wrong(f"'{self._tokens[self._at][1]}' is one too many")
        return node

    def _wrong(self, what: str) -> InvalidArgument:
        return InvalidArgument(f"stop condition {short(self._text, 120)}: {what}; write comparisons of results like 'accuracy >= 0.9'")

    def _peek(self) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return "" if kind == "text" else {"&&": "and", "||": "or", "!": "not"}.get(text, text)

    def _take(self, *wanted: str) -> str:
        found = self._peek()
        if found and found in wanted:
            self._at += 1
            return found
        return ""

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            raise self._wrong(f"'{wanted}' is missing")

    def _either(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"it is nested deeper than {MAX_DEPTH} levels")
        nodes = [self._both()]
        while self._take("or"):
            nodes.append(self._both())
        self._depth -= 1
        return nodes[0] if len(nodes) == 1 else lambda results: any(node(results) for node in nodes)

    def _both(self) -> Node:
        nodes = [self._negated()]
        while self._take("and"):
            nodes.append(self._negated())
        return nodes[0] if len(nodes) == 1 else lambda results: all(node(results) for node in nodes)

    def _negated(self) -> Node:
        negations = 0
        while self._take("not"):
            negations += 1
        node = self._comparison()
        return (lambda results: not node(results)) if negations % 2 else node

    def _comparison(self) -> Node:
        left = self._sum()
        pairs: list[tuple[Callable[[Any, Any], Any], Node]] = []
        while True:
            sign = self._take(*_COMPARE, "in", "not")
            if not sign:
                break
            if sign == "not":
                self._expect("in")
                pairs.append((lambda a, b: a not in b, self._sum()))
            elif sign == "in":
                pairs.append((lambda a, b: a in b, self._sum()))
            else:
                pairs.append((_COMPARE[sign], self._sum()))
        return left if not pairs else lambda results: _chain(left(results), pairs, results)

    def _sum(self) -> Node:
        return self._operations(("+", "-"), lambda: self._operations(("*", "/", "//", "%"), self._signed))

    def _operations(self, signs: tuple[str, ...], inner: Callable[[], Node]) -> Node:
        node = inner()
        while True:
            sign = self._take(*signs)
            if not sign:
                return node
            node = _joined(_CALCULATE[sign], node, inner())

    def _signed(self) -> Node:
        negative = False
        while True:
            sign = self._take("-", "+")
            if not sign:
                break
            negative ^= sign == "-"
        node = self._atom()
        return (lambda results: -node(results)) if negative else node

    def _atom(self) -> Node:
        if self._at >= len(self._tokens):
            raise self._wrong("it ends too early")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            number = float(text) if re.search(r"[.eE]", text) else int(text)
            return lambda results: number
        if kind == "text":
            return lambda results: text[1:-1]
        if kind == "name" and text not in _WORDS:
            return self._name(text)
        if text in ("(", "["):
            return self._group(")" if text == "(" else "]")
        raise self._wrong(f"'{text}' stands where a value should be")

    def _name(self, name: str) -> Node:
        if name in _CONSTANTS:
            return lambda results: _CONSTANTS[name]
        if self._peek() == "(":
            if name not in _FUNCTIONS:
                raise self._wrong(f"function '{name}' is unknown, functions are {', '.join(_FUNCTIONS)}")
            self._at += 1
            items = self._items(")")
            return lambda results: _FUNCTIONS[name](*[item(results) for item in items])
        if name == "results" and self._take("["):
            kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
            if kind != "text":
                raise self._wrong("results[...] takes a quoted name")
            self._at += 1
            self._expect("]")
            return lambda results: _result(results, text[1:-1])
        return lambda results: _result(results, name)

    def _group(self, end: str) -> Node:
        items = self._items(end)
        if len(items) == 1 and end == ")" and self._tokens[self._at - 2][1] != ",":
            return items[0]
        return lambda results: [item(results) for item in items]

    def _items(self, end: str) -> list[Node]:
        items: list[Node] = []
        while not self._take(end):
            items.append(self._either())
            if self._peek() != end:
                self._expect(",")
        return items


def _joined(apply: Callable[[Any, Any], Any], left: Node, right: Node) -> Node:
    def compute(results: Results) -> Any:
        a, b = left(results), right(results)
        # Texts and lists multiplied by a number are the one way to make something huge here.
        if not all(isinstance(value, (int, float)) for value in (a, b)):
            raise TypeError(f"{short(a)} and {short(b)} are not both numbers")
        return apply(a, b)

    return compute


def _chain(value: Any, pairs: list[tuple[Callable[[Any, Any], Any], Node]], results: Results) -> bool:
    for compare, node in pairs:
        other = node(results)
        if not compare(value, other):
            return False
        value = other
    return True


def _result(results: Results, name: str) -> Any:
    if name not in results:
        raise InvalidArgument(f"stop condition names the result '{name}', the iteration has: {', '.join(sorted(results)) or 'none'}")
    return results[name]
