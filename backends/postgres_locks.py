"""Changes of tables while others use them.

Such a change waits until nobody uses the table, and whoever comes meanwhile waits behind it. So it waits for a moment
only, lets the others go on, and asks again; whoever never makes way is named.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from backends.errors import Unavailable

T = TypeVar("T")
LOCK_MS = 2_000
TRIES = 10
PAUSE_SECONDS = 1.0
"""Between two tries, for those who waited."""
ENDLESS = 7 * 86_400.0
"""Seconds that one statement may take: an index over much takes long."""
BOUNDS = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = "
IN_THE_WAY = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), a.usename::text, 'unknown')
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.granted AND l.relation IN (SELECT oid FROM pg_class WHERE relnamespace::regnamespace::text = quote_ident($1))
   AND a.datname = current_database() AND a.pid <> pg_backend_pid()
 GROUP BY 1, 2 ORDER BY min(a.xact_start), a.pid LIMIT 1
"""
BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


async def changed(db: Any, what: str, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives, in a transaction of its own. `Unavailable`, and nothing changed, where somebody never makes
    way; `what` begins the sentence."""
    for attempt in range(1, TRIES + 1):
        try:
            async with db.transaction():
                await db.execute(f"{BOUNDS}{LOCK_MS}")
                return await work()
        except BUSY as error:
            if attempt == TRIES:
                raise Unavailable(f"{what} waits for {await in_the_way(db)}") from error
            await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


async def in_the_way(db: Any) -> str:
    """Who holds a lock on our tables for longest, and what to do."""
    found = await db.fetchrow(IN_THE_WAY, await db.fetchval("SELECT current_schema()::text"))
    who = "somebody" if found is None else f"the session {found[0]} ({found[1]})"
    return f"{who}, who holds a lock on a table; have that transaction ended and try again"
