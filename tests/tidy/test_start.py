"""What a start of the server loads: after a kill it is back as soon as its imports are."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.conftest import settings_for

PROGRAM = """
import asyncio, sys, msgspec
import service.cli.commands, service.cli.first_token, service.cli.serve
from service import main
from service.settings import Settings

async def start(settings):
    async with main.running(settings) as services:
        main.application(services)

asyncio.run(start(msgspec.json.decode(sys.argv[1], type=Settings)))
print(*sys.modules)
"""
OF_OTHERS = ("pydantic", "hypothesis", "httpx", "numpy", "pytest", "requests", "schemathesis", "sqlglot")
"""Libraries that may be installed, of which a server has no use."""
LATER = ("service.http.contract", "service.http.examples", "service.http.schemas", "service.cli.doctor")
"""The OpenAPI document is made when it is asked for; a command is loaded when it is called."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules that a server process has when it is ready."""
    given = settings_for(f"sqlite:///{tmp_path_factory.mktemp('start') / 'holdfast.db'}")
    text = subprocess.run(
        [sys.executable, "-c", PROGRAM, msgspec.json.encode(given).decode()],
        cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return set(text.split())


@pytest.mark.parametrize("library", OF_OTHERS)
def test_a_start_loads_no_library_that_a_server_has_no_use_for(library: str, loaded: set[str]) -> None:
    assert library not in loaded


@pytest.mark.parametrize("module", LATER)
def test_a_start_loads_nothing_that_is_for_later(module: str, loaded: set[str]) -> None:
    assert module not in loaded
    assert "service.http.app" in loaded
