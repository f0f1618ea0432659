"""Tallies: how many executions of a namespace have a status, exact to the last commit, without counting executions.

A commit that starts or ends executions adds a row or two that say by how much, whatever the size of its batch, and
waits for nobody: only a sweep touches the totals. A reader sums a total and what was not folded into it yet.
"""

from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.kernel.ids import uuid7

PAGE, PAGES_A_ROUND = 1_000, 100
Place = tuple[str, str, str]
"""Tenant, namespace, status."""

place_of = attrgetter("tenant_id", "namespace", "status")


def tally_changes(moves: Iterable[tuple[Place | None, Place | None]], now: int) -> list[tuple[Any, ...]]:
    """The rows that say what a batch adds, from where each of its rows was and where it is; None is nowhere."""
    found: dict[Place, int] = defaultdict(int)
    for before, after in moves:
        if before != after:
            if before is not None:
                found[before] -= 1
            if after is not None:
                found[after] += 1
    return [(place[0], uuid7(now), place[1], place[2], count) for place, count in sorted(found.items()) if count]


async def fold(backend: StateBackend) -> None:
    """Add to the totals what commits have said, a page in a transaction."""

    async def any_change(tx: Tx) -> Row | None:
        return await tx.one("any_tally_change")

    async def page(tx: Tx) -> int:
        changes = await tx.all("tally_changes_to_fold", limit=PAGE)
        found: dict[Place, int] = defaultdict(int)
        for tenant_id, _, namespace, status, count in changes:
            found[tenant_id, namespace, status] += count
        if changes:
            await tx.many("fold_tallies", [(*place, count) for place, count in sorted(found.items())])
            await tx.many("delete_tally_changes", [(row[0], row[1]) for row in changes])
        return len(changes)

    for _ in range(PAGES_A_ROUND):
        if not await backend.read(any_change, tenants=EVERY) or await backend.write(page, tenants=EVERY) < PAGE:
            return


async def tallies_of(tx: Tx, tenant_id: str, namespace: str) -> dict[str, int]:
    """How many executions of a namespace have each status; a status without any may be missing."""
    return {row[0]: int(row[1]) for row in await tx.all("read_tallies", tenant_id=tenant_id, namespace=namespace)}
