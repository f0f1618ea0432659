"""The page on what the engine promises names the test of each promise; every test that it names is there."""

import re
from pathlib import Path

import pytest

from tests.security.test_promises import names_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "engine-promises.md").read_text("utf-8")
ROWS = re.findall(r"^\| ([OMB]\d+) \| .+ \| (.*?) \|$", PAGE, re.M)
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name in names_in(f"tests/{path}")


def test_every_promise_is_counted_and_names_its_tests() -> None:
    counted = [f"{part}{number}" for part, last in (("O", 16), ("M", 14), ("B", 39)) for number in range(1, last + 1)]
    assert [number for number, _ in ROWS] == counted
    assert [number for number, proof in ROWS if "::" not in proof] == []
