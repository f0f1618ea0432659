"""Lists over HTTP: keyset pages, filters in the filter language, cursors sealed for tenant, list and filter."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from backends.protocol import Row, Tx, Where
from service.http.endpoint import Call
from service.kernel import filters

ALL: Where = ("(1 = 1)", {})
Find = Callable[[Tx, str, Where, dict[str, Any]], Awaitable[list[Row]]]
"""How to find the rows of a statement for a filter and parameters."""


class Page(msgspec.Struct, frozen=True):
    """A page and the way to the next; `next_cursor` is null at the end."""

    items: list[Any]
    next_cursor: str | None


async def straight(tx: Tx, statement: str, where: Where, values: dict[str, Any]) -> list[Row]:
    """The rows as the statement finds them."""
    return await tx.all(statement, where=where, **values)


def where(text: filters.Predicate | str | None, vocabulary: filters.Vocabulary, **fields: Any) -> Where:
    """A filter and simple `field=value` parameters as one predicate."""
    sql, params = ALL
    if text is not None:
        predicate = filters.compile(text, vocabulary) if isinstance(text, str) else text
        sql, params = predicate.sql, dict(predicate.params)
    by_name = {field.name: field for field in vocabulary.fields}
    for name, value in fields.items():
        if value is not None:
            field = by_name[name]
            equal = field.equal(f"{field.sql} = :w_{name}", value)
            sql, params = f"({sql} AND {equal})", {**params, f"w_{name}": value}
    return sql, params


async def listed(
    call: Call,
    statement: str,
    first: Sequence[Any],
    names: Sequence[str],
    show: Callable[[Row], Any],
    position: Callable[[Row], Sequence[Any]],
    *,
    where: Where = ALL,
    scan: bool = False,
    find: Find = straight,
    **params: Any,
) -> Page:
    """One page of `statement`: `names` are its position parameters, `first` their values before the first row."""
    limit, cursor = call.query["limit"], call.query["cursor"]
    scope = [
        call.who.tenant_id,
        statement,
        *sorted((k, v) for k, v in call.query.items() if k not in ("limit", "cursor")),
    ]
    scope += [list(call.path.values())]
    at = first if cursor is None else call.services.cursors.open(scope, cursor)
    values = {**params, **dict(zip(names, at, strict=True)), "limit": limit + 1}

    async def read(tx: Tx) -> list[Row]:
        return await find(tx, statement, where, values)

    rows = await (call.scan(read) if scan else call.services.backend.read(read, tenants=call.who.reach))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page([show(row) for row in rows], call.services.cursors.seal(scope, position(rows[-1])) if more else None)
