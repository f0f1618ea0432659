"""Conditions of branches and edges, as simply as an example may: `state.a.b == literal`, or `state.flag` alone."""

import json
import operator
import re
from collections.abc import Callable
from typing import Any

FORM = re.compile(r"\s*state\.([\w.\-]+)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?)\s*)?")
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def holds(condition: Any, state: Any) -> bool:
    """Whether a condition holds; one that is malformed, or asks for what is not there, does not."""
    found = FORM.fullmatch(condition) if isinstance(condition, str) else None
    if found is None:
        return False
    path, sign, literal = found.groups()
    try:
        value = state
        for step in path.split("."):
            value = value[step]
        return value is True if sign is None else bool(COMPARE[sign](value, read(literal)))
    except (KeyError, TypeError, ValueError):
        return False


def read(literal: str) -> Any:
    """A JSON literal, or a text in single quotes."""
    if len(literal) >= 2 and literal[0] == literal[-1] == "'":
        return literal[1:-1]
    return json.loads(literal)
