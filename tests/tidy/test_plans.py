"""How the hot statements are carried out: by which index, without reading a table, without sorting what the index orders.

Each is asked for twice on each engine: over tables that are still empty, and over a few thousand rows that were analyzed.
On Postgres in a session like the service's own, as the generic plan that a prepared statement settles on.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from backends import migrate
from backends.postgres import SESSION
from backends.statements import PG_TYPES, ROWS, Statement, load
from tests.conftest import new_database
from tests.tidy.stock import NOW, as_records, stock


class Hot(NamedTuple):
    """A statement and how it must be carried out: by these indexes, with no more sorts than these (of a batch's few rows,
    or of what is due). `rows` fill its batch; the others are its parameters."""

    name: str
    params: dict[str, Any]
    indexes: tuple[str, ...]
    sorts: int = 0
    rows: tuple[tuple[Any, ...], ...] = ()
    where: str = "(1 = 1)"


A: dict[str, Any] = {"tenant_id": "acme"}
SHELF = {**A, "queue": "q1", "requires": "", "now": NOW + 500, "limit": 10}
PAGE = {**A, "at": 2**62, "id": "", "limit": 100}
KEYS = (("acme", "e1"), ("acme", "e2"), ("globex", "e3"))
FACET = "EXISTS (SELECT 1 FROM facets f WHERE f.tenant_id = e.tenant_id AND f.execution_id = e.id AND f.family = 'attr' AND f.name = 'customer' AND f.text_value = 'c1')"
HOT = [
    Hot("ready_on_shelf", SHELF, ("work_ready", "work_delayed"), sorts=1),
    Hot("load_executions", {}, ("executions_pkey", "work_items_pkey"), 1, tuple((t, e, None) for t, e in KEYS)),
    Hot("load_work_items", {}, ("work_items_pkey",), 1, (("acme", "w1"), ("acme", "w2"), ("globex", "w3"))),
    Hot("open_items_of_executions", {}, ("work_of_execution",), 1, KEYS),
    Hot("open_items_by_dedup_key", {}, ("work_dedup",), 1, (("acme", "d1"), ("globex", "d3"))),
    Hot("load_states", {}, ("states_pkey",), 1, KEYS),
    Hot("load_standings", {}, ("tenants_pkey", "tokens_pkey"), 0, (("acme", "acme", "t1"), ("globex", "", "t3"))),
    Hot("load_idempotency_keys", {}, ("idempotency_keys_pkey",), 1, (("acme", "k1"), ("globex", "k3"))),
    Hot("events_since_snapshots", {}, ("events_pkey", "snapshots_pkey"), 1, KEYS),
    Hot("read_tokens_by_id", {"ids": ["t1"]}, ("tokens_by_id", "tenants_pkey"), 1),
    Hot("read_execution", {**A, "id": "e1"}, ("executions_pkey", "states_pkey", "events_pkey")),
    Hot("list_executions", PAGE, ("executions_by_age",)),
    Hot("list_executions_oldest", PAGE | {"at": 0}, ("executions_by_age",)),
    Hot("list_executions", PAGE, ("executions_by_status",), where="e.status = 'failed' AND e.status <> 'completed'"),
    Hot("list_executions", PAGE, ("executions_by_workflow",), where="e.workflow_id = 'wf1'"),
    Hot("list_executions", PAGE, ("executions_by_parent",), where="e.parent_id = 'e0'"),
    Hot("list_executions", PAGE, ("executions_by_age", "facets_pkey"), where=FACET),
    Hot("list_executions_updated", {**A, "commit_id": 2**62, "position": 2**62, "limit": 100}, ("events_feed", "executions_pkey")),
    Hot("read_events", {**A, "execution_id": "e1", "after": 0, "limit": 100}, ("events_pkey",)),
    Hot("read_feed", {**A, "commit_id": 0, "position": 0, "horizon": 2**62, "limit": 100}, ("events_feed",)),
    Hot("read_snapshot_latest", {**A, "execution_id": "e1", "sequence": 9}, ("snapshots_pkey",)),
    Hot("expired_leases", {"now": NOW + 500, "limit": 100}, ("work_leased",)),
    Hot("due_items", {"now": NOW + 500, "limit": 100}, ("work_due",)),
    Hot("due_jobs", {"now": NOW + 500, "limit": 100}, ("jobs_running",)),
    Hot("expire_idempotency_keys", {"before": NOW + 500, "limit": 100}, ("idempotency_keys_by_age", "idempotency_keys_pkey")),
    Hot("list_dead_letters", {**A, "at": 0, "after": "", "limit": 100}, ("work_dead",)),
    Hot("list_work_items", {**A, "after": "", "limit": 100}, ("work_items_pkey",)),
    Hot("shelves_of_queues", {**A, "names": ["q1", "q2"]}, ("shelves_pkey", "queues_pkey"), 1),
    Hot("shelves_of_tenant", A, ("shelves_pkey", "queues_pkey")),
    Hot("list_definitions", {**A, "at": 2**62, "workflow_id": "", "version": "", "limit": 100}, ("definitions_by_age",)),
]
IDS = [f"{hot.name}{'' if hot.where == '(1 = 1)' else '-' + hot.indexes[0]}" for hot in HOT]


def fitted(engine: str, hot: Hot) -> Statement:
    """The statement with its filter."""
    found = load(engine)[hot.name]
    return found.filtered(hot.where) if "{where}" in found.text else found


@pytest.fixture(scope="module", params=[False, True], ids=["empty", "filled"])
def sqlite_store(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate.on_sqlite(db, 0)
    for table, rows in stock() if request.param else ():
        columns, records = as_records(table, rows)
        marks = ", ".join("?" * len(columns))
        db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", records)
    if request.param:
        db.execute("ANALYZE")
    yield db
    db.close()
