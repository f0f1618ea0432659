"""`holdfast scheduler`: for Postgres alone, whatever the settings say of servers; ends in peace."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import SECONDS, Command, Running
from tests.conftest import new_database

READY = re.compile(r"schedules postgresql://\S+ as \S+/\d+/\w+\n")


def test_a_sqlite_file_has_no_scheduler_beside_its_server(holdfast: Command) -> None:
    done = holdfast("scheduler")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "holdfast: a SQLite file belongs to one process, which sweeps it itself: start `holdfast serve` with "
        "sweep = true; `holdfast scheduler` is for Postgres\n"
    )


def test_a_scheduler_of_a_store_that_is_away_says_so(holdfast: Command) -> None:
    done = holdfast("scheduler", "--database-url", "postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: Postgres cannot be reached") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("said", [(), ("--sweep", "false")], ids=["by default", "with servers that do not sweep"])
async def test_a_scheduler_sweeps_and_stops_when_it_is_told(
    postgres_server: str, tmp_path: Path, said: tuple[str, ...]
) -> None:
    url = await new_database(postgres_server)
    scheduler = Running(tmp_path, "scheduler", "--database-url", url, *said)
    try:
        scheduler.await_said(READY)
        assert "holds_" not in scheduler.said
        assert scheduler.stop() == 0
    finally:
        if scheduler.process.poll() is None:
            scheduler.process.kill()
            scheduler.process.wait(SECONDS)


def test_the_help_says_what_it_is_for(holdfast: Command) -> None:
    said = " ".join(holdfast("scheduler", "--help").stdout.split())
    assert "Sweep a Postgres store, and serve nobody" in said and "--sweep-lease-ms" in said
    assert "scheduler" in holdfast("--help").stdout
