"""The double against Postgres: the same transactions, step by step, wait and see and fail alike on both.

A script is a list of steps `(who, what, rows)`; whoever waits says so, and is heard when it goes on.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from backends import migrate
from backends.errors import Conflict
from backends.statements import load
from tests.conftest import new_database
from tests.simulator.backend import ALL_OF_THEM
from tests.simulator.database import Database, Race, Transaction
from tests.simulator.sql import plans
from tests.tidy.house import tables

Heard = list[tuple[str, Any]]
AT = 1_800_000_000_000
WAITS, CONFLICT, CIRCLE, DONE = "waits", "conflict", "circle", "done"


def row(table: str, **values: Any) -> dict[str, Any]:
    """A row with something in every column."""
    blank = {"TEXT": "x", "INTEGER": 0, "BLOB": b"{}"}
    return {name: blank[kind] for name, kind in tables()[table].items()} | values


def item(name: str, status: str = "ready", **values: Any) -> dict[str, Any]:
    """A work item on the shelf q."""
    own = {"tenant_id": "t", "id": name, "queue": "q", "requires": "", "drives": "nothing", "status": status}
    keys = {"dedup_key": None, "concurrency_key": None, "execution_id": None}
    return row("work_items", **own | keys | {"expires_at": None} | values)


def job(name: str, done: int = 0) -> dict[str, Any]:
    """A job."""
    return row("jobs", tenant_id="t", id=name, status="running", done=done)


STOCK: dict[str, list[dict[str, Any]]] = {
    "tenants": [row("tenants", tenant_id="t", status="active", limits="{}")],
    "workflows": [row("workflows", tenant_id="t", workflow_id="w")],
    "definitions": [row("definitions", tenant_id="t", workflow_id="w", version="1")],
    "executions": [row("executions", tenant_id="t", id="e", status="running", completed_at=None)],
    "work_items": [item("i1"), item("i2", execution_id="e"), item("c1", concurrency_key="k", queue="p"),
                   item("c2", concurrency_key="k", queue="p")],
    "jobs": [job("j1"), job("j2")],
}  # fmt: skip
"""What there is before a script begins."""


def parted(said: Any) -> tuple[list[Any], dict[str, Any]]:
    """The batch and the parameters of a step."""
    if isinstance(said, dict):
        return said.get("rows", []), {name: value for name, value in said.items() if name != "rows"}
    return said, {}


def given(name: str, *rows: dict[str, Any]) -> list[Any]:
    """The batch of a statement out of rows; `was_x` is the row's `was_x`, or its `x`."""
    columns = load("postgres")[name].columns
    return [tuple(one.get(c, one.get(c.removeprefix("was_"))) for c in columns) for one in rows]


LOCK_1, LOCK_2 = ("load_jobs", [("t", "j1")]), ("load_jobs", [("t", "j2")])
MOVE = ("update_jobs", given("update_jobs", job("j1", 5) | {"was_done": 0}))
LEAVE = ("update_work_items", given("update_work_items", item("i2", "completed", was_status="ready")))
LEASE_1, LEASE_2 = (
    ("lease_work_items", given("lease_work_items", item(name, "leased", was_status="ready", expires_at=9)))
    for name in ("c1", "c2")
)
READY = ("heads_of_shelves", {"rows": [("t", "q", "", 1)], "now": AT, "busy": []})
COMMIT: tuple[str, list[Any]] = ("COMMIT", [])
ROLLBACK: tuple[str, list[Any]] = ("ROLLBACK", [])
SNAPSHOT = ("insert_snapshots", [("t", "e", 1, b"{}", AT)])
READ = ("read_job", {"tenant_id": "t", "id": "j1"})
SHELF = ("insert_shelves", [("t", "q", "")])
ONE_D, TWO_D = (("insert_work_items", given("insert_work_items", item(name, dedup_key="d"))) for name in ("n1", "n2"))
SWEEP_A, SWEEP_B = (
    (
        "take_sweep",
        {
            "tenant_id": "t", "name": "s", "holder": who, "epoch": 1, "was_epoch": 0, "now": AT, "expires_at": AT + 9,
        },
    )
    for who in "ab"
)  # fmt: skip
RUN, RUN_OF_ITEM = ("load_executions", [("t", "e", None)]), ("load_executions", [("t", None, "i2")])
USE, DROP = ("load_definitions", [("t", "w", "1")]), ("lock_definitions", [("t", "w", "1")])
SCRIPTS: dict[str, list[Any]] = {
    "a locked row is waited for and read as it has become": [
        ("a", *LOCK_1), ("b", *LOCK_1), ("a", *MOVE), ("a", *COMMIT), ("b", *COMMIT)],
    "a guard is judged by the row as it has become": [("a", *MOVE), ("b", *MOVE), ("a", *COMMIT), ("b", *COMMIT)],
    "a guard is judged by the row as it was when the other gives up": [("a", *MOVE), ("b", *MOVE), ("a", *ROLLBACK)],
    "nobody sees what is not committed": [("a", *MOVE), ("b", *READ), ("a", *COMMIT), ("b", *READ)],
    "a transaction sees its own": [("a", *MOVE), ("a", *READ)],
    "the second of two inserts of a key is refused": [("a", *SHELF), ("b", *SHELF), ("a", *COMMIT)],
    "the second of two inserts of a key is let in when the first gives up": [
        ("a", *SHELF), ("b", *SHELF), ("a", *ROLLBACK)],
    "a partial unique index waits for who may leave it": [("a", *ONE_D), ("b", *TWO_D), ("a", *COMMIT)],
    "one lease a concurrency key": [("a", *LEASE_1), ("b", *LEASE_2), ("a", *COMMIT)],
    "one lease a concurrency key, unless the first gives up": [("a", *LEASE_1), ("b", *LEASE_2), ("a", *ROLLBACK)],
    "whoever waits in a circle loses one": [("a", *LOCK_1), ("b", *LOCK_2), ("a", *LOCK_2), ("b", *LOCK_1)],
    "a locked row is passed over": [("a", "load_work_items", [("t", "i1")]), ("b", *READY), ("c", *READY)],
    "a row that is no longer meant is left out": [
        ("a", *LEAVE), ("b", "open_items_of_executions", [("t", "e")]), ("a", *COMMIT)],
    "an execution is found by its item and locked": [("a", *RUN_OF_ITEM), ("b", *RUN), ("a", *COMMIT)],
    "an execution that is waited for is found by its item": [("a", *RUN), ("b", *RUN_OF_ITEM), ("a", *COMMIT)],
    "readers of a definition bear each other, not who deletes it": [
        ("a", *USE), ("b", *USE), ("c", *DROP), ("a", *COMMIT), ("b", *COMMIT)],
    "a foreign key waits for who has locked its row": [("a", *RUN), ("b", *SNAPSHOT), ("a", *COMMIT)],
    "a sweep's lease is taken by one": [("a", *SWEEP_A), ("b", *SWEEP_B), ("a", *COMMIT)],
}  # fmt: skip


class Doubled:
    """A script on the double."""

    def __init__(self) -> None:
        self.database = Database(random.Random(1))
        self.database.chance = lambda _probability: False  # type: ignore[assignment, method-assign]
        for table, rows in STOCK.items():
            self.database.tables[table].put(rows)
        self.who: dict[str, Transaction] = {}
        self.heard: Heard = []

    async def step(self, who: str, what: str, rows: Any) -> None:
        """One step, and whoever can go on after it."""
        by = self.who.setdefault(who, self.database.begin(who, lambda result, error: self._tell(who, result, error)))
        if what in ("COMMIT", "ROLLBACK"):
            (self.database.settle if what == "COMMIT" else self.database.undo)(by)
            self.heard.append((who, DONE))
        else:
            batch, params = parted(rows)
            self.database.ask(by, by.statement(plans(what, ALL_OF_THEM), batch, params), what)
        before = len(self.heard)
        while self.database.running:
            self.database.step()
        if len(self.heard) == before and by in self.database.waiting:
            self.heard.append((who, WAITS))

    def _tell(self, who: str, result: Any, error: Any) -> None:
        if error is not None:
            self.heard.append(
                (who, CIRCLE if isinstance(error, Race) else CONFLICT if isinstance(error, Conflict) else error)
            )
        else:
            self.heard.append((who, [tuple(one) for one in result] if isinstance(result, list) else result))


class Real:
    """A script on Postgres."""

    def __init__(self, connections: dict[str, Any], observer: Any) -> None:
        self.who, self.observer = connections, observer
        self.waiting: dict[str, asyncio.Task[Any]] = {}
        self.heard: Heard = []

    async def step(self, who: str, what: str, rows: Any) -> None:
        """One step, and whoever can go on after it."""
        if what in ("COMMIT", "ROLLBACK"):
            await self.who[who].execute(what)
            self.heard.append((who, DONE))
        else:
            self.waiting[who] = asyncio.create_task(self._run(self.who[who], what, rows))
        for other, task in list(self.waiting.items()):
            await self._heard(who if other == who else "", other, task)

    async def _heard(self, who: str, other: str, task: asyncio.Task[Any]) -> None:
        pid = self.who[other].get_server_pid()
        while not task.done():
            if await self.observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid) and not task.done():
                if other == who:
                    self.heard.append((other, WAITS))
                return
            await asyncio.sleep(0)
        del self.waiting[other]
        self.heard.append((other, task.result()))

    @staticmethod
    async def _run(db: Any, what: str, rows: Any) -> Any:
        statement = load("postgres")[what].filtered(ALL_OF_THEM)
        batch, params = parted(rows)
        columns = [list(column) for column in zip(*batch, strict=True)]
        try:
            if not db.is_in_transaction():
                await db.execute("BEGIN")
            if plans(what)[0].kind == "select":
                return [tuple(one) for one in await db.fetch(statement.sql, *columns, *statement.values(params))]
            tag = await db.execute(statement.sql, *columns, *statement.values(params))
            return int(tag.rpartition(" ")[2])
        except asyncpg.DeadlockDetectedError:
            return CIRCLE
        except asyncpg.IntegrityConstraintViolationError:
            return CONFLICT

    async def circles(self) -> None:
        """Hear of everybody who waits until Postgres has found the circle."""
        for other, task in list(self.waiting.items()):
            await asyncio.wait([task])
            self.heard.append((other, task.result()))
            if task.result() == CIRCLE:
                await self.who[other].execute("ROLLBACK")


@pytest.fixture(scope="module")
async def url(postgres_server: str) -> str:
    """A database with the schema."""
    found = await new_database(postgres_server)
    db = await asyncpg.connect(found)
    await migrate.on_postgres(db)
    await db.close()
    return found


@pytest.fixture
async def real(url: str) -> AsyncIterator[Real]:
    """The stock in Postgres, and three who may work with it."""
    observer = await asyncpg.connect(url)
    await observer.execute(f"TRUNCATE {', '.join(tables())}")
    for table, rows in STOCK.items():
        for one in rows:
            marks = ", ".join(f"${index + 1}" for index in range(len(one)))
            await observer.execute(f"INSERT INTO {table} ({', '.join(one)}) VALUES ({marks})", *one.values())
    who = {name: await asyncpg.connect(url) for name in "abc"}
    try:
        yield Real(who, observer)
    finally:
        for db in (*who.values(), observer):
            db.terminate()


@pytest.mark.parametrize("name", SCRIPTS)
async def test_the_double_waits_and_sees_as_postgres_does(name: str, real: Real) -> None:
    double = Doubled()
    for who, what, rows in SCRIPTS[name]:
        await double.step(who, what, rows)
        await real.step(who, what, rows)
    if any(said == CIRCLE for _, said in double.heard):
        await real.circles()
        assert [said for _, said in real.heard].count(CIRCLE) == 1
        return
    assert double.heard == real.heard
    print(name, [(who, said if isinstance(said, str | int) else len(said)) for who, said in double.heard])
