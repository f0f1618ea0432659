"""The page on security names the test of each promise; every test that it names is there."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
STATED = re.findall(r"^\| (T\d+) \| .+ \| (.+) \| (.*?)\|$", PAGE, re.M)


@lru_cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_promise_is_stated_and_one_that_is_met_names_its_test() -> None:
    assert [number for number, _, _ in STATED] == [f"T{number}" for number in range(1, 26)]
    assert not [number for number, state, proof in STATED if state.startswith("met") and "::" not in proof]
