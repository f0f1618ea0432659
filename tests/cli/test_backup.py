"""`holdfast backup`: a copy of a store, served or not; nothing is written over, nothing half is left."""

import contextlib
import re
import resource
import signal
import sqlite3
from pathlib import Path

import pytest

from backends.backup import back_up
from backends.errors import Full
from backends.new_file import new_file
from service.cli.ended import through_the_door
from tests.cli.conftest import Command, start


def test_a_store_is_copied_while_it_is_served_and_the_copy_is_well(holdfast: Command, tmp_path: Path) -> None:
    with start(tmp_path, "serve") as server:
        done = holdfast("backup", "copy.db")
        assert (done.returncode, done.stderr) == (0, "")
        [admin] = server.tokens
    assert "holdfast doctor --database-url sqlite:///copy.db" in done.stdout
    examined = holdfast("doctor", "--database-url", "sqlite:///copy.db")
    assert examined.returncode == 0, examined.stdout
    with start(tmp_path, "serve", "--database-url", "sqlite:///copy.db") as server:
        assert server.ask(admin, "GET", "/v1/tenants")[0] == 200


def test_a_copy_needs_no_file_beside_it_and_is_as_private_as_the_store(holdfast: Command, tmp_path: Path) -> None:
    assert holdfast("init").returncode == 0
    (tmp_path / "holdfast.db").chmod(0o600)
    assert holdfast("backup", "copy.db").returncode == 0
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_copied_is_refused_and_leaves_nothing(holdfast: Command, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        done = holdfast("backup", *words)
        assert done.returncode and done.stdout == "" and done.stderr.count("\n") == 1, done
        return done.stderr

    assert "there is no file" in refused("copy.db")
    for script in ("", "CREATE TABLE executions (id TEXT)"):
        with contextlib.closing(sqlite3.connect(tmp_path / "holdfast.db")) as other:
            other.executescript(script)
        assert "is no store of Holdfast's" in refused("copy.db")
    (tmp_path / "holdfast.db").unlink()
    assert holdfast("init").returncode == 0
    (tmp_path / "there.db").write_text("kept")
    assert "exists already" in refused("there.db")
    assert (tmp_path / "there.db").read_text() == "kept"
    assert "cannot be copied" in refused("nowhere/copy.db")
    assert "pg_dump" in refused("copy.db", "--database-url", "postgresql://nobody@localhost/none")
    page = bytearray((tmp_path / "holdfast.db").read_bytes())
    page[4096 * 3 : 4096 * 3 + 8] = bytes(8)
    (tmp_path / "holdfast.db").write_bytes(page)
    assert "is damaged" in refused("copy.db")
    assert sorted(path.name for path in tmp_path.glob("*.db*") if not path.name.startswith("holdfast")) == ["there.db"]


def test_a_limit_that_leaves_no_room_is_said_to_be_one_and_nothing_is_left(holdfast: Command, tmp_path: Path) -> None:
    assert holdfast("init").returncode == 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(Full, match="there is no room for a copy"):
            back_up(tmp_path / "holdfast.db", tmp_path / "copy.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.glob("copy*")) == []


@pytest.mark.parametrize("name", ["a b.db", "a%20b.db", "a?b.db"])
def test_the_url_that_is_told_is_that_of_the_copy_however_odd_its_name(holdfast: Command, name: str) -> None:
    assert holdfast("init").returncode == 0
    told = re.search(r"--database-url (\S+)`", holdfast("backup", name).stdout)
    assert told is not None
    assert holdfast("doctor", "--database-url", told.group(1)).returncode == 0


def test_of_two_at_once_to_one_file_the_first_to_end_has_it_whole(tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    with pytest.raises(FileExistsError), new_file(target) as slow:
        slow.write_text("half")
        with new_file(target) as fast:
            fast.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("copy.db", "whole")]


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_told_to_end_takes_away_what_was_begun(tmp_path: Path, told: signal.Signals) -> None:
    with pytest.raises(SystemExit) as end, through_the_door(), new_file(tmp_path / "copy.db"):
        signal.raise_signal(told)
    assert (end.value.code, list(tmp_path.iterdir())) == (128 + told, [])
    assert signal.getsignal(told) is signal.SIG_DFL
