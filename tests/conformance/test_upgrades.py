"""Rows written at every version of the schema are there, value for value, when the store has come to the newest."""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import apsw
import pytest

from backends import connect, migrate
from backends.errors import StoreError
from backends.protocol import Row, StateBackend, Tx
from tests.conformance.conftest import Says

BIG = bytes(range(256)) * 40
TEXTS = {
    "tenant_id": ("acme-{n}", "a.Tenant~{n}"), "drives": ("decision", "nothing"), "namespace": ("main", "Blue ü {n}"),
    "workflow_id": ("wf",), "execution_id": ("run",),
}  # fmt: skip
NAMED = {"executions": {"id": "run"}}
ODD = ("漢 'é' {n}", '"\\{n}\t\U0001f600')
STATUSES = {"tenants": "suspended", "namespaces": "deleting", "jobs": "completed", "executions": "timed_out",
            "work_items": "discarded"}  # fmt: skip
OWN = ("position", "commit_id")
"""Where an event stands in the feed is the store's to say."""


def tables_of(db: apsw.Connection) -> dict[str, list[tuple[str, str, bool]]]:
    """Each table of a tenant with its columns: name, type and whether it may be NULL; in the order of their making."""
    found = {}
    for (table,) in list(db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")):
        columns = [(row[1], row[2], not row[3]) for row in db.execute(f"PRAGMA table_info({table})")]
        if any(name == "tenant_id" for name, _, _ in columns):
            found[table] = [column for column in columns if column[0] not in OWN]
    return found


def rows_of(table: str, columns: list[tuple[str, str, bool]], number: int) -> Iterator[dict[str, Any]]:
    """Two odd rows, one of each tenant: text of every kind, the largest numbers, bytes that are no text, NULL."""
    for at in (0, 1):
        row: dict[str, Any] = {}
        for name, kind, nullable in columns:
            if nullable and at:
                row[name] = None
            elif kind == "TEXT":
                row[name] = TEXTS.get(name, ODD)[at % len(TEXTS.get(name, ODD))].format(n=number)
            else:
                row[name] = BIG if kind == "BLOB" else (2**63 - 1 - number, -(2**63) + number)[at]
        if table in STATUSES:
            row["status"] = STATUSES[table]
        yield row | NAMED.get(table, {})


def columns_of(written: tuple[str, dict[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """The table of a row, and the columns that it had when it was written."""
    return written[0], tuple(written[1])


def putting(rows: list[tuple[str, dict[str, Any]]]) -> Any:
    """Work that inserts rows by the statements `put_<table>`."""

    async def work(tx: Tx) -> None:
        for table, row in rows:
            await tx.run(f"put_{table}", **row)

    return work


@pytest.fixture
async def fresh(empty_url: str) -> AsyncIterator[StateBackend]:
    """An empty store whose statements may write whatever they like."""
    backend = await connect(empty_url, connections=2, roles=None)
    yield backend
    await backend.close()


async def test_rows_of_every_version_reach_the_newest_as_they_were(
    fresh: StateBackend, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, written, shape = migrate.known(), list[tuple[str, dict[str, Any]]](), apsw.Connection(":memory:")
    for version in range(1, len(every) + 1):
        monkeypatch.setattr(migrate, "known", lambda upto=version: every[:upto])
        assert await fresh.migrate() == 1
        migrate.on_sqlite(shape, 0)
        rows = list[tuple[str, dict[str, Any]]]()
        for table, columns in tables_of(shape).items():
            names = [name for name, _, _ in columns]
            places = ", ".join(f":{name}" for name in names)
            says(f"put_{table}", f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})")
            rows += [(table, row) for row in rows_of(table, columns, version)]
        await fresh.write(putting(rows))
        written += rows
    shape.close()
    await fresh.check()
    assert len(written) > 2 * len(every) * 15
    for (table, names), rows in itertools.groupby(sorted(written, key=columns_of), columns_of):
        says("get", f"SELECT {', '.join(names)} FROM {table}")
        found: list[Row] = await fresh.read(lambda tx: tx.all("get"))
        missing = {tuple(row.values()) for _, row in rows} - {tuple(row) for row in found}
        assert not missing, f"{table} has not what was written to it"
    says("sums", "SELECT tenant_id, namespace, status, count FROM tallies WHERE count > 0 ORDER BY tenant_id")
    counted = [row for row in await fresh.read(lambda tx: tx.all("sums")) if row[2] == "timed_out"]
    assert len(counted) == 2 * 5, "executions from before they were tallied were counted"


async def test_a_migration_that_fails_half_way_leaves_the_version_before_it(
    fresh: StateBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, makes = migrate.known(), "CREATE TABLE half (tenant_id TEXT NOT NULL PRIMARY KEY);\n"
    await fresh.migrate()

    def next_one(text: str) -> None:
        later = migrate.Migration(every[-1].number + 1, "later", makes + text, "x")
        monkeypatch.setattr(migrate, "known", lambda: [*every, later])

    next_one("INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError):
        await fresh.migrate()
    monkeypatch.setattr(migrate, "known", lambda: every)
    await fresh.check()
    next_one("INSERT INTO half VALUES ('t');")
    assert await fresh.migrate() == 1
    await fresh.check()
