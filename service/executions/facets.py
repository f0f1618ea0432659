"""Lists of executions by label or attribute: whether to begin from those that have it, or from the list's own order.

How rare a value is decides which is quick, and no engine knows it in time: SQLite never analyzes, Postgres does a
minute late. So it is looked up: if few have the value, they are found by it and then put in order; if many, the walk in
order meets enough of them soon.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from backends.protocol import Row, Tx, Where

FEW = 10_000
"""How many executions are still found by what they have."""
CONDITIONS = 8
"""How many facet conditions are looked up for one list."""
AMONG = {
    "list_executions": "list_executions_among",
    "list_executions_oldest": "list_executions_oldest_among",
    "list_executions_updated": "list_executions_updated_among",
}


def alone(family: str) -> str:
    """The condition that a row of facets is the one that is meant; see `filters.Facet`."""
    return f"f.family = '{family}' AND f.name = {{name}} AND {{condition}}"


def has(family: str) -> str:
    """The condition that an execution has it. Said with LIMIT and OFFSET it is asked of one execution after the other;
    without them Postgres would begin from the facets, whether or not they are few. By its key: SQLite would look at
    every facet with such a value, for each execution."""
    return (
        "EXISTS (SELECT 1 FROM facets f BY KEY WHERE f.tenant_id = e.tenant_id AND f.execution_id = e.id"
        f" AND {alone(family)} LIMIT 1 OFFSET 0)"
    )


def among(covers: Sequence[Sequence[str]]) -> Callable[[Tx, str, Where, dict[str, Any]], Awaitable[list[Row]]]:
    """A way to find the rows of a list whose filter is covered so; the statements are those of `AMONG`."""

    async def find(tx: Tx, statement: str, where: Where, values: dict[str, Any]) -> list[Row]:
        ids = await few(tx, values["tenant_id"], covers, where)
        if ids is None:
            return await tx.all(statement, where=where, **values)
        return await tx.all(AMONG[statement], where=where, ids=ids, **values) if ids else []

    return find


async def few(tx: Tx, tenant_id: str, covers: Sequence[Sequence[str]], where: Where) -> list[str] | None:
    """The ids of the executions that one of the covers leaves, if it leaves few."""
    asked = 0
    for cover in covers:
        ids: set[str] = set()
        for condition in cover:
            asked += 1
            if asked > CONDITIONS:
                return None
            found = (condition, where[1])
            rows = await tx.all("executions_of_facet", where=found, tenant_id=tenant_id, limit=FEW + 1)
            ids.update(row[0] for row in rows)
            if len(ids) > FEW:
                break
        else:
            return sorted(ids)
    return None
