"""Every statement prepares on both engines, is used, and its columns are the fields of the rows in the code."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from sqlglot import exp

from backends import migrate
from backends.statements import ROWS, Statement, load, texts
from service.work.model import WorkItem
from tests.tidy import house
from tests.tidy.tenancy import parse

UNUSED: dict[str, str] = {}
"""Statements that no code names, and why they are there."""
WHOLE_ROWS = {"heads_of_shelves": WorkItem, "due_items_of_all": WorkItem, "due_items_of_tenant": WorkItem}
"""Statements outside `Table` whose rows the kernel takes as they come: those of choosers without `keys`."""
SQLITE_TYPES = {"TEXT": "TEXT", "BIGINT": "INTEGER", "BYTEA": "BLOB"}


def ready(statement: Statement) -> Statement:
    """The statement with an open filter."""
    return statement.filtered("(1 = 1)") if "{where}" in statement.text else statement


def tables() -> list[Any]:
    """Every `Table` of the kernel and the capabilities."""
    return list(house.capabilities().schema().order)


def loads() -> list[tuple[str, type]]:
    """Each statement that loads whole rows, and their type."""
    own = [(table.load, table.row) for table in tables() if table.load]
    return [*own, *((group.load, table.row) for table in tables() for group in table.groups), *WHOLE_ROWS.items()]


def writes(kind: str) -> list[tuple[str, type]]:
    """Each statement that inserts (or updates, or deletes) rows of a table, and their type."""
    return [(getattr(table, kind), table.row) for table in tables() if getattr(table, kind)]


@pytest.mark.parametrize("name", sorted(texts()))
def test_a_statement_prepares_on_sqlite(name: str) -> None:
    statement = ready(load("sqlite")[name])
    sql = statement.for_rows(2) if statement.columns else statement.sql
    house.store().execute(f"EXPLAIN {sql}", [None] * sql.count("?"))


async def test_every_statement_prepares_on_postgres(postgres_url: str) -> None:
    db = await asyncpg.connect(postgres_url)
    try:
        await migrate.on_postgres(db)
        for name, statement in load("postgres").items():
            try:
                await db.prepare(ready(statement).sql)
            except asyncpg.PostgresError as error:
                raise AssertionError(f"{name} does not prepare: {error}") from error
    finally:
        await db.close()


def named() -> Iterator[tuple[str, str]]:
    """(where, name) of each statement that is the first argument of a `Tx` method or the second of a list."""
    for module in house.modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = {"one": 0, "all": 0, "run": 0, "many": 0, "listed": 1}.get(name)
            if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                yield f"{module.name}:{node.lineno}", node.args[at].value  # type: ignore[attr-defined]


def test_what_is_loaded_beside_the_locks_that_guard_it_is_locked_itself_or_never_changes() -> None:
    current = [table for table in tables() if table.current]
    assert current
    assert all(table.guarded and table.insert for table in current)
    assert not [t.load for t in current if t.update and "FOR UPDATE" not in load("postgres")[t.load].text]
    twice = [t.insert for t in current if "ON CONFLICT" in load("postgres")[t.insert].text]
    assert not twice, "a row that came meanwhile is not shown: the store must refuse another"


def test_code_names_no_statement_that_does_not_exist() -> None:
    assert not [(where, name) for where, name in named() if name not in texts()]
    assert not [name for name, _ in loads() if name not in texts()]


def unsaid() -> list[str]:
    """The statements that no code says: neither whole nor by a beginning, as in `f"erase_{table}"`."""
    trees = [module.tree for module in house.modules() if module.name not in ("backends.erasure", "backends.turns")]
    said = {text for tree in trees for text in house.strings(tree)}
    joined = [
        node.values[0] for tree in trees for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) and node.values
    ]
    begun = tuple(
        part.value for part in joined if isinstance(part, ast.Constant) and re.fullmatch(r"[a-z]+_", str(part.value))
    )
    return sorted(name for name in texts() if name not in said and not name.startswith(begun))


def test_every_statement_is_used() -> None:
    assert not sorted(set(unsaid()) - set(UNUSED)), "delete them, or say why they are there"


def test_the_list_of_unused_statements_only_shrinks() -> None:
    assert not sorted(set(UNUSED) - set(unsaid())), "they are used now: take them off the list"


def columns(query: exp.Expression) -> list[str]:
    """The names of a query's columns; an expression without a name is `""`, a star is what it stands for."""
    if isinstance(query, exp.SetOperation):
        return columns(query.left)
    found = []
    for value in query.expressions:
        if isinstance(value, exp.Star):
            source = query.find(exp.From).this  # type: ignore[union-attr]
            found += columns(source.this)
        elif isinstance(value, exp.Column) and isinstance(value.this, exp.Star):
            found += columns(next(one for one in query.find_all(exp.Lateral) if one.alias == value.table).this.this)
        else:
            found.append(value.alias_or_name)
    return found


@pytest.mark.parametrize(("name", "row"), loads(), ids=[name for name, _ in loads()])
def test_a_load_selects_the_fields_of_its_row_in_order(name: str, row: Any) -> None:
    """Rows are made by position: `Row(*values)`. Fields that a load leaves out stand last and have defaults."""
    fields = row.__struct_fields__
    for text in texts()[name].values():
        selected = columns(parse(text))
        rest = fields[len(selected) :]
        assert len(selected) <= len(fields), f"{name} selects more than {row.__name__} holds"
        assert not rest or len(rest) <= len(row.__struct_defaults__), (
            f"{name} leaves out {rest}, which have no defaults"
        )
        crossed = [(got, field) for got, field in zip(selected, fields, strict=False) if got not in (field, "")]
        assert not crossed, f"{name} selects {crossed[0][0]} where {row.__name__} has {crossed[0][1]}"


def batch(text: str) -> dict[str, str]:
    """The columns of a statement's `rows`, with their types."""
    found = ROWS.search(text)
    return dict(column.split() for column in found.group(1).split(",")) if found else {}  # type: ignore[misc]


@pytest.mark.parametrize(("name", "row"), writes("insert"), ids=[name for name, _ in writes("insert")])
def test_an_insert_puts_each_column_in_its_place(name: str, row: Any) -> None:
    text = texts()[name][""]
    tree = parse(text)
    into, taken = [column.name for column in tree.this.expressions], batch(text)
    assert len(into) == len(tree.expression.expressions), f"{name}: as many values as columns"
    for column, value in zip(into, tree.expression.expressions, strict=True):
        # What the batch does not bring is a constant, or another column of it on purpose.
        assert column not in taken or value.name == column, f"{name} writes {value.sql()} into {column}"
    unused = set(taken) - {column.name for column in tree.expression.find_all(exp.Column)}
    assert not unused, f"{name} takes {unused} and does not write it"
    assert_types(name, tree.this.this.name, batch(text))


def test_an_insert_and_what_may_be_blank_are_all_there_is_of_a_row() -> None:
    """A row that is added and changed in one batch is inserted as it is in the end, and loses nothing by it."""
    lacking = {}
    for table in tables():
        if table.insert is not None:
            known = {*batch(texts()[table.insert][""]), *table.blank}
            lacking[table.row.__name__] = set(table.row.__struct_fields__) - known
    assert {name: lacks for name, lacks in lacking.items() if lacks} == {"Execution": {"updated_at"}}, "the time of add"


@pytest.mark.parametrize(("name", "row"), writes("update"), ids=[name for name, _ in writes("update")])
def test_an_update_sets_each_column_from_its_own_and_guards_by_what_was_read(name: str, row: Any) -> None:
    text = texts()[name][""]
    tree = parse(text)
    for one in tree.expressions:
        read = {column.name for column in one.expression.find_all(exp.Column)}
        assert read == {one.this.name}, f"{name} sets {one.this.name} from {read}"
    written = {one.this.name for one in tree.expressions}
    where = {
        frozenset(column.sql() for column in one.find_all(exp.Column)) for one in tree.args["where"].find_all(exp.EQ)
    }
    table = tree.this.name
    for column in batch(text):
        field = column.removeprefix("was_")
        assert column in written or {f"{table}.{field}", f"rows.{column}"} in where, (
            f"{name} takes {column} and does not use it"
        )
        assert field in row.__struct_fields__, f"{name} takes {column}, which {row.__name__} does not have"
    assert_types(name, table, batch(text))


@pytest.mark.parametrize("name", sorted(name for name, of in texts().items() if batch(of[""])))
def test_a_batch_is_typed_as_what_it_is_compared_with(name: str) -> None:
    """An id taken as BIGINT would be refused by one engine and converted by the other."""
    text = texts()[name][""]
    tree = parse(text)
    names = {table.alias_or_name: table.name for table in tree.find_all(exp.Table)}
    for one in tree.find_all(exp.EQ):
        for mine, theirs in ((one.this, one.expression), (one.expression, one.this)):
            both = isinstance(mine, exp.Column) and isinstance(theirs, exp.Column)
            if both and names.get(mine.table) == "rows" and names.get(theirs.table) in house.tables():
                have = house.tables()[names[theirs.table]][theirs.name]
                assert SQLITE_TYPES[batch(text)[mine.name]] == have, f"{name} takes {mine.name} as another type"


def assert_types(name: str, table: str, taken: dict[str, str]) -> None:
    """The types of a batch are those of the table it is written to."""
    have = house.tables()[table]
    for column, kind in taken.items():
        field = column.removeprefix("was_")
        assert field in have, f"{name} takes {column}; {table} has no such column"
        assert SQLITE_TYPES[kind] == have[field], f"{name} takes {column} as {kind}; {table} has {have[field]}"


def test_events_are_inserted_as_the_kernel_makes_them() -> None:
    from service.kernel.view import NewEvent

    assert load("sqlite")["insert_events"].columns == NewEvent.__struct_fields__
