"""`holdfast config show`: every value, where it is from, and what is wrong, before anything is started."""

import json
import tomllib
from pathlib import Path

import pytest

from service.settings import FIELDS
from tests.cli.conftest import Command


def test_each_setting_is_shown_with_where_it_comes_from(holdfast: Command, tmp_path: Path) -> None:
    (tmp_path / "given.toml").write_text("port = 1234\n")
    done = holdfast(
        "config", "show", "--origins", "--format", "json", "--config", "given.toml", "--log-level", "debug",
        HOLDFAST__DOCS="false",
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert list(shown) == list(FIELDS)
    assert shown["port"] == {"value": 1234, "origin": "toml:given.toml"}
    assert shown["docs"] == {"value": False, "origin": "environment:HOLDFAST__DOCS"}
    assert shown["log_level"] == {"value": "debug", "origin": "flag:--log-level"}
    assert shown["host"] == {"value": "127.0.0.1", "origin": "default"}


def test_the_table_names_every_setting_and_its_origin(holdfast: Command) -> None:
    lines = [line.split() for line in holdfast("config", "show", "--origins", "--port", "1").stdout.splitlines()]
    assert ["port", "1", "flag:--port"] in lines
    assert {line[0] for line in lines if line} >= set(FIELDS)


def test_what_is_shown_as_toml_can_be_given_as_a_file(holdfast: Command, tmp_path: Path) -> None:
    shown = holdfast("config", "show", "--origins", "--format", "toml", "--port", "1").stdout
    assert tomllib.loads(shown)["port"] == 1
    (tmp_path / "holdfast.toml").write_text(shown)
    assert holdfast("config", "show", "--format", "toml").returncode == 0


@pytest.mark.parametrize("format", ["table", "toml", "json"])
def test_no_format_shows_a_password(holdfast: Command, format: str) -> None:
    url = "postgresql://me:hunter2@host/db"
    done = holdfast("config", "show", "--format", format, "--database-url", url)
    assert "postgresql://me:***@host/db" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_an_unknown_flag_is_refused_with_the_nearest_one(holdfast: Command) -> None:
    done = holdfast("serve", "--log-levle", "debug")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "holdfast: Unknown option: --log-levle. Did you mean --log-level?\n"


def test_an_unknown_variable_and_a_wrong_value_are_told_together(holdfast: Command) -> None:
    done = holdfast("serve", "--log-level", "warn", HOLDFAST__PROT="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'HOLDFAST__PORT'?" in done.stderr
    assert "did you mean 'warning'?" in done.stderr
    assert "Traceback" not in done.stderr
