"""Requests per second from one budget for all processes: the store has the bucket, each process takes slices of it.

A slice is a twentieth of a second's requests, so a process asks the store some twenty times a second, whatever the
number of requests, and the next slice is fetched while the last is used up. What a process does not use within a second
is lost, so the rate is never passed; a tenant gets a little less of it, the more so the more processes it speaks to.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from backends.errors import StoreError
from backends.protocol import StateBackend, Tx
from service.kernel.gcra import Poured, Rate, pour
from service.kernel.rate import BUCKETS_MAX, too_fast

SLICES_A_SECOND = 20
KEPT_MS = 1_000


class Slice:
    """What this process has left of a tenant's requests, until when, and when to ask again after a refusal (ms)."""

    __slots__ = ("again_at", "fetching", "left", "rate", "refused_at", "until", "waiting")

    def __init__(self, rate: Rate) -> None:
        self.rate, self.left, self.until = rate, 0, 0
        self.again_at, self.refused_at, self.waiting = 0.0, 0, 0
        self.fetching: asyncio.Task[None] | None = None

    def spend(self, now: int) -> bool:
        """Use one request of the slice, if it has one."""
        if not self.left or not self.until - KEPT_MS <= now < self.until:
            return False
        self.left -= 1
        return True

    @property
    def size(self) -> int:
        """How many requests to fetch: a slice, and one for each that waits."""
        return max(1, self.rate.per_second // SLICES_A_SECOND, self.waiting)


class SharedRates:
    """A bucket for each tenant in the store, and slices of it here."""

    def __init__(self, backend: StateBackend) -> None:
        self.backend = backend
        self._slices: OrderedDict[str, Slice] = OrderedDict()

    async def take(self, name: str, rate: Rate, now: int) -> None:
        """Count one request at `now` (ms); raises `limit/requests-per-second`, or what the store raises."""
        own = self._slice(name, rate)
        while not own.spend(now):
            if own.refused_at <= now < own.again_at:
                raise too_fast(rate, own.again_at - now)
            own.waiting += 1
            try:
                await asyncio.shield(self._fetch(name, own))
            finally:
                own.waiting -= 1
            now = self.backend.now()
        if own.left <= own.size // 2 and now >= own.again_at:
            self._fetch(name, own).add_done_callback(unheard)

    def _slice(self, name: str, rate: Rate) -> Slice:
        own = self._slices.get(name)
        if own is None or own.rate != rate:
            own = self._slices[name] = Slice(rate)
        self._slices.move_to_end(name)
        if len(self._slices) > BUCKETS_MAX:
            self._slices.popitem(last=False)
        return own

    def _fetch(self, name: str, own: Slice) -> "asyncio.Task[None]":
        """The fetch that is under way, or a new one."""
        if own.fetching is None:
            own.fetching = asyncio.get_running_loop().create_task(self._refill(name, own))
        return own.fetching

    async def _refill(self, name: str, own: Slice) -> None:
        try:
            poured: Poured = await self.backend.write(taking(name, own.rate, own.size), tenants=[name])
        finally:
            own.fetching = None
        now = self.backend.now()
        if poured.count:
            own.left, own.until = own.left + poured.count if now < own.until else poured.count, now + KEPT_MS
        else:
            own.refused_at, own.again_at = now, now + poured.wait


def taking(name: str, rate: Rate, most: int) -> Callable[[Tx], Coroutine[Any, Any, Poured]]:
    """The transaction that takes up to `most` requests out of the tenant's budget."""

    async def work(tx: Tx) -> Poured:
        await tx.run("make_rate", tenant_id=name)
        row = await tx.one("lock_rate", tenant_id=name)
        poured = pour(rate, (row[0] if row else 0) / 1000, tx.now, most)
        await tx.run("keep_rate", tenant_id=name, empty_at=int(poured.empty_at * 1000))
        return poured

    return work


def unheard(fetch: "asyncio.Task[None]") -> None:
    """Nobody waits for a slice that is fetched ahead; whoever needs it asks again and is told what is wrong."""
    if not fetch.cancelled() and (error := fetch.exception()) and not isinstance(error, StoreError):
        raise error
