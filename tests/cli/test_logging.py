"""Logging: readable by programs, and never with the secret of a token."""

import io
import json
import subprocess
import sys

import pytest

from service.logging import masked, renderer
from service.tokens.secret import MASK, mint
from tests.cli.conftest import ROOT, environment

LOGS = """
import logging, sys, structlog
from service.logging import set_up
format, token = sys.argv[1:]
set_up("info", format)
log = structlog.get_logger()
log.debug("left out")
log.info("mine", token=token, deep={"list": [token.encode()]}, count=1)
logging.getLogger("library").info("left out")
logging.getLogger("library").warning("theirs %s", token)
logging.getLogger("asyncpg.pool").warning("left out", exc_info=OSError("a page of it, every second"))
try:
    local = "a local variable"
    raise ValueError(token)
except ValueError:
    log.exception("failed")
"""


def logged(format: str, token: str) -> str:
    """What a process logs."""
    command = [sys.executable, "-c", LOGS, format, token]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_line_holds_a_secret_or_a_local_variable(format: str) -> None:
    token, parts = mint("system")
    lines = logged(format, token)
    assert parts.secret not in lines
    assert lines.count(f"holds_{parts.id}_{MASK}") == 4
    assert "left out" not in lines
    assert lines.count("a local variable") == 0


def test_json_is_one_object_a_line_for_our_records_and_for_libraries() -> None:
    lines = [json.loads(line) for line in logged("json", mint("tenant")[0]).splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[0]["event"] == "mine" and lines[0]["count"] == 1
    assert lines[1]["event"].startswith("theirs holdt_")
    assert "ValueError" in lines[2]["exception"]
    assert all("timestamp" in line for line in lines)


def test_a_terminal_has_colours_unless_it_is_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    for value, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", value)
        line = renderer("text", stream)(None, "info", {"event": "here", "level": "info"})
        assert isinstance(line, str) and ("\x1b[" in line) is coloured


def test_what_is_not_text_is_masked_as_the_text_it_becomes() -> None:
    token, parts = mint("tenant")
    found = masked({"header": (token, b"x " + token.encode(), parts), token: None, "n": 1.5, "yes": True})
    assert parts.secret not in str(found)
    assert (found["n"], found["yes"]) == (1.5, True)
