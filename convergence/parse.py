"""Rule text to rule and back: `parse_rule` is the inverse of `repr`. Nothing is ever evaluated."""

import ast
import difflib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from convergence import presets, rules, wrappers
from convergence.rule import Rule

LONGEST = 10_000
"""Characters of a rule text."""

DEEPEST = 30
"""Levels of nesting."""

_RULES: dict[str, Callable[..., Rule]] = {
    **{name: getattr(rules, name) for name in rules.__all__},
    "WarmUp": wrappers.WarmUp,
    "Rearm": wrappers.Rearm,
}
_PRESETS: dict[str, Callable[..., Rule]] = {f"presets.{name}": getattr(presets, name) for name in presets.__all__}


class RuleTextError(ValueError):
    """A rule text that does not say a rule; the message points at the place."""


def parse_rule(text: str) -> Rule:
    """Return the rule that a text describes.

    The text is what `repr(rule)` gives: rule names with literal parameters, `&`, `|`, parentheses and
    `.on(metric, mode=...)`; presets are `presets.name(...)`. It is read as a syntax tree against a list of what is
    allowed; nothing is evaluated.

    Parameters
    ----------
    text : str
        At most 10,000 characters, nested at most 30 deep.

    Raises
    ------
    TypeError
        If text is not a string.
    ValueError
        If it is no rule: says where, and the nearest name for an unknown rule or parameter; or a parameter is
        outside its range.

    Examples
    --------
    >>> parse_rule("Patience(5) & SmoothedSlope(20, tol=0.001) | NonFinite()")
    Patience(5) & SmoothedSlope(20, tol=0.001) | NonFinite()
    >>> parse_rule("Patiense(5)")
    Traceback (most recent call last):
    convergence.parse.RuleTextError: unknown rule 'Patiense', did you mean 'Patience'? At character 1: "Patiense(5)"
    """
    if not isinstance(text, str):
        raise TypeError(f"rule text must be a string, got {text!r}")
    if len(text) > LONGEST:
        raise RuleTextError(f"rule text must have at most {LONGEST:,} characters, got {len(text):,}")
    # One line, so that a position is a column; white space between tokens means nothing here.
    text = "".join(" " if c in "\t\r\n\f\v" else c for c in text).strip()
    if not text:
        raise RuleTextError("rule text is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's opinion on what is refused below anyway
            tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise RuleTextError(_at(text, (error.offset or 1) - 1, f"rule text does not parse: {error.msg}")) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise RuleTextError(f"rule text does not parse: {str(error) or 'nested too deeply'}") from None
    return _Reader(text).rule(tree.body, 0)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    def rule(self, node: ast.expr, depth: int) -> Rule:
        """Return the rule that an expression says."""
        if depth > DEEPEST:
            raise self.error(node, f"rules nested more than {DEEPEST} deep")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            return self.combination(node, depth)
        name = self.name(node.func if isinstance(node, ast.Call) else node)
        if isinstance(node, ast.Call) and name:
            return self.made(node, name, depth)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return self.bound(node, node.func, depth)
        if name:
            self.maker(node, name)
            raise self.error(node, f"{name} needs parentheses: {name}(...)")
        if isinstance(node, ast.BoolOp):
            raise self.error(node, "combine rules with | and &, not with or and and")
        raise self.error(node, "expected a rule such as Patience(5)")

    def name(self, node: ast.expr) -> str:
        """Return the name that `Name` or `presets.name` says, else nothing."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "presets":
            return f"presets.{node.attr}"
        return node.id if isinstance(node, ast.Name) else ""

    def combination(self, node: ast.BinOp, depth: int) -> Rule:
        """Return `a | b | c` or `a & b & c`, however long, without recursion along the chain."""
        kind = type(node.op)
        operands: list[ast.expr] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, kind):
            operands.append(left.right)
            left = left.left
        members = [self.rule(part, depth + 1) for part in (left, *reversed(operands))]
        whole = members[0]
        for member in members[1:]:
            whole = whole | member if kind is ast.BitOr else whole & member
        return whole

    def bound(self, node: ast.Call, attribute: ast.Attribute, depth: int) -> Rule:
        """Return `rule.on(metric, mode=...)`."""
        if attribute.attr != "on":
            raise self.error(attribute, f"a rule has no {attribute.attr!r} here, only .on(metric, mode=...)")
        rule = self.rule(attribute.value, depth + 1)
        return self.call(node, "on", rule.on, depth)

    def made(self, node: ast.Call, name: str, depth: int) -> Rule:
        """Return `Name(parameters)`."""
        return self.call(node, name, self.maker(node, name), depth)

    def maker(self, node: ast.expr, name: str) -> Callable[..., Rule]:
        """Return what makes the rule of this name."""
        what, makers = ("preset", _PRESETS) if name.startswith("presets.") else ("rule", _RULES)
        if name not in makers:
            raise self.error(node, self.unknown(what, name, list(makers)))
        return makers[name]

    def call(self, node: ast.Call, name: str, maker: Callable[..., Rule], depth: int) -> Rule:
        """Call a rule's class or `.on` with literal parameters."""
        signature = inspect.signature(maker)
        args = [self.parameter(arg, depth) for arg in node.args]
        given: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error(keyword.value, "** is not allowed")
            if keyword.arg not in signature.parameters:
                raise self.error(keyword, self.unknown(f"parameter of {name}", keyword.arg, list(signature.parameters)))
            if keyword.arg in given:
                raise self.error(keyword, f"{name} is given {keyword.arg!r} twice")
            given[keyword.arg] = self.parameter(keyword.value, depth)
        try:
            signature.bind(*args, **given)
        except TypeError as error:
            shown = ", ".join(
                map(
                    str,
                    (
                        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
                        for p in signature.parameters.values()
                    ),
                )
            )
            raise self.error(node, f"{name}: {error}; it takes ({shown})") from None
        try:
            return maker(*args, **given)
        except (TypeError, ValueError) as error:
            raise self.error(node, f"{name}: {error}") from None

    def parameter(self, node: ast.expr, depth: int) -> Any:
        """Return a literal, or a rule where one stands."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool | None):
            if isinstance(node.value, int) and node.value.bit_length() > 1024:
                raise self.error(node, f"a whole number of {node.value.bit_length()} bits is too large")
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            number = node.operand
            if isinstance(number, ast.Constant) and type(number.value) in (int, float):
                return -number.value if isinstance(node.op, ast.USub) else number.value  # type: ignore[operator]
        if isinstance(node, ast.Name) and node.id in ("nan", "inf"):
            return float(node.id)
        if isinstance(node, ast.Call | ast.BinOp | ast.Name):
            return self.rule(node, depth + 1)
        raise self.error(node, "expected a number, a string, True, False, None or a rule")

    def unknown(self, what: str, name: str, known: list[str]) -> str:
        """Say which known name is nearest."""
        lower = {k.lower(): k for k in known}
        near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
        if what == "rule" and f"presets.{name.lower()}" in _PRESETS:
            near, lower = [name], {name: f"presets.{name.lower()}"}
        hint = f", did you mean {lower[near[0]]!r}?" if near else f"; there are: {', '.join(known)}."
        return f"unknown {what} {name[:80]!r}{hint}"

    def error(self, node: ast.AST, message: str) -> RuleTextError:
        """Return an error that points at the node."""
        offset = len(self.text.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore"))
        return RuleTextError(_at(self.text, offset, message))


def _at(text: str, offset: int, message: str) -> str:
    offset = max(0, min(offset, len(text) - 1))
    start = max(0, offset - 30)
    shown = f"{'...' if start else ''}{text[start : offset + 40]}{'...' if offset + 40 < len(text) else ''}"
    end = "" if message.endswith(("?", ".")) else "."
    said = f'{message}{end} At character {offset + 1}: "{shown}"'
    return "".join(c if c.isprintable() else "?" for c in said)
