"""Formulas over named integers: what an explanation shows is what it computes. Knows no money.

A formula is names, whole numbers, `+`, `-`, `*`, `**`, `//` (rounds down), `max(…)` and `min(…)`, as in Python.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS: Mapping[str, Callable[..., int]] = {"max": max, "min": min}


def evaluate(formula: str, amounts: Mapping[str, int]) -> int:
    """What a formula comes to.

    Raises:
        ValueError: it is no such formula.
        KeyError: it names what has no amount.
    """
    try:
        return _value(ast.parse(formula, mode="eval").body, amounts)
    except (SyntaxError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{formula!r} is no formula over whole numbers: {error}") from error


def _value(node: ast.expr, amounts: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return amounts[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, amounts)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATIONS:
            return _OPERATIONS[type(sign)](_value(left, amounts), _value(right, amounts))
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(each, amounts) for each in arguments))
    raise ValueError(f"{ast.unparse(node)!r} is in no formula over whole numbers")
