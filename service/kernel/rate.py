"""Requests per second, per tenant: a leaky bucket (GCRA) in this process; a second's worth may come at once."""

from service.errors import StateError


class Rates:
    """Remembers, for each name, when its bucket is empty again (milliseconds)."""

    def __init__(self) -> None:
        self._empty_at: dict[str, float] = {}

    def take(self, name: str, per_second: int | None, now: int) -> None:
        """Count one request at `now`; raises `limit/requests-per-second` with the time to wait."""
        if per_second is None:
            return
        if per_second == 0:
            raise self._refuse(per_second, 60)
        empty_at = max(self._empty_at.get(name, 0.0), now) + 1000 / per_second
        wait = empty_at - now - 1000
        if wait > 0.001:
            raise self._refuse(per_second, 1 + int(wait // 1000))
        self._empty_at[name] = empty_at

    @staticmethod
    def _refuse(per_second: int, wait: int) -> StateError:
        return StateError(
            "limit/requests-per-second",
            f"The tenant may make {per_second} requests a second; wait and try again.",
            limit=per_second,
            retry_after=wait,
        )
