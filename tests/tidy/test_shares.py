"""The order in which workers take the modules of a test run."""

from pathlib import Path

import pytest

from tests.shares import LONG

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", LONG)
def test_every_module_that_is_said_to_take_long_is_there(name: str) -> None:
    assert (TESTS / f"{name}.py").is_file()
