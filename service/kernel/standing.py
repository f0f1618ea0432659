"""The standing of callers inside a transaction: one statement reads it for the whole batch.

A revoked token or a suspended tenant is therefore refused by the very transaction that would have served it, on every
process, without a cache that could be stale.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from backends.protocol import EVERY, Read, Row, Tenants, Tx
from service.kernel.principal import SYSTEM, Principal, Standing

Caller = tuple[str, str, str]
"""A tenant, and the tenant and id of the token that acts for it."""
NOBODY, UNLIMITED = Standing("archived", {}, revoked_at=0), Standing("active", {})
GUESSES_MAX = 10_000


@lru_cache(maxsize=4096)
def limits_of(text: str) -> dict[str, int | None]:
    """A tenant's limits from their JSON."""
    return msgspec.json.decode(text, type=dict[str, int | None])


def reading(whos: Iterable[Principal]) -> Read:
    """What to read, to know how callers stand."""
    return "load_standings", sorted({caller(who) for who in whos})


def standings_in(rows: Iterable[Row], whos: Iterable[Principal]) -> list[Standing]:
    """The standing of each caller, by what was read."""
    found = {(row[0], row[1], row[2]): Standing(row[3], limits_of(row[4]), row[5], row[6]) for row in rows}
    return [found.get(caller(who), NOBODY) for who in whos]


async def standings_of(tx: Tx, whos: Sequence[Principal]) -> list[Standing]:
    """The standing of each caller, as of now."""
    statement, rows = reading(whos)
    return standings_in(await tx.all(statement, rows=rows), whos)


def caller(who: Principal) -> Caller:
    """What a standing is of."""
    return who.tenant_id, who.token_tenant, who.token_id or ""


class Guesses:
    """How callers stood the last time. Nothing is decided by it: it tells which rows a limit will ask for, so that they
    can be read at once with the standing itself."""

    def __init__(self) -> None:
        self._last: dict[Caller, Standing] = {}

    def of(self, whos: Iterable[Principal]) -> list[Standing]:
        """A guess for each."""
        return [self._last.get(caller(who), UNLIMITED) for who in whos]

    def learn(self, whos: Iterable[Principal], standings: Iterable[Standing]) -> None:
        """Remember who has limits."""
        if len(self._last) > GUESSES_MAX:
            self._last.clear()
        for who, standing in zip(whos, standings, strict=True):
            if standing.limits:
                self._last[caller(who)] = standing
            else:
                self._last.pop(caller(who), None)


def kept_at(whos: Sequence[Principal]) -> Tenants:
    """The tenants that keep what callers may touch and what they stand on: theirs, and those of their tokens.

    The system's own callers act for every tenant.
    """
    if any(who.tenant_id == SYSTEM for who in whos):
        return EVERY
    return {who.tenant_id for who in whos} | {who.token_tenant for who in whos if who.token_id is not None}
