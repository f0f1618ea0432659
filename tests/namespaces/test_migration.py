"""A store with executions and schedules in namespaces, from before there were any, has them as namespaces, counted."""

from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from backends import migrate
from tests.conftest import new_database

EXECUTION = (
    "INSERT INTO executions (tenant_id, id, namespace, workflow_id, status, segment, sequence, snapshot_sequence,"
    " snapshot_events, snapshot_bytes, snapshot_keep, unfolded_bytes, open_items, digest, created_at, updated_at)"
    " VALUES ('default', '{0}', '{1}', 'wf', '{2}', 0, 1, 0, 0, 0, 0, 0, 0, '', {3}, {3})"
)
SCHEDULE = (
    "INSERT INTO schedules (tenant_id, id, namespace, spec, workflow_type, task_queue, overlap, catch_up_ms, paused,"
    " runs, missed, skipped, digest, revision, created_at, updated_at)"
    " VALUES ('default', 's', 'green', {0}, 'wf', 'q', 'skip', 0, 0, 0, 0, 0, '', 1, 7, 7)"
)
OLD = [
    EXECUTION.format(*row)
    for row in (("a", "blue", "running", 5), ("b", "blue", "completed", 3), ("c", "main", "running", 1))
]
NAMESPACES = "SELECT name, status, created_at FROM namespaces ORDER BY name"
TALLIES = "SELECT namespace, status, count FROM tallies ORDER BY namespace, status"
MADE = [("blue", "active", 3), ("green", "active", 7)]
COUNTED = [("blue", "completed", 1), ("blue", "running", 1), ("main", "running", 1)]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let migrations stop before namespaces came; called, it lets them go on."""
    every = migrate.known()
    monkeypatch.setattr(migrate, "known", lambda: [one for one in every if one.number < 6])
    return lambda: monkeypatch.setattr(migrate, "known", lambda: every)


def test_on_sqlite(tmp_path: Path, before: Any) -> None:
    db = apsw.Connection(str(tmp_path / "old.db"))
    migrate.on_sqlite(db, 0)
    for said in (*OLD, SCHEDULE.format("X'7B7D'")):
        db.execute(said)
    before()
    assert migrate.on_sqlite(db, 1) > 0
    assert (db.execute(NAMESPACES).fetchall(), db.execute(TALLIES).fetchall()) == (MADE, COUNTED)
    db.close()


async def test_on_postgres(postgres_server: str, before: Any) -> None:
    db = await asyncpg.connect(await new_database(postgres_server))
    try:
        await migrate.on_postgres(db)
        for said in (*OLD, SCHEDULE.format("'{}'")):
            await db.execute(said)
        before()
        assert await migrate.on_postgres(db) > 0
        found = [[tuple(row) for row in await db.fetch(said)] for said in (NAMESPACES, TALLIES)]
        assert found == [MADE, COUNTED]
    finally:
        await db.close()
