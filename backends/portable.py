"""Statements that nobody writes by hand: those that read a tenant's rows for an export, and write them for an import.

Like those of `erasure` they are derived from the text of the migrations, so a table that is added later travels too,
unless `STAYS` says why it does not. Rows are read in the order of their keys, page by page; events in the order of the
tenant's feed, so that the feed is the same where they arrive.
"""

import re
from functools import lru_cache

import msgspec

from backends import erasure, migrate

STAYS = {
    "tenants": "its one row goes with the manifest, and becomes visible last",
    "tokens": "a token is good for one store only: its verifier is never shown",
    "secrets": "the service's own",
    "sweep_leases": "the service's own",
    "rates": "how fast a tenant asks here, just now",
    "queue_rates": "how fast its queues move here, just now",
    "workers": "who works for it here, just now; they register where it arrives",
    "worker_queues": "as above",
}
"""Tables with a tenant_id that do not travel, and why."""
OWN = {"events": frozenset({"position", "commit_id"})}
"""Columns that are the store's own: where an event stands in the feed."""
ORDER = {"events": {"": ("position",), "postgres": ("commit_id", "position")}}
"""Tables that are not read in the order of their keys: by which columns, on which engine."""
FIXED = {"events": {"": "commit_id = 0", "postgres": ""}}
"""What SQLite must be told for its index to serve that order."""
TYPES = {"TEXT": "TEXT", "INTEGER": "BIGINT", "BLOB": "BYTEA"}
ADDED = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+) (TEXT|INTEGER|BLOB)(.*)", re.S)
COLUMN = re.compile(r"^(\w+) (TEXT|INTEGER|BLOB)\b(.*)", re.S)


class Column(msgspec.Struct, frozen=True):
    """A column that travels; `type` is TEXT, BIGINT or BYTEA."""

    name: str
    type: str
    nullable: bool


@lru_cache(maxsize=1)
def tables() -> dict[str, tuple[Column, ...]]:
    """The tables that travel, each after those that it points at, with their columns; the tenant's id is left out."""
    found: dict[str, list[Column]] = {}
    for statement in (text for migration in migrate.known() for text in migration.statements("sqlite")):
        if (made := erasure.TABLE.match(statement.removesuffix(" STRICT"))) is not None:
            parts = re.split(r",\s*(?![^(]*\))", made.group(2))
            found[made.group(1)] = [
                column_of(*match.groups()) for part in parts if (match := COLUMN.match(part.strip()))
            ]
        elif (added := ADDED.match(statement)) is not None:
            found[added.group(1)].append(column_of(*added.groups()[1:]))
    return {
        name: tuple(one for one in found[name] if one.name not in OWN.get(name, ()) and one.name != "tenant_id")
        for name in reversed(erasure.keys())
        if name not in STAYS
    }


def column_of(name: str, kind: str, rest: str) -> Column:
    """A column from its definition as SQLite has it."""
    return Column(name, TYPES[kind], "NOT NULL" not in rest and "PRIMARY KEY" not in rest)


def order_of(table: str, engine: str = "") -> tuple[str, ...]:
    """By what a table is read; a row begins with these, as its place, and its columns follow."""
    own = ORDER.get(table)
    return own.get(engine, own[""]) if own else tuple(name for name in erasure.keys()[table] if name != "tenant_id")


def execution_of(table: str) -> str | None:
    """The column by which the rows of a table belong to executions; None of a table that goes on without them."""
    return erasure.of_executions().get(table)


@lru_cache(maxsize=1)
def texts() -> dict[str, dict[str, str]]:
    """`export_<table>`, `export_<table>_after` (a place, as `:at_0`, `:at_1` …) and `import_<table>`, by engine.

    A table with a single row for a tenant has no place to go on from.
    """
    found: dict[str, dict[str, str]] = {}
    for table, columns in tables().items():
        engines = ORDER.get(table, {"": ()})
        found[f"export_{table}"] = {engine: export(table, engine, after=False) for engine in engines}
        if order_of(table):
            found[f"export_{table}_after"] = {engine: export(table, engine, after=True) for engine in engines}
        names = ", ".join(["tenant_id", *(column.name for column in columns)])
        taken = ", ".join(["tenant_id TEXT", *(f"{column.name} {column.type}" for column in columns)])
        found[f"import_{table}"] = {
            "": f"WITH rows({taken}) AS (:rows)\nINSERT INTO {table} ({names}) SELECT {names} FROM rows"
        }
    return found


def export(table: str, engine: str, *, after: bool) -> str:
    """A page of a tenant's rows, from the first or after a place."""
    order = order_of(table, engine)
    selected = ", ".join([*order, *(column.name for column in tables()[table])])
    conditions = ["tenant_id = :tenant_id", FIXED.get(table, {}).get(engine, "")]
    if after:
        places = ", ".join(f":at_{index}" for index in range(len(order)))
        conditions.append(f"({', '.join(order)}) > ({places})" if len(order) > 1 else f"{order[0]} > {places}")
    bound = " AND ".join(filter(None, conditions))
    return f"SELECT {selected} FROM {table} WHERE {bound} ORDER BY {', '.join(order) or 'tenant_id'} LIMIT :limit"
