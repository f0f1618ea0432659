"""A few thousand rows for the tests of plans: two tenants, every status, spread over queues, workflows and time."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.tidy import house

NOW = 1_700_000_000_000
EXECUTIONS = 2_000
ENDED = ("completed", "completed", "completed", "failed", "cancelled")
TENANTS = ("acme", "globex", *(f"t{index}" for index in range(200)))
ITEMS = ("ready", "delayed", "leased", "completed", "completed", "dead")


def tenant(index: int) -> str:
    """Three quarters of everything belong to one tenant."""
    return "globex" if index % 4 == 3 else "acme"


def stock() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each table with its rows; columns that are not given are NULL."""
    many = range(EXECUTIONS)
    yield (
        "tenants",
        [
            {
                "tenant_id": name,
                "name": name,
                "status": "active",
                "limits": "{}",
                "version": 1,
                "created_at": NOW,
                "updated_at": NOW,
            }
            for name in TENANTS
        ],
    )
    yield "tokens", [token(index) for index in range(400)]
    yield "executions", [execution(index) for index in many]
    yield "events", [event(index, sequence) for sequence in (1, 2) for index in many]
    yield "work_items", [item(index) for index in many]
    yield "states", [{"tenant_id": tenant(i), "execution_id": f"e{i}", "state": b"{}", "sequence": 1} for i in many]
    yield (
        "snapshots",
        [
            {"tenant_id": tenant(i), "execution_id": f"e{i}", "sequence": 1, "body": b"{}", "created_at": NOW}
            for i in many
        ],
    )
    yield (
        "facets",
        [
            {
                "tenant_id": tenant(i),
                "execution_id": f"e{i}",
                "family": "attr",
                "name": "customer",
                "text_value": f"c{i % 50}",
            }
            for i in many
        ],
    )
    yield (
        "shelves",
        [{"tenant_id": name, "queue": f"q{q}", "requires": ""} for name in TENANTS for q in range(5)],
    )
    yield (
        "idempotency_keys",
        [
            {
                "tenant_id": tenant(i),
                "key": f"k{i}",
                "fingerprint": "f",
                "status": 200,
                "body": b"{}",
                "created_at": NOW + i,
            }
            for i in many
        ],
    )
    yield (
        "alarms",
        [{"tenant_id": tenant(i), "owner_id": f"e{i}", "name": "timer:1", "due_at": NOW + i} for i in many],
    )
    yield "audit_heads", [{"tenant_id": name, "sequence": 100, "hash": "h"} for name in TENANTS]
    yield (
        "audit_checkpoints",
        [{"tenant_id": name, "sequence": 10, "hash": "h", "at": NOW} for name in TENANTS if not name.startswith("t1")],
    )
    yield "audit", [line(name, sequence) for name in TENANTS for sequence in range(11, 31)]
    yield "runs", [run(index) for index in many]
    yield "steps", [step(index, seq) for seq in (1, 2, 3) for index in many]
    yield "schedules", [schedule(index) for index in range(400)]
    yield "schedule_runs", [occurrence(index) for index in many]
    yield (
        "sweep_leases",
        [{"tenant_id": "", "name": "sweeps", "holder": "h", "epoch": 1, "since": NOW, "expires_at": NOW}],
    )
    yield "jobs", [job(index) for index in range(400)]
    yield (
        "namespaces",
        [{"tenant_id": name, "name": "blue", "status": "active", "created_at": NOW} for name in TENANTS],
    )
    yield "workers", [worker(index) for index in range(400)]
    yield "worker_queues", [{"tenant_id": tenant(i), "queue": f"q{i % 5}", "worker_id": f"k{i}"} for i in range(400)]
    yield "queue_rates", [rates(index) for index in range(1_000)]
    statuses = ("running", *sorted(set(ENDED)))
    yield (
        "tallies",
        [{"tenant_id": name, "namespace": "main", "status": said, "count": 9} for name in TENANTS for said in statuses],
    )
    yield (
        "tally_changes",
        [{"tenant_id": tenant(i), "id": f"c{i}", "namespace": "main", "status": "running", "count": 1} for i in many],
    )
    yield "workflows", [{"tenant_id": name, "workflow_id": "wf", "revision": 100} for name in ("acme", "globex")]
    yield "definitions", [definition(index) for index in range(400)]


def rates(index: int) -> dict[str, Any]:
    """What happened on a queue in some ten seconds."""
    of = {"tenant_id": tenant(index), "bucket": NOW + index // 20 * 10_000, "queue": f"q{index % 20}"}
    return of | {"enqueued": 1, "claimed": 1, "completed": 1, "failed": 0}


def token(index: int) -> dict[str, Any]:
    """A token."""
    return {
        "tenant_id": tenant(index), "id": f"t{index}", "name": "n", "role": "worker", "queues": "[]", "verifier": "v",
        "reject_tag": b"tag", "created_at": NOW + index, "expires_at": NOW * 2,
    }  # fmt: skip


def execution(index: int) -> dict[str, Any]:
    """One in ten runs, the others have ended."""
    status = "running" if index % 10 == 0 else ENDED[index % 5]
    return {
        "tenant_id": tenant(index), "id": f"e{index}", "namespace": "blue" if index % 50 == 1 else "main",
        "workflow_id": f"wf{index % 20}", "status": status, "parent_id": "e0" if index % 100 == 0 else None,
        "segment": 0, "sequence": 2, "snapshot_sequence": 0, "snapshot_events": 200, "snapshot_bytes": 0,
        "snapshot_keep": 3, "unfolded_bytes": 0, "open_items": 1, "digest": "", "created_at": NOW + index,
        "updated_at": NOW + index,
    }  # fmt: skip


def event(index: int, sequence: int) -> dict[str, Any]:
    """One event of an execution."""
    return {
        "tenant_id": tenant(index), "execution_id": f"e{index}", "sequence": sequence, "kind": "execution.started",
        "body": b"{}", "at": NOW, "actor": "a",
    }  # fmt: skip


def item(index: int) -> dict[str, Any]:
    """One work item of an execution."""
    status = ITEMS[index % 6]
    return {
        "tenant_id": tenant(index), "id": f"w{index}", "execution_id": f"e{index}", "queue": f"q{index % 5}",
        "requires": "", "drives": "nothing", "payload": b"{}", "priority": index % 3, "ready_at": NOW + index,
        "attempt": 1, "max_attempts": 3, "dedup_key": f"d{index}", "status": status, "epoch": 1, "lease_ms": 30_000,
        "expires_at": NOW + index if status == "leased" else None, "digest": "", "created_at": NOW + index,
        "worker_id": f"k{index % 400}" if status == "leased" else None,
        "settled_at": NOW + index if status in ("completed", "dead") else None,
    }  # fmt: skip


def line(name: str, sequence: int) -> dict[str, Any]:
    """A line of a tenant's audit log."""
    return {
        "tenant_id": name, "sequence": sequence, "at": NOW + sequence, "actor": "a", "action": "token.minted",
        "target": "t1", "hash": "h",
    }  # fmt: skip


def run(index: int) -> dict[str, Any]:
    """What an execution has beside its head when workflow code drives it."""
    return {
        "tenant_id": tenant(index), "id": f"e{index}", "woken_at": 1, "submits": 1, "seen": 1, "open_steps": 1,
        "alarms": 1, "first_id": f"e{index}", "place": 0, "attempt": 1, "options": b"{}",
    }  # fmt: skip


def step(index: int, seq: int) -> dict[str, Any]:
    """What a workflow asked for; one of three is open."""
    return {
        "tenant_id": tenant(index), "execution_id": f"e{index}", "kind": "timer", "seq": seq, "name": "", "digest": "",
        "said": b"{}", "status": "open" if seq == 3 else "done", "created_at": NOW,
    }  # fmt: skip


def schedule(index: int) -> dict[str, Any]:
    """A schedule."""
    return {
        "tenant_id": tenant(index), "id": f"s{index}", "namespace": "main", "spec": b"{}", "workflow_type": "wf",
        "task_queue": "q", "overlap": "skip", "catch_up_ms": 0, "paused": 0, "next_at": NOW + index, "runs": 5,
        "missed": 0, "skipped": 0, "digest": "", "revision": 1, "created_at": NOW + index, "updated_at": NOW + index,
    }  # fmt: skip


def occurrence(index: int) -> dict[str, Any]:
    """An occurrence of one of the schedules; one in ten is open."""
    return {
        "tenant_id": tenant(index), "schedule_id": f"s{index % 400}", "execution_id": f"e{index}",
        "number": index // 400, "nominal_at": NOW + index, "status": "completed", "started_at": NOW,
        "ended_at": None if index % 10 == 0 else NOW, "followed": 0, "dropped": 0, "latest_id": "",
    }  # fmt: skip


def worker(index: int) -> dict[str, Any]:
    """A worker; one in ten was lost."""
    return {
        "tenant_id": tenant(index), "id": f"k{index}", "namespace": "main", "identity": "k", "queues": "[]",
        "types": "[]", "activities": "[]", "capacities": "{}", "heartbeat_ms": 10_000, "registered_at": NOW,
        "heartbeat_at": NOW, "expires_at": NOW + 30_000 if index % 10 else NOW - 900_000 + index,
    }  # fmt: skip


def job(index: int) -> dict[str, Any]:
    """A job; most are done."""
    status = "running" if index % 20 == 0 else "completed"
    return {
        "tenant_id": "", "id": f"j{index}", "kind": "k", "status": status, "detail": b"{}", "total": 1, "done": 0,
        "due_at": NOW + index, "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip


def definition(index: int) -> dict[str, Any]:
    """A version of the one workflow."""
    return {
        "tenant_id": tenant(index), "workflow_id": "wf", "version": f"v{index}", "revision": index, "digest": "d",
        "body": b"{}", "validated": 1, "snapshot_events": 200, "snapshot_bytes": 0, "snapshot_keep": 3,
        "created_at": NOW + index, "created_by": "a",
    }  # fmt: skip


def as_records(table: str, rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and tuples for a bulk insert."""
    columns = [column for column in house.tables()[table] if any(column in row for row in rows)]
    return columns, [tuple(row.get(column) for column in columns) for row in rows]


async def stocked_postgres(db: Any, *, analyzed: bool) -> None:
    """Fill a migrated store. Nobody vacuums or analyzes it later: a server would, a minute after its tables grew, one
    table after another, and a plan depends on which it has come to."""
    tables = await db.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname"
    )
    await db.execute(";".join(f"ALTER TABLE {row[0]} SET (autovacuum_enabled = off)" for row in tables))
    await db.execute("DELETE FROM tenants")
    for table, rows in stock():
        columns, records = as_records(table, rows)
        await db.copy_records_to_table(table, columns=columns, records=records)
    if analyzed:
        await db.execute("ANALYZE")
