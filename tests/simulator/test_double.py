"""The double against a real database: every statement that it compiles gives and does what it does on SQLite."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import pytest

from backends import migrate
from backends.errors import Conflict
from backends.statements import load
from service import capabilities
from service.kernel.limits import COUNTED
from tests.simulator.backend import ALL_OF_THEM
from tests.simulator.database import Database, Transaction, Waiting
from tests.simulator.simulate import simulate
from tests.simulator.sql import Plan, key_of, plans
from tests.simulator.world import World
from tests.tidy import house

ROUNDS = 12
OTHERWISE = {
    "item_id": ("work_items", "id"), "token_id": ("tokens", "id"), "token_tenant": ("tokens", "tenant_id"),
    "page": ("schedule_runs", "followed"),
}  # fmt: skip
"""Columns of a batch that are called otherwise in their table."""
MOST = 3
"""How much is asked of each shelf: of all the same, which are the rows that SQLite asks for together."""
BLANK: dict[str, Any] = {"TEXT": "none", "INTEGER": 7, "BLOB": b"none"}
NEVER_TWICE = frozenset({"position", "commit_id"})


def of_tables() -> Iterator[str]:
    """The statements by which the kernel reads and writes rows, and those that choose them."""
    for table in capabilities.schema().order:
        own = (table.load, table.insert, table.update, table.delete, *table.narrow)
        yield from (name for name in own if name)
        yield from (group.load for group in table.groups)
    yield from CHOOSING


CHOOSING = (
    "insert_events", "load_standings", "heads_of_shelves", "shelves_of_queues", "shelves_of_tenants", "expired_leases",
    "expired_leases_of_tenant", "due_items", "due_items_of_all", "due_items_of_tenant", "read_sweep", "take_sweep",
    "renew_sweep", "release_sweep", "due_jobs", "dead_letters_to_redrive", "read_execution", "read_events",
    "read_usage", "shelves_of_keys",
)  # fmt: skip
NAMES = sorted(set(of_tables()))


@pytest.fixture(scope="module", params=[False, True], ids=["executions", "workflows"])
def world(request: pytest.FixtureRequest) -> World:
    """A world with rows of every kind: one of executions by hand, one of workflows."""
    found = simulate(3, 2_500, shape={"crash": 0.0, "limits": {}, "engine": request.param})
    found.database.committed = lambda _by, _changes: None
    return found


def mirrored(database: Database) -> apsw.Connection:
    """The committed rows in SQLite."""
    db = apsw.Connection(":memory:")
    migrate.on_sqlite(db, 0)
    for name in database.tables:
        db.execute(f"DELETE FROM {name}")
    for name, table in database.tables.items():
        marks = ", ".join("?" * len(table.columns))
        for row in table.rows():
            db.execute(f"INSERT INTO {name} VALUES ({marks})", list(row.values()))
    db.execute("PRAGMA foreign_keys = ON")
    return db


class Samples:
    """Values that occur in the tables, and some that do not."""

    def __init__(self, database: Database, chance: random.Random) -> None:
        self.database, self.random = database, chance
        self._types = {name: kind for columns in house.tables().values() for name, kind in columns.items()}
        self._rows = {name: list(table.rows()) for name, table in database.tables.items()}

    def value(self, column: str, near: dict[str, Any], of: str = "") -> Any:
        """A value for a column of the table `of`: mostly that of a row that there is, of the column's own type."""
        column = column.removeprefix("was_")
        if column in near:
            return near[column]
        if (of, column) == ("rows", "name"):
            return self.random.choice(sorted(COUNTED))
        if column == "most":
            return MOST
        table, own = OTHERWISE.get(column, (None, column))
        among = [self._rows[table]] if table else self._rows.values()
        blank = BLANK[house.tables().get(of, {}).get(own) or self._types.get(own, "TEXT")]
        found = [row[own] for rows in among for row in rows if isinstance(row.get(own), type(blank))]
        return self.random.choice(found or [blank])

    def rows(self, plan: Plan, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Rows for a batch, each made of one row of the statement's table and a little of another."""
        of = self._rows.get(plan.table or "", [])
        made = {}
        for _ in range(self.random.randint(1, 4)):
            near = dict(self.random.choice(of)) if of else {}
            if plan.kind != "select" and of and self.random.random() < 0.7:
                other = self.random.choice(of)
                moved = [name for name in near if name not in ("tenant_id", "status") and self.random.random() < 0.2]
                near |= {name: other[name] for name in moved}
            row = tuple(self.value(column, near, plan.table or "") for column in columns)
            made[row[: len(columns) if plan.kind == "select" else len(key_of(plan.table or ""))]] = row
        return sorted(made.values(), key=repr)

    def params(self, names: Sequence[str], plan: Plan) -> dict[str, Any]:
        """Parameters of a statement without a batch."""
        of = self._rows.get(plan.table or "", [])
        near = dict(self.random.choice(of)) if of else {}
        near |= {"limit": self.random.randint(1, 6), "now": 1_800_000_000_000 + self.random.randint(0, 20_000)}
        near |= {"busy": self.random.choice(([], ["c1"])), "names": ["a", "b"], "ids": [near.get("id", "none")]}
        near |= {"at": 0, "until": 2**60, "after": 0 if plan.table == "events" else ""}
        return {name: self.value(name, near) for name in names}


def done(waiting: Waiting) -> Any:
    """The result of a statement that meets nobody."""
    while True:
        try:
            assert not next(waiting), "there is nobody to wait for"
        except StopIteration as end:
            return end.value


def begin(database: Database) -> Transaction:
    return database.begin("test", lambda _result, _error: None)


def both(world: World, db: apsw.Connection, name: str, rows: list[tuple[Any, ...]], params: dict[str, Any]) -> None:
    """Run a statement on both sides; the same rows, the same refusal, the same tables afterwards."""
    statement, made = load("sqlite")[name].filtered(ALL_OF_THEM), plans(name)
    sql, flat = (statement.for_rows(len(rows)), [one for row in rows for one in row]) if rows else (statement.sql, [])
    by = begin(world.database)
    before = db.total_changes()
    try:
        there: Any = db.execute(sql, [*flat, *statement.values(params)]).fetchall()
        there = there if made[0].kind == "select" else db.total_changes() - before
    except apsw.ConstraintError:
        with pytest.raises(Conflict):
            done(by.statement(made, rows, params))
    else:
        here = done(by.statement(made, rows, params))
        if made[0].kind != "select":
            assert here == there, f"{name} {rows} {params}"
            assert seen(world, by, made[0]) == stored(db, made[0].table or ""), f"{name} {rows} {params}"
        elif made[0].each is not None or (made[0].order is None and len(made) == 1):
            assert sorted(here, key=repr) == sorted(there, key=repr), f"{name} {rows} {params}"
        else:
            assert [tuple(row) for row in here] == there, f"{name} {rows} {params}"
    finally:
        world.database.undo(by)


def seen(world: World, by: Transaction, plan: Plan) -> list[Any]:
    """A table as a transaction sees it."""
    table = world.database.tables[plan.table or ""]
    rows = [record.seen(by) for record in table.records.values()]
    kept = [index for index, name in enumerate(table.columns) if name not in NEVER_TWICE]
    return sorted(([row[index] for index in kept] for row in rows if row is not None), key=repr)


def stored(db: apsw.Connection, table: str) -> list[Any]:
    """The same in SQLite."""
    kept = [name for name in house.columns_of(table) if name not in NEVER_TWICE]
    return sorted(map(list, db.execute(f"SELECT {', '.join(kept)} FROM {table}")), key=repr)


@pytest.fixture(scope="module")
def mirror(world: World) -> apsw.Connection:
    """The world's rows in SQLite."""
    return mirrored(world.database)


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_does_what_it_does_on_sqlite(world: World, mirror: apsw.Connection, name: str) -> None:
    samples, statement, plan = Samples(world.database, random.Random(name)), load("sqlite")[name], plans(name)[0]
    for _ in range(ROUNDS):
        rows = samples.rows(plan, statement.columns) if statement.columns else []
        mirror.execute("BEGIN")
        try:
            both(world, mirror, name, rows, samples.params(statement.order, plan))
        finally:
            if mirror.in_transaction:
                mirror.execute("ROLLBACK")
