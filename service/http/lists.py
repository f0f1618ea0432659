"""Lists over HTTP: keyset pages, filters in the filter language, cursors sealed for tenant, list and filter."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from backends.protocol import Row, Tx, Where
from service.http.endpoint import Call
from service.kernel import filters

ALL: Where = ("(1 = 1)", {})
PAGE_BYTES, SLICE = 8_388_608, 101
"""Bytes of documents after which a page ends, and how many rows that may hold some are read at a time: a page of the
size that nobody asked for, and one more. A row may be as large as a few bodies, and a page has up to a thousand."""
Find = Callable[[Tx, str, Where, dict[str, Any]], Awaitable[list[Row]]]
"""How to find the rows of a statement for a filter and parameters."""
Slice = Callable[[Row | None, int], Awaitable[list[Row]]]
"""How to read so many rows after one, or from where the page begins."""


class Page(msgspec.Struct, frozen=True):
    """A page and the way to the next; `next_cursor` is null at the end."""

    items: list[Any]
    next_cursor: str | None


class Rows(list[Row]):
    """The rows of a page; `cut` says that it ends before others because of its bytes."""

    cut = False


async def that_fit(read: Slice, most: int, part: float = 1) -> Rows:
    """Up to `most` rows, a slice at a time; the row with which they come to `PAGE_BYTES` is the last. Where `part` of
    those bytes are to be enough, slices begin short."""
    found, size, step = Rows(), 0, max(1, int(SLICE * part))
    while len(found) < most:
        asked = min(step, most - len(found))
        rows = await read(found[-1] if found else None, asked)
        for row in rows:
            if size >= PAGE_BYTES * part:
                found.cut = True
                return found
            found.append(row)
            size += sum(len(value) for value in row if type(value) is bytes)
        if len(rows) < asked:
            break
        step = min(2 * step, SLICE)
    return found


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
    bulky: bool = False,
    find: Find = straight,
    **params: Any,
) -> Page:
    """One page of `statement`: `names` are its position parameters, `first` their values before the first row. One
    whose rows are `bulky` may be shorter than asked for, and not the last."""
    limit, cursor = call.query["limit"], call.query["cursor"]
    scope = [
        call.who.tenant_id,
        statement,
        *sorted((k, v) for k, v in call.query.items() if k not in ("limit", "cursor")),
    ]
    scope += [list(call.path.values())]
    at = first if cursor is None else call.services.cursors.open(scope, cursor)

    async def read(tx: Tx) -> Rows:
        async def after(last: Row | None, most: int) -> list[Row]:
            place = at if last is None else position(last)
            return await find(tx, statement, where, {**params, **dict(zip(names, place, strict=True)), "limit": most})

        return await that_fit(after, limit + 1) if bulky else Rows(await after(None, limit + 1))

    rows = await (call.scan(read) if scan else call.services.backend.read(read, tenants=call.who.reach))
    more, shown = rows.cut or len(rows) > limit, rows[:limit]
    return Page([show(row) for row in shown], call.services.cursors.seal(scope, position(shown[-1])) if more else None)
