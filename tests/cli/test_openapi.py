"""`holdfast openapi`: the contract, without a server."""

import json
from pathlib import Path

from tests.cli.conftest import Command


def test_the_document_is_printed_or_written_the_same(holdfast: Command, tmp_path: Path) -> None:
    printed = holdfast("openapi")
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout)["openapi"].startswith("3.")
    assert holdfast("openapi", "--output", "openapi.json").stdout == ""
    assert (tmp_path / "openapi.json").read_text() == printed.stdout
