"""Statements that nobody writes by hand: those that take a tenant's rows away, one for each table of a tenant.

They are derived from the text of the migrations, so a table that is added later is not forgotten. Promise: taken in the
order of `tenant_tables`, no foreign key refuses a delete, because a table can only point at one that was made before
it.
"""

import re
from functools import lru_cache

from backends import migrate

TABLE = re.compile(r"CREATE TABLE (\w+) \((.*)\)$", re.S)
DROPPED = re.compile(r"DROP TABLE (?:IF EXISTS )?(\w+)")
KEY = re.compile(r"(?:PRIMARY KEY|UNIQUE) \((tenant_id\b[^)]*)\)")
COUNTED_MAX = 1_000_000
OF_EXECUTION = {"executions": "id", "runs": "id", "alarms": "owner_id"}
"""Tables whose rows belong to an execution that another column than `execution_id` names."""
OF_SCHEDULE = "schedule_runs"
"""It names executions, but its rows belong to schedules and go with them."""


@lru_cache(maxsize=1)
def keys() -> dict[str, list[str]]:
    """Each table with a tenant_id, and the columns of its key, the newest table first; `tenants` itself comes last."""
    found: dict[str, list[str]] = {}
    for statement in (text for migration in migrate.known() for text in migration.statements("sqlite")):
        if dropped := DROPPED.match(statement):
            found.pop(dropped.group(1), None)
        table = TABLE.match(statement.removesuffix(" STRICT"))
        if table is not None and re.search(r"^\s*tenant_id\b", table.group(2), re.M):
            key = KEY.search(table.group(2))
            found[table.group(1)] = re.split(r",\s*", key.group(1)) if key else ["tenant_id"]
    return dict(reversed(found.items()))


@lru_cache(maxsize=1)
def of_executions() -> dict[str, str]:
    """The tables whose rows belong to an execution, and the column that names it. Events come first, from the first of
    a log on: an execution without it is being removed, and is not shown. Executions themselves come last."""
    made = (TABLE.match(text.removesuffix(" STRICT")) for one in migrate.known() for text in one.statements("sqlite"))
    naming = {table.group(1) for table in made if table and re.search(r"^\s*execution_id\b", table.group(2), re.M)}
    named = OF_EXECUTION | dict.fromkeys(naming - {OF_SCHEDULE}, "execution_id")
    order = sorted(keys(), key=lambda table: table != "events")
    return {table: named[table] for table in order if table in named}


@lru_cache(maxsize=1)
def texts() -> dict[str, str]:
    """`tenant_tables`, `count_tenant_rows`, `load_tenant_rows` for a batch of tenants, `erase_<table>` for each;
    `tables_of_executions`, and `erase_<table>_of_executions` for each of these."""
    names = list(keys())
    listed = ", ".join(f"({at}, '{name}')" for at, name in enumerate(names))
    of_one = ", ".join(f"({at}, '{name}')" for at, name in enumerate(of_executions()))
    counts = [
        f"(SELECT count(*) FROM (SELECT 1 FROM {name} WHERE tenant_id = :tenant_id LIMIT {COUNTED_MAX}) AS c)"
        for name in names
    ]
    several = [
        f"(SELECT count(*) FROM (SELECT 1 FROM {name} x WHERE x.tenant_id = r.tenant_id LIMIT {COUNTED_MAX}) AS c)"
        for name in names
        if name != "tenants"
    ]
    return {
        "load_tenant_rows": f"WITH rows(tenant_id TEXT) AS (:rows)\n"
        f"SELECT r.tenant_id, {' + '.join(several)} AS count FROM rows r ORDER BY r.tenant_id",
        "tenant_tables": f"SELECT column2 FROM (VALUES {listed}) AS t ORDER BY column1",
        "tables_of_executions": f"SELECT column2 FROM (VALUES {of_one}) AS t ORDER BY column1",
        "count_tenant_rows": f"SELECT {' + '.join(counts)}",
        **{f"erase_{name}": erase(name, key) for name, key in keys().items()},
        **{
            f"erase_{name}_of_executions": erase(name, keys()[name], f" AND {column} IN :ids[]")
            for name, column in of_executions().items()
        },
    }


def erase(table: str, key: list[str], which: str = "") -> str:
    """Delete up to `limit` rows of a tenant, all or those that `which` says."""
    columns = ", ".join(key)
    left = columns if len(key) == 1 else f"({columns})"
    chosen = f"SELECT {columns} FROM {table} WHERE tenant_id = :tenant_id{which} ORDER BY {columns} LIMIT :limit"
    return f"DELETE FROM {table} WHERE {left} IN ({chosen})"
