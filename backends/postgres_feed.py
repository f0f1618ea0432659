"""A store that was restored into another cluster: its feed goes on, though ids of transactions begin anew.

Events stand in the feed by the id of their transaction and a base, which is 0 where the store was made. Restored from
a dump elsewhere, it has events of ids that are still to come there: they would not be shown before the cluster has come
so far, and what is written until then would stand before them, behind every reader's cursor.
"""

from typing import Any

from backends.errors import SchemaMismatch

AHEAD = """
SELECT holdfast_feed_base(), greatest(0, 1 + max(newest) - holdfast_feed_base()
         - pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
  FROM (SELECT (SELECT max(v.commit_id) FROM events v WHERE v.tenant_id = t.tenant_id) FROM tenants t) AS of(newest)
"""


async def ahead(db: Any, begin: str) -> tuple[int, int]:
    """The base, and how far events stand beyond what this cluster has come to. `begin` begins a transaction that sees
    those of every tenant."""
    await db.execute(begin)
    base, count = await db.fetchrow(AHEAD)
    await db.execute("COMMIT")
    return base, count or 0


async def follow(db: Any, begin: str) -> None:
    """Put the base beyond every event; nothing where the schema has none yet."""
    if await db.fetchval("SELECT to_regproc('holdfast_feed_base')") is None:
        return
    base, count = await ahead(db, begin)
    if count:
        await db.execute(
            "CREATE OR REPLACE FUNCTION holdfast_feed_base() RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE"
            f" AS 'SELECT {base + count}::bigint'"
        )


async def refuse_behind(db: Any, begin: str) -> None:
    """Raise `SchemaMismatch` where the base has not been put beyond every event."""
    _, count = await ahead(db, begin)
    if count:
        raise SchemaMismatch("the store was restored from another cluster; run `holdfast migrate`")
