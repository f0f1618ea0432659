"""Whose turn it is when more is due than a page holds, so that one tenant's flood holds up nobody else's timers.

What is due is taken in the order of time. A full page says that there is more behind it; then as much again is taken
from tenants in turn, found by an index that begins with the tenant. The line goes on where it ended the last time, and
looks at so many tenants for a page: no page grows with what is due, or with how many wait. Where a page met a row that
somebody holds, tenants go in turn, each by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.errors import StateError
from service.kernel.principal import SYSTEM
from service.kernel.run import is_held

LOOKS = 250
"""Tenants that are looked at for a page."""
TURNS = 25
"""Tenants that are served in a page."""


class Line(msgspec.Struct):
    """Where the turns of a sweep have come to: the tenant that was served or looked at last."""

    after: str = ""


class Took(msgspec.Struct, frozen=True):
    """What was taken: how many were found due, how many of them were done, and what went wrong with others."""

    found: int
    done: int
    errors: tuple[BaseException, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """A page of due work; `more` says that there may be more, and that this page was not in vain."""

    done: int
    more: bool
    errors: tuple[BaseException, ...] = ()


Take = Callable[[str, int], Awaitable[Took]]
"""`take(tenant_id, limit)`: do what has been due longest, of one tenant or, for `SYSTEM`, of all."""


async def in_turns(backend: StateBackend, line: Line, tenants: str, take: Take, limit: int) -> Page:
    """Up to `limit` by time and, if there are so many, up to `limit` by tenants in turn, named by the statement
    `tenants`. Raises what went wrong with the whole page, once others have had their turn."""
    try:
        took = [await take(SYSTEM, limit)]
    except StateError as error:
        if is_held(error) and not backend.serial:  # a serial one has but one lock, of everything
            await one_by_one(backend, line, tenants, take, limit)
        raise
    full = took[0].found >= limit
    if full and (served := await next_in_line(backend, line, tenants)):
        share = max(1, limit // len(served))
        took += await asyncio.gather(*(take(tenant_id, share) for tenant_id in served))
    done = sum(one.done for one in took)
    return Page(done, full and done > 0, tuple(error for one in took for error in one.errors))


async def one_by_one(backend: StateBackend, line: Line, tenants: str, take: Take, limit: int) -> None:
    """Up to `limit` of tenants in turn, no two of them in one commit, until one fails; the next ones have their turn
    first then."""
    for tenant_id in await next_in_line(backend, line, tenants):
        try:
            await take(tenant_id, limit)
        except StateError:
            line.after = tenant_id
            return


async def next_in_line(backend: StateBackend, line: Line, tenants: str) -> list[str]:
    """The next tenants with something due; the line moves behind them, and from its end to the front."""

    async def ask(tx: Tx) -> list[Row]:
        return await tx.all(tenants, now=tx.now, after=line.after, looks=LOOKS)

    rows = sorted(tuple(row) for row in await backend.read(ask, tenants=EVERY))
    served = [tenant_id for tenant_id, due in rows if due][:TURNS]
    if len(served) == TURNS:
        line.after = served[-1]
    else:
        line.after = rows[-1][0] if len(rows) == LOOKS else ""
    return served
