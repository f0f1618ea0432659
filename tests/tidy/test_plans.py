"""How the hot statements are carried out: by which index, without reading a table, without sorting what the index
orders.

Each is asked for over a few thousand rows, before and after they are analyzed: SQLite never analyzes by itself,
Postgres does a minute late. On Postgres in a session like the service's own, as the generic plan that a prepared
statement settles on.
"""

import ast
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import apsw
import asyncpg
import pytest
from sqlglot import exp

from backends import migrate
from backends.postgres import SESSION
from backends.postgres_connections import Connections
from backends.sqlite_file import opened
from backends.statements import Statement, load
from service.executions.facets import alone, has
from service.executions.routes import by_the_rarer
from tests.conftest import new_database
from tests.tidy import house
from tests.tidy.house import tables
from tests.tidy.stock import NOW, as_records, stock, stocked_postgres
from tests.tidy.tenancy import parse
from tests.tidy.test_tenants import ACROSS

OPEN = "(1 = 1)"
SWEEPING = (
    "service.kernel.jobs",
    "service.kernel.lease",
    "service.kernel.rota",
    "service.kernel.tallies",
    "service.work.claims",
)
"""Modules beside `*.sweeps` by which sweeps find what to do."""


class Hot(NamedTuple):
    """A statement and how it must be carried out.

    `indexes` must all be used, each bound at least by the columns in its parentheses; `a(x)|b(y)` is either. `sorts` is
    how many sorts are right: of a batch's few rows, or of what is due. `rows` fill the batch, `params` are the rest.
    """

    name: str
    params: dict[str, Any]
    indexes: tuple[str, ...]
    sorts: int = 0
    rows: tuple[tuple[Any, ...], ...] = ()
    where: str = OPEN
    only_analyzed: str = ""
    """Why Postgres carries it out otherwise until its first ANALYZE; empty where it does not."""


A: dict[str, Any] = {"tenant_id": "acme"}
LATER = {"now": NOW + 500, "limit": 100}
PAGE = {**A, "at": 2**62, "id": "", "limit": 100}
LINE = {"now": NOW + 500, "after": "a", "looks": 250}
ALARMS = (("acme", "e1", "timer:1"), ("globex", "e3", "timer:1"))
STEPS = (("acme", "e1", "timer", 1), ("globex", "e3", "timer", 2))
KEYS = (("acme", "e1"), ("acme", "e2"), ("globex", "e3"))
CUSTOMER = has("attr").format(name="'customer'", condition="f.text_value = 'c1'")
AMONG = {"ids": ["e1", "e2", "e3"]}
RUNNING = "(e.status = 'running' AND e.status <> 'completed')"
STATS = {**A, "namespace": "main", "now": NOW, "most": 5_001}
DELAYED = "work_delayed(tenant_id, queue)"
LEASED = "work_leased_of_tenant(tenant_id, expires_at)"
FEW_QUEUES = "that two queues are not all of a tenant's items is not known before"
OF_NAMESPACE = "executions_of_namespace(tenant_id, namespace)"
RARE = "that few executions are running is not known before"
OPEN_FEW = "what is open is guessed to be few rows, and those are read whole"
ANY_INDEX = "one index of a tenant's rows is as good as another"
HOT = [
    Hot(
        "heads_of_shelves",
        {"busy": ["acme/c"], "most": 100, **LATER},
        (
            "work_ready(tenant_id, queue, requires)",
            "work_delayed(tenant_id, queue, requires, ready_at)|work_due_of_tenant(tenant_id, ready_at)",
            "work_concurrency(tenant_id)",  # of what is leased under a key; hashed once where that is less
        ),
        sorts=1,
        rows=(("acme", "q1", "", 100), ("globex", "q2", "", 100)),
    ),
    Hot(
        "shelves_of_keys",
        {},
        (
            "work_ready_by_key(tenant_id, concurrency_key)",
            "work_ready_by_key(tenant_id, concurrency_key, queue, requires)",
            "work_concurrency(tenant_id, concurrency_key)",
            "work_items_pkey(tenant_id, id)",
            "queues_pkey(tenant_id, name)",
        ),
        sorts=1,
        rows=(("acme", "c"), ("globex", "d")),
    ),
    Hot(
        "load_executions",
        {},
        ("executions_pkey(tenant_id, id)", "work_items_pkey(tenant_id, id)"),
        1,
        tuple((tenant, execution, None) for tenant, execution in KEYS),
    ),
    Hot(
        "load_work_items",
        {},
        ("work_items_pkey(tenant_id, id)",),
        1,
        (("acme", "w1"), ("acme", "w2"), ("globex", "w3")),
    ),
    Hot("open_items_of_executions", {}, ("work_of_execution(tenant_id, execution_id)",), 1, KEYS),
    Hot(
        "open_items_by_dedup_key",
        {},
        ("work_dedup(tenant_id, dedup_key)",),
        1,
        (("acme", "d1"), ("globex", "d3")),
        only_analyzed="three statuses are guessed to be six rows, and six rows are read whole",
    ),
    Hot("load_states", {}, ("states_pkey(tenant_id, execution_id)",), 1, KEYS),
    Hot(
        "load_standings",
        {},
        ("tenants_pkey(tenant_id)", "tokens_pkey(tenant_id, id)|tokens_by_id(id)"),
        0,
        (("acme", "acme", "t1"), ("globex", "", "t3")),
    ),
    Hot("load_idempotency_keys", {}, ("idempotency_keys_pkey(tenant_id, key)",), 1, (("acme", "k1"), ("globex", "k3"))),
    Hot(
        "count_usage",
        {},
        (
            "tallies_pkey(tenant_id)",
            "tally_changes_pkey(tenant_id)",
            "work_ready(tenant_id)",
            "work_delayed(tenant_id)|work_due_of_tenant(tenant_id)",
        ),
        1,
        (("acme", "ready_work_items", 9, 2), ("globex", "running_executions", 9, 2)),
        only_analyzed=RARE,
    ),
    Hot("read_usage", A | {"now": 2}, ("executions_by_status(tenant_id)", "work_ready(tenant_id)"), only_analyzed=RARE),
    Hot(
        "events_since_snapshots",
        {},
        ("events_pkey(tenant_id, execution_id, sequence)", "snapshots_pkey(tenant_id, execution_id)"),
        1,
        KEYS,
    ),
    Hot("read_tokens_by_id", {"ids": ["t1"]}, ("tokens_by_id(id)",), 1),
    Hot(
        "read_execution",
        {**A, "id": "e1"},
        (
            "executions_pkey(tenant_id, id)",
            "states_pkey(tenant_id, execution_id)",
            "events_pkey(tenant_id, execution_id, sequence)",
        ),
    ),
    Hot("list_executions", PAGE, ("executions_by_age(tenant_id, created_at, id)",)),
    Hot("list_executions_oldest", PAGE | {"at": 0}, ("executions_by_age(tenant_id, created_at, id)",)),
    Hot(
        "list_executions",
        PAGE,
        ("executions_by_status(tenant_id, status, created_at, id)",),
        where="e.status = 'failed' AND e.status <> 'completed'",
    ),
    Hot(
        "list_executions",
        PAGE,
        ("executions_by_workflow(tenant_id, workflow_id, created_at, id)",),
        where="e.workflow_id = 'wf1'",
    ),
    Hot(
        "list_executions",
        PAGE | {"s": "failed"},
        ("executions_by_status(tenant_id, status, created_at, id)",),
        where=by_the_rarer(("e.workflow_id = 'wf1' AND (e.status = :s AND e.status <> 'completed')", {"s": "failed"}))[
            0
        ],
    ),
    Hot(
        "list_executions",
        PAGE,
        ("executions_by_parent(tenant_id, parent_id, created_at, id)",),
        where="e.parent_id = 'e0'",
    ),
    Hot(
        "list_executions",
        PAGE,
        (
            "executions_by_age(tenant_id, created_at, id)",
            "facets_by_text(tenant_id, family, name, text_value, execution_id)|"
            "facets_pkey(tenant_id, execution_id, family, name)",
        ),
        where=CUSTOMER,
    ),
    Hot(
        "executions_of_facet",
        {**A, "limit": 100},
        ("facets_by_text(tenant_id, family, name, text_value)",),
        where=alone("attr").format(name="'customer'", condition="f.text_value = 'c1'"),
    ),
    Hot(
        "executions_of_facet",
        {**A, "limit": 100},
        ("facets_by_number(tenant_id, family, name, number_value)",),
        where=alone("attr").format(name="'customer'", condition="f.number_value BETWEEN 1 AND 2"),
    ),
    Hot("list_executions_among", PAGE | AMONG, ("executions_pkey(tenant_id, id)",), 1, where=CUSTOMER),
    Hot("list_executions_among", PAGE | AMONG, ("executions_pkey(tenant_id, id)",), 1, where=RUNNING),
    Hot(
        "list_executions_oldest_among", PAGE | AMONG | {"at": 0}, ("executions_pkey(tenant_id, id)",), 1, where=RUNNING
    ),
    Hot(
        "list_executions_updated_among",
        {**A, **AMONG, "commit_id": 2**62, "position": 2**62, "limit": 100},
        ("executions_pkey(tenant_id, id)", "events_pkey(tenant_id, execution_id, sequence)"),
        1,
        where=RUNNING,
    ),
    Hot(
        "list_executions_updated",
        {**A, "commit_id": 2**62, "position": 2**62, "limit": 100},
        ("events_feed(tenant_id, commit_id, position)", "executions_pkey(tenant_id, id)"),
    ),
    Hot(
        "read_events",
        {**A, "execution_id": "e1", "after": 0, "limit": 100},
        ("events_pkey(tenant_id, execution_id, sequence)",),
    ),
    Hot(
        "read_feed",
        {**A, "commit_id": 0, "position": 0, "horizon": 2**62, "limit": 100},
        ("events_feed(tenant_id, commit_id, position)",),
    ),
    Hot("feed_end", {**A, "horizon": 2**62}, ("events_feed(tenant_id, commit_id)",)),
    Hot(
        "read_snapshot_latest",
        {**A, "execution_id": "e1", "sequence": 9},
        ("snapshots_pkey(tenant_id, execution_id, sequence)",),
    ),
    Hot("expired_leases", LATER, ("work_leased(expires_at)",)),
    Hot("expired_leases_of_tenant", A | LATER, ("work_leased_of_tenant(tenant_id, expires_at)",)),
    Hot("tenants_with_expired_leases", LINE, ("work_leased_of_tenant(tenant_id)",)),
    Hot("due_items", LATER, ("work_due(ready_at)",)),
    Hot("due_items_of_all", LATER, ("work_due(ready_at)",)),
    Hot("due_items_of_tenant", A | LATER, ("work_due_of_tenant(tenant_id, ready_at)",)),
    Hot("tenants_with_due_redrives", LINE, ("jobs_of_tenant(tenant_id)",)),
    Hot("tenants_with_due_deletions_of_namespaces", LINE, ("jobs_of_tenant(tenant_id)",)),
    Hot("tenants_with_due_items", LINE, ("work_due_of_tenant(tenant_id)|work_delayed(tenant_id)",)),
    Hot("due_alarms", LATER, ("alarms_due(due_at)",)),
    Hot("due_alarms_of_tenant", A | LATER, ("alarms_of_tenant(tenant_id, due_at)",)),
    Hot("tenants_with_due_alarms", LINE, ("alarms_of_tenant(tenant_id)|alarms_pkey(tenant_id)",)),
    Hot("load_alarms", {}, ("alarms_pkey(tenant_id, owner_id, name)",), 1, ALARMS),
    Hot("alarms_of_owners", {}, ("alarms_pkey(tenant_id, owner_id)",), 1, KEYS),
    Hot(
        "update_alarms",
        {},
        (
            "alarms_pkey(tenant_id, owner_id, name)|alarms_of_tenant(tenant_id, due_at, owner_id, name)|"
            "alarms_due(due_at, tenant_id, owner_id, name)",
        ),
        0,
        tuple((*alarm, 1, b"{}", 2) for alarm in ALARMS),
    ),
    Hot("delete_alarms", {}, ("alarms_pkey(tenant_id, owner_id)",), 1, ALARMS),
    Hot(
        "load_runs",
        {},
        ("runs_pkey(tenant_id, id)", "work_items_pkey(tenant_id, id)"),
        1,
        tuple((*key, None) for key in KEYS),
    ),
    Hot(
        "read_task_heads",
        {},
        (
            "executions_pkey(tenant_id, id)",
            "runs_pkey(tenant_id, id)",
            "events_pkey(tenant_id, execution_id, sequence)",
        ),
        1,
        tuple((*key, 1) for key in KEYS),
    ),
    Hot(
        "read_task_events",
        {},
        ("events_pkey(tenant_id, execution_id, sequence)",),
        1,
        tuple((*key, 0, 9) for key in KEYS),
    ),
    Hot("load_steps", {}, ("steps_pkey(tenant_id, execution_id, kind, seq)",), 1, STEPS),
    Hot("open_steps_of_executions", {}, ("steps_open(tenant_id, execution_id)",), 1, KEYS, only_analyzed=OPEN_FEW),
    Hot("load_schedules", {}, ("schedules_pkey(tenant_id, id)",), 1, KEYS, only_analyzed=ANY_INDEX),
    Hot(
        "load_schedule_runs",
        {},
        ("schedule_runs_pkey(tenant_id, schedule_id, execution_id)|schedule_runs_by_number(tenant_id, schedule_id)",),
        1,
        (("acme", "s1", "e1"), ("globex", "s3", "e3")),
    ),
    Hot(
        "open_runs_of_schedules",
        {},
        ("schedule_runs_open(tenant_id, schedule_id)",),
        1,
        KEYS,
        only_analyzed=OPEN_FEW,
    ),
    Hot(
        "runs_of_schedules_by_page",
        {},
        ("schedule_runs_by_number(tenant_id, schedule_id)|schedule_runs_pkey(tenant_id, schedule_id)",),
        1,
        (("acme", "s1", 0), ("globex", "s3", 1)),
    ),
    Hot(
        "runs_of_schedules",
        {},
        ("schedule_runs_pkey(tenant_id, schedule_id)|schedule_runs_by_number(tenant_id, schedule_id)",),
        1,
        KEYS,
    ),
    Hot("read_sweep", {"tenant_id": "", "name": "sweeps"}, ("sweep_leases_pkey(tenant_id, name)",)),
    Hot("lost_workers", {"before": NOW + 500, "limit": 100}, ("workers_due(expires_at)",)),
    Hot("load_jobs", {}, ("jobs_pkey(tenant_id, id)",), 1, KEYS),
    Hot(
        "audit_to_trim",
        {"after": "", "before": NOW + 500, "limit": 100},
        (
            "audit_heads_pkey(tenant_id)",
            "audit_pkey(tenant_id, sequence)",
            "audit_checkpoints_pkey(tenant_id)",
            "tenants_pkey(tenant_id)",
        ),
    ),
    Hot(
        "tenants_with_oldest",
        {"after": "", "limit": 100},
        ("tenants_pkey(tenant_id)", "executions_by_age(tenant_id)"),
    ),
    Hot(
        "aged_executions",
        {**A, "at": 0, "id": "", "before": NOW + 500, "limit": 100},
        ("executions_by_age(tenant_id, created_at, id)",),
    ),
    Hot(
        "lock_ended_executions",
        {"before": NOW + 500},
        ("executions_pkey(tenant_id, id)",),
        1,
        KEYS,
    ),
    Hot("whole_executions", {}, ("events_pkey(tenant_id, execution_id, sequence)",), 1, KEYS),
    Hot("hide_executions", {}, ("executions_pkey(tenant_id, id)",), 0, KEYS),
    Hot("due_jobs", LATER | {"kind": "k"}, ("jobs_running(due_at)",)),
    Hot("due_jobs_of_tenant", A | LATER | {"kind": "k"}, ("jobs_of_tenant(tenant_id, kind, due_at)",)),
    Hot(
        "expire_idempotency_keys",
        {"before": NOW + 500, "limit": 100},
        ("idempotency_keys_by_age(created_at)", "idempotency_keys_pkey(tenant_id, key)"),
    ),
    Hot(
        "expire_queue_rates",
        {"before": NOW + 500, "limit": 100},
        ("queue_rates_by_age(bucket)", "queue_rates_pkey(tenant_id, bucket, queue)"),
    ),
    Hot(
        "list_dead_letters",
        {**A, "at": 0, "after": "", "limit": 100},
        ("work_dead(tenant_id, settled_at, id)", "executions_pkey(tenant_id, id)"),
    ),
    Hot(
        "dead_letters_to_redrive",
        {**A, "at": 0, "after": "", "until": NOW + 500, "limit": 100},
        ("work_dead(tenant_id, settled_at, id)",),
        where="w.error_type = 'rare'",
    ),
    Hot(
        "list_work_items",
        {**A, "after": "", "limit": 100},
        ("work_items_pkey(tenant_id, id)", "executions_pkey(tenant_id, id)"),
    ),
    Hot(
        "shelves_of_queues",
        {},
        ("shelves_pkey(tenant_id, queue)", "queues_pkey(tenant_id)"),
        1,
        (("acme", "q1"), ("globex", "q2")),
    ),
    Hot(
        "shelves_of_tenants",
        {},
        ("shelves_pkey(tenant_id)", "queues_pkey(tenant_id)"),
        1,
        (("acme",), ("globex",)),
    ),
    Hot(
        "list_definitions",
        {**A, "at": 2**62, "workflow_id": "", "version": "", "limit": 100},
        ("definitions_by_age(tenant_id, created_at, workflow_id, version)",),
    ),
    Hot(
        "read_tallies",
        {**A, "namespace": "main"},
        ("tallies_pkey(tenant_id, namespace)", "tally_changes_pkey(tenant_id)"),
        2,
    ),
    Hot(
        "ready_on_shelves",
        STATS | {"queues": ["q1", "q2"]},
        ("work_ready(tenant_id, queue)",),
        2,
        only_analyzed=FEW_QUEUES,
    ),
    Hot("delayed_on_shelves", STATS | {"queues": ["q1", "q2"]}, (DELAYED,), 2, only_analyzed=FEW_QUEUES),
    Hot("leased_by_queue", STATS, (LEASED,), 2),
    Hot("count_leased_and_dead", STATS, (LEASED, "work_dead(tenant_id)")),
    Hot("count_schedules_of_namespace", STATS, ("schedules_of_namespace(tenant_id, namespace)",)),
    Hot("count_workers_of_namespace", STATS, ("workers_pkey(tenant_id)",)),
    Hot(
        "list_queues",
        STATS | {"after": "", "limit": 100, "most_held": 5_001, "since": NOW, "until": NOW + 60_000},
        (
            "work_ready(tenant_id, queue)",
            DELAYED,
            LEASED,
            "work_dead(tenant_id)",
            "queue_rates_pkey(tenant_id, bucket)",
        ),
        7,
    ),
    Hot("leases_of_worker", {**A, "worker_id": "k2", "limit": 100}, (LEASED,)),
    Hot("list_workers", {**A, "after": "", "limit": 100}, ("workers_pkey(tenant_id, id)",)),
    Hot("lost_workers", {"before": NOW - 600_000, "limit": 100}, ("workers_due(expires_at)",)),
    Hot("count_open_in_namespaces", {}, (OF_NAMESPACE,), 1, (("acme", "blue"), ("globex", "blue"))),
    Hot("executions_to_erase", {**A, "namespace": "blue", "limit": 100}, (OF_NAMESPACE,)),
]
IDS = [hot.name if hot.where == OPEN else f"{hot.name}-{hot.indexes[0].partition('(')[0]}" for hot in HOT]


ALL_DUE = {
    "any_tally_change": "whatever is in the table is due",
    "tally_changes_to_fold": "a page from the front of the table: whatever is in it is due",
    "count_ending_tokens": "once a day, by a reader: an index of ends would be written with every token for that alone",
}
"""What sweeps ask of all tenants without an index of what is due, and why."""


def test_whatever_a_sweep_asks_of_all_tenants_is_held_to_its_plan() -> None:
    """What is due is found by index, over all tenants as for one."""
    modules = [one for one in house.modules() if one.name.endswith(".sweeps") or one.name in SWEEPING]
    asked = {
        node.value: module.name
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and node.value in ACROSS
    }
    assert {"due_jobs", "due_alarms", "due_items", "tenants_with_due_items"} <= asked.keys()
    judged = {one.name for one in HOT} | ALL_DUE.keys()
    assert {name: where for name, where in asked.items() if name not in judged} == {}


class Step(NamedTuple):
    """One step of a plan: the index it walks, if it does; the condition that bounds the walk; what is wrong with it."""

    index: str
    bound: str
    fault: str = ""


class Plan(NamedTuple):
    """How an engine would carry a statement out."""

    steps: list[Step]
    sorts: int

    def uses(self, wanted: str) -> bool:
        """Whether an index is walked within the wanted columns."""
        name, _, columns = wanted.rstrip(")").partition("(")
        return any(
            step.index == name and set(re.split(r", *", columns)) <= set(re.findall(r"\w+", step.bound))
            for step in self.steps
        )


def fitted(engine: str, hot: Hot) -> Statement:
    """The statement with its filter."""
    found = load(engine)[hot.name]
    return found.filtered(hot.where) if "{where}" in found.text else found


def judge(hot: Hot, plan: Plan) -> None:
    """Hold a plan to what is wanted of it."""
    for wanted in hot.indexes:
        assert any(plan.uses(one) for one in wanted.split("|")), f"{hot.name} does not walk {wanted}: {plan}"
    assert not [step.fault for step in plan.steps if step.fault], f"{hot.name}: {plan}"
    assert plan.sorts <= hot.sorts, f"{hot.name} sorts: {plan}"


# ── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["as it grew", "analyzed"])
def sqlite_store(request: pytest.FixtureRequest) -> Iterator[apsw.Connection]:
    db = opened(":memory:")
    migrate.on_sqlite(db, 0)
    db.execute("DELETE FROM tenants")
    for table, rows in stock():
        columns, records = as_records(table, rows)
        db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", records)
    if request.param == "analyzed":
        db.execute("ANALYZE")
    yield db
    db.close()


def sqlite_plan(db: apsw.Connection, hot: Hot) -> Plan:
    """SQLite's plan. A SCAN of a table is a fault; of the batch, of json_each or of a sub-query it is not."""
    statement = fitted("sqlite", hot)
    sql = statement.for_rows(len(hot.rows)) if hot.rows else statement.sql
    values = [value for row in hot.rows for value in row] + statement.values(hot.params)
    told = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    aliases = {
        table.alias_or_name for table in parse(statement.text, hot.where).find_all(exp.Table) if table.name in tables()
    }
    return Plan([sqlite_step(line, aliases) for line in told], sum("TEMP B-TREE FOR" in line for line in told))


def sqlite_step(line: str, aliases: set[str]) -> Step:
    """One line of EXPLAIN QUERY PLAN."""
    found = re.match(r"(SEARCH|SCAN) (\w+)(?:.*?INDEX (\w+))?(.*)", line)
    if not found:
        return Step("", "")
    verb, alias, index, bound = found.groups(default="")
    name = re.sub(r"sqlite_autoindex_(\w+)_1", r"\1_pkey", index)
    return Step(name, bound, line if verb == "SCAN" and alias in aliases else "")


@pytest.mark.parametrize("hot", HOT, ids=IDS)
def test_sqlite_walks_the_index(sqlite_store: apsw.Connection, hot: Hot) -> None:
    judge(hot, sqlite_plan(sqlite_store, hot))


# ── Postgres ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["as it grew", "analyzed"])
async def postgres_store(request: pytest.FixtureRequest, postgres_server: str) -> AsyncIterator[Any]:
    db = await asyncpg.connect(await new_database(postgres_server), server_settings=SESSION)
    await migrate.on_postgres(db)
    await stocked_postgres(db, analyzed=request.param == "analyzed")
    await db.execute("SET plan_cache_mode = force_generic_plan")
    yield db
    await db.close()


def literal(value: Any) -> str:
    """A parameter as text of an EXECUTE."""
    if isinstance(value, list | tuple):
        kind = "bigint" if isinstance(value[0], int) else "bytea" if isinstance(value[0], bytes) else "text"
        return f"ARRAY[{', '.join(literal(one) for one in value)}]::{kind}[]"
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return str(value) if isinstance(value, int) else f"'{value}'"


async def postgres_plan(db: Any, hot: Hot) -> Plan:
    """The generic plan of the prepared statement. An index that is walked from end to end is a fault, as is a table."""
    statement = fitted("postgres", hot)
    await db.execute(f"PREPARE hot AS {statement.sql}")
    try:
        given = ", ".join(
            [literal(column) for column in zip(*hot.rows, strict=True)]
            + [literal(one) for one in statement.values(hot.params)]
        )
        told = await db.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot({given})")
    finally:
        await db.execute("DEALLOCATE hot")
    nodes = list(nodes_of(json.loads(told)[0]["Plan"]))
    return Plan([postgres_step(node) for node in nodes], sum("Sort" in node["Node Type"] for node in nodes))


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield node
    for inner in node.get("Plans", ()):
        yield from nodes_of(inner)


def postgres_step(node: dict[str, Any]) -> Step:
    """One node of EXPLAIN."""
    index, bound, kind = node.get("Index Name", ""), node.get("Index Cond", ""), node["Node Type"]
    return Step(index, bound, kind if kind == "Seq Scan" or (index and not bound) else "")


@pytest.mark.parametrize("hot", HOT, ids=IDS)
async def test_postgres_walks_the_index(postgres_store: Any, hot: Hot) -> None:
    if hot.only_analyzed and not await postgres_store.fetchval(
        "SELECT count(*) FROM pg_stats WHERE tablename = 'work_items'"
    ):
        return
    judge(hot, await postgres_plan(postgres_store, hot))


class Heard:
    """A connection that only notes what it is told."""

    def __init__(self, pid: int) -> None:
        self.pid, self.told = pid, list[str]()

    def get_server_pid(self) -> int:
        """Its process at the server."""
        return self.pid

    async def execute(self, text: str) -> None:
        """Note a command."""
        self.told.append(text)


async def test_a_connection_plans_anew_once_its_plans_are_a_second_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that was made while a table was empty must not serve it when it is not."""
    now = 100.0
    monkeypatch.setattr("backends.postgres_connections.time.monotonic", lambda: now)
    monkeypatch.setattr("backends.postgres_connections.PLANS_SECONDS", 1.0)
    connections, one, other = Connections(None), Heard(1), Heard(2)
    for connection, at, told in ((one, 100.0, 1), (one, 100.5, 1), (other, 100.5, 1), (one, 101.0, 2), (one, 101.5, 2)):
        now = at
        await connections.plan_anew(connection)
        assert connection.told == ["DISCARD PLANS"] * told


async def test_plans_that_were_thrown_away_are_made_for_the_rows_that_are_there(postgres_server: str) -> None:
    db = await asyncpg.connect(await new_database(postgres_server), server_settings=SESSION)
    try:
        await migrate.on_postgres(db)
        await db.execute("SET plan_cache_mode = force_generic_plan; DELETE FROM tenants")
        hot = next(hot for hot in HOT if hot.name == "load_executions")
        await db.execute(f"PREPARE kept AS {fitted('postgres', hot).sql}")
        asked = "EXECUTE kept(ARRAY['acme'], ARRAY['e1'], ARRAY[NULL])"
        await db.execute(asked)
        for table, rows in stock():
            columns, records = as_records(table, rows)
            await db.copy_records_to_table(table, columns=columns, records=records)
        await db.execute("DISCARD PLANS")
        nodes = nodes_of(json.loads(await db.fetchval(f"EXPLAIN (FORMAT JSON) {asked}"))[0]["Plan"])
        judge(hot, Plan([postgres_step(node) for node in nodes], 1))
    finally:
        await db.close()
