"""The standing of callers inside a transaction: one statement reads it for the whole batch.

A revoked token or a suspended tenant is therefore refused by the very transaction that would have served it, on every
process, without a cache that could be stale.
"""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from backends.protocol import EVERY, Tenants, Tx
from service.kernel.principal import SYSTEM, Principal, Standing

NOBODY = Standing("archived", {}, revoked_at=0)


@lru_cache(maxsize=4096)
def limits_of(text: str) -> dict[str, int | None]:
    """A tenant's limits from their JSON."""
    return msgspec.json.decode(text, type=dict[str, int | None])


async def standings_of(tx: Tx, whos: Sequence[Principal]) -> list[Standing]:
    """The standing of each caller, as of now."""
    asked = {(who.tenant_id, who.token_tenant, who.token_id or "") for who in whos}
    found = {
        (row[0], row[1], row[2]): Standing(row[3], limits_of(row[4]), row[5], row[6])
        for row in await tx.all("load_standings", rows=sorted(asked))
    }
    return [found.get((who.tenant_id, who.token_tenant, who.token_id or ""), NOBODY) for who in whos]


def kept_at(whos: Sequence[Principal]) -> Tenants:
    """The tenants that keep what callers may touch and what they stand on: theirs, and those of their tokens.

    The system's own callers act for every tenant.
    """
    if any(who.tenant_id == SYSTEM for who in whos):
        return EVERY
    return {who.tenant_id for who in whos} | {who.token_tenant for who in whos if who.token_id is not None}
