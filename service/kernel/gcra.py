"""A leaky bucket as one number (GCRA): when the bucket will be empty if nothing more comes.

Each request pours in an n-th of a second; the bucket holds `burst` requests. Times are milliseconds.
"""

import msgspec

from service.kernel.principal import Standing

SET_BACK_MS = 5_000
"""How much further ahead than it can be a bucket's time may lie: clocks of processes that share it differ, and whoever
waited for its row had read the clock before. Beyond it the clock was set back."""


class Rate(msgspec.Struct, frozen=True):
    """So many requests a second, and so many at once. Zero of either lets nothing through."""

    per_second: int
    burst: int


class Poured(msgspec.Struct, frozen=True):
    """How many requests went in, when the bucket is empty now, and how long until one more fits (ms)."""

    count: int
    empty_at: float
    wait: float


def rate_of(standing: Standing) -> Rate | None:
    """The tenant's rate; None when it has none. Without a `burst`, a second's worth may come at once."""
    per_second, burst = standing.limit("requests_per_second"), standing.limit("burst")
    return None if per_second is None else Rate(per_second, per_second if burst is None else burst)


def pour(rate: Rate, empty_at: float, now: float, most: int = 1) -> Poured:
    """Pour in up to `most` requests at `now`, as many as fit."""
    if not rate.per_second or not rate.burst:
        return Poured(0, empty_at, 60_000)
    each = 1000 / rate.per_second
    depth = rate.burst * each
    if not now < empty_at <= now + depth + SET_BACK_MS:  # it has run dry, or the clock was set back
        empty_at = now
    room = max(0, int((now + depth - empty_at) / each + 0.001))
    count = min(most, room)
    empty_at += count * each
    return Poured(count, empty_at, max(0.0, empty_at + each - now - depth))
