"""When the store or the address is not to be had: one sentence that says what to do, never a traceback."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import apsw
import pytest

from tests.cli.conftest import Command, Running, start


def said_in_one_line(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """Exit code 1, nothing printed, one line on stderr with these parts."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: ") and done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_file_that_another_server_holds(holdfast: Command, tmp_path: Path) -> None:
    with start(tmp_path, "serve"):
        for command in (["serve", "--port", "0"], ["migrate"], ["init"], ["token", "bootstrap"]):
            said_in_one_line(holdfast(*command), "another process serves holdfast.db; stop it")


def test_a_port_that_is_taken(holdfast: Command, served: Running) -> None:
    port = served.url.rpartition(":")[2]
    said_in_one_line(
        holdfast("serve", "--port", port), f"127.0.0.1 port {port} (Address already in use)", "give another --port"
    )


def test_an_address_that_is_not_of_this_machine(holdfast: Command) -> None:
    done = holdfast("serve", "--port", "0", "--host", "192.0.2.1")
    why = "nothing can listen on 192.0.2.1 port 0 (Cannot assign requested address)"
    said_in_one_line(done, why, "; give another --port or --host")


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64, "\udcff"])
def test_an_address_that_cannot_be_one(holdfast: Command, host: str) -> None:
    done = holdfast("serve", "--port", "0", "--host", host)
    said_in_one_line(done, f"nothing can listen on {host!r} (it cannot be the name of a host); give another --port")


def test_a_postgres_that_is_away(holdfast: Command) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/db"
    done = holdfast("serve", "--port", "0", "--database-url", url)
    said_in_one_line(done, "Postgres cannot be reached; check the address")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "odd",
    [
        "127.0.0.1:not-a-port/db", "127.0.0.1:99999/db", "127.0.0.1:1,127.0.0.1:99999/db", "[::1/db",
        "127.0.0.1:1/db?sslmode=hunter2",
    ],
)  # fmt: skip
def test_a_postgres_whose_url_cannot_be_read(holdfast: Command, odd: str) -> None:
    done = holdfast("migrate", "--database-url", f"postgresql://me:hunter2@{odd}")
    said_in_one_line(done, "the URL of Postgres cannot be read; check its host, port")
    assert "hunter2" not in done.stderr


def test_a_schema_that_is_newer(holdfast: Command, tmp_path: Path) -> None:
    assert holdfast("migrate").returncode == 0
    with contextlib.closing(apsw.Connection(str(tmp_path / "holdfast.db"))) as store:
        store.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 1)")
    for command in (["serve", "--port", "0"], ["migrate"], ["token", "bootstrap"]):
        said_in_one_line(holdfast(*command), "migration 9999, newer than this program; run a newer holdfast")


@pytest.mark.parametrize("command", [["token", "bootstrap"], ["audit", "verify"], ["doctor"], ["backup", "copy.db"]])
def test_a_file_that_is_not_there_is_made_by_no_command_that_needs_a_store(
    holdfast: Command, tmp_path: Path, command: list[str]
) -> None:
    done = holdfast(*command, "--database-url", "sqlite:///misspelt.db")
    assert done.returncode == 1 and "there is no file misspelt.db" in done.stdout + done.stderr
    assert [path for path in tmp_path.iterdir() if "misspelt" in path.name] == []


@pytest.mark.parametrize("command", [["token", "bootstrap"], ["audit", "verify"], ["doctor"]])
def test_a_file_that_is_gone_beside_its_wal_is_no_store_that_is_still_to_be_made(
    holdfast: Command, tmp_path: Path, command: list[str]
) -> None:
    with contextlib.closing(apsw.Connection(str(tmp_path / "kept.db"))) as store:
        store.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)").fetchall()
        shutil.copy(tmp_path / "kept.db-wal", tmp_path / "gone.db-wal")
    done = holdfast(*command, "--database-url", "sqlite:///gone.db")
    assert (
        done.returncode == 1 and "gone.db is gone or empty, and gone.db-wal holds commits" in done.stdout + done.stderr
    )
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize("path", ["not-a-store.db", "no-such-folder/holdfast.db"])
def test_a_path_that_is_no_store(holdfast: Command, tmp_path: Path, path: str) -> None:
    (tmp_path / "not-a-store.db").write_text("not a database, not at all, not even nearly one; only words and words")
    done = holdfast("migrate", "--database-url", f"sqlite:///{tmp_path}/{path}")
    said_in_one_line(done, "check that database_url names a store")


@pytest.mark.parametrize(
    "command", [["serve", "--port", "0"], ["migrate"], ["init"], ["token", "bootstrap"], ["audit", "verify"]]
)
def test_a_folder_where_a_store_should_be(holdfast: Command, tmp_path: Path, command: list[str]) -> None:
    done = holdfast(*command, "--database-url", f"sqlite:///{tmp_path}")
    said_in_one_line(done, f"{tmp_path} is a folder; name a file in it")
