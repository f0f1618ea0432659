"""Requests per second, per tenant: counted in this process, or from a budget that all processes share."""

from collections import OrderedDict
from typing import Protocol

from service.errors import StateError
from service.kernel.gcra import Rate, pour

BUCKETS_MAX = 10_000
"""Tenants whose buckets are remembered; beyond it the one that was quiet for longest is taken to be empty."""


class Limiter(Protocol):
    """Counts requests of tenants that have a rate; who has none never gets here."""

    async def take(self, name: str, rate: Rate, now: int) -> None:
        """Count one request at `now` (ms); raises `limit/requests-per-second` with the time to wait."""


class Rates:
    """A bucket for each tenant in this process."""

    def __init__(self) -> None:
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    async def take(self, name: str, rate: Rate, now: int) -> None:
        poured = pour(rate, self._empty_at.get(name, 0.0), now)
        if not poured.count:
            raise too_fast(rate, poured.wait)
        self._empty_at[name] = poured.empty_at
        self._empty_at.move_to_end(name)
        if len(self._empty_at) > BUCKETS_MAX:
            self._empty_at.popitem(last=False)


def too_fast(rate: Rate, wait: float) -> StateError:
    """429, with the rate and how long to wait (`wait` in ms)."""
    return StateError(
        "limit/requests-per-second",
        f"The tenant may make {rate.per_second} requests a second, {rate.burst} at once; wait and try again.",
        limit=rate.per_second,
        burst=rate.burst,
        retry_after=max(1, -int(-wait // 1000)),
    )
