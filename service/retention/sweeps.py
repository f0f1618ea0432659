"""What time does to executions that have ended: past their retention they go, page by page.

The days are the tenant's where it has some, else the server's. A page is judged by what the tenant has as its
transaction reads it, so a tenant that asks for more days loses nothing from the next page on.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.kernel.removal import Going, take_out
from service.kernel.standing import limits_of
from service.kernel.sweeps import Sweep

DAY_MS, MINUTE_MS = 86_400_000, 60_000
TENANTS = 250
"""Tenants that a step looks at for the next one with something old enough."""
LOOKS = 1_000
"""Executions that a page looks at, of those that are old enough."""
EXECUTIONS, EVENTS = 50, 500
"""Executions that a page removes, and their events together: it stops before there are more, but not before one."""
ROWS = 3_000
"""Rows that a page removes: with more, of fewer executions; of a single one that has more, part after part."""
PAGES_A_ROUND = 20
"""Pages in one round of sweeps: between them commands have their turn."""


class Walk(msgspec.Struct):
    """Where the walk has come to: the tenant that was looked at last, whether it is being walked, and then the time
    before which its executions must have ended, and the age and id of the one that was looked at last. Once all tenants
    were walked through it rests until `rest_until`."""

    tenant_id: str = ""
    inside: bool = False
    before: int = 0
    at: int = 0
    id: str = ""
    rest_until: int = 0


class Aged(msgspec.Struct, frozen=True):
    """An execution that began before the time of retention."""

    id: str
    created_at: int
    completed_at: int | None
    sequence: int


class TooManyRows(Exception):
    """Several executions have more rows than a page takes: nothing of them was removed."""


async def remove(services: Any) -> None:
    """Some pages."""
    days, backend = services.settings.execution_days, services.backend
    walk: Walk = services.lines.setdefault("retention", Walk())
    now = backend.now()
    if 0 < walk.rest_until - now <= MINUTE_MS:  # further ahead: the clock was set back
        return
    for _ in range(PAGES_A_ROUND):
        if not await page(backend, walk, days, now):
            walk.tenant_id, walk.rest_until = "", now + MINUTE_MS
            return


async def page(backend: StateBackend, walk: Walk, days: int, now: int) -> bool:
    """One page of one tenant, or a step to the next tenant; False after the last one."""
    seen = await aged(backend, walk) if walk.inside else []
    if not seen:
        return await step(backend, walk, days, now)
    looked, gone = chosen(seen, walk.before)
    try:
        whole = await removed(backend, walk.tenant_id, [one.id for one in gone], days, now)
    except TooManyRows:
        looked = gone[0]
        whole = await removed(backend, walk.tenant_id, [looked.id], days, now)
    if whole:
        walk.at, walk.id = looked.created_at, looked.id
    return True


async def step(backend: StateBackend, walk: Walk, days: int, now: int) -> bool:
    """On to the next tenant with executions that are old enough, past a page of others at most; False after the last
    tenant."""

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("tenants_with_oldest", after=walk.tenant_id, limit=TENANTS)

    rows = await backend.read(read, tenants=EVERY)
    walk.inside, walk.at, walk.id = False, 0, ""
    for tenant_id, limits, oldest in rows:
        walk.tenant_id, walk.before = tenant_id, kept_since(limits, days, now)
        if oldest is not None and oldest < walk.before:
            walk.inside = True
            return True
    return len(rows) == TENANTS


def kept_since(limits: str, days: int, now: int) -> int:
    """The time before which a tenant's executions must have ended to go, by its own days or else the server's `days`; 0
    days are for ever."""
    own = limits_of(limits).get("execution_days")
    kept = days if own is None else own
    return now - kept * DAY_MS if kept else 0


async def aged(backend: StateBackend, walk: Walk) -> list[Aged]:
    """The next of a tenant's executions that are old enough to have ended before the time of retention."""

    async def read(tx: Tx) -> list[Row]:
        return await tx.all(
            "aged_executions", tenant_id=walk.tenant_id, at=walk.at, id=walk.id, before=walk.before, limit=LOOKS
        )

    return [Aged(*row) for row in await backend.read(read, tenants=[walk.tenant_id])]


def chosen(seen: Sequence[Aged], before: int) -> tuple[Aged, list[Aged]]:
    """The last execution that was looked at, and up to a page of those that ended before the time of retention."""
    gone, events, looked = list[Aged](), 0, seen[0]
    for one in seen:
        if one.completed_at is not None and one.completed_at < before:
            events += one.sequence
            if gone and (len(gone) == EXECUTIONS or events > EVENTS):
                break
            gone.append(one)
        looked = one
    return looked, gone


async def removed(backend: StateBackend, tenant_id: str, ids: list[str], days: int, now: int) -> bool:
    """Remove executions, themselves last; False if there are more rows of a single one than a page takes. One that
    another transaction works on is left for the next walk, and so is one that the tenant keeps for longer by now,
    unless something of it has gone already."""
    if not ids:
        return True

    async def work(tx: Tx) -> bool:
        ended = await tx.all("lock_ended_executions", rows=[(tenant_id, id) for id in ids], before=now)
        heads = [Going(*row) for *row, at, limits in ended if not row[-1] or at < kept_since(limits, days, now)]
        whole = await erased(tx, tenant_id, [one.id for one in heads])
        if not whole and len(heads) > 1:
            raise TooManyRows
        await take_out(tx, tenant_id, heads)
        return whole

    return await backend.write(work, tenants=[tenant_id])


async def erased(tx: Tx, tenant_id: str, ids: list[str]) -> bool:
    """Delete a page of the rows of executions, themselves last; whether that was all."""
    left = ROWS
    for (table,) in await tx.all("tables_of_executions") if ids else ():
        most = len(ids) if table == "executions" else left
        left -= await tx.run(f"erase_{table}_of_executions", tenant_id=tenant_id, ids=ids, limit=most)
        if left <= 0 and table != "executions":
            return False
    return True


SWEEPS = [Sweep("retention.remove", 0, remove)]
