"""Lines of the log that every request could cause: each is told once in a while, with how often there was cause."""

from collections.abc import Hashable

WHAT_MAX = 1_000


class Seldom:
    """Counts, and says when it is time for a line. What was counted after the last one is told by the next."""

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms
        self._told: dict[Hashable, int] = {}
        self._counted: dict[Hashable, int] = {}

    def count(self, what: Hashable, now: int) -> int:
        """How often there was cause since `what` was last told, if it is to be told at `now` (ms); 0 if it is not."""
        if len(self._counted) >= WHAT_MAX:
            self._told.clear()
            self._counted.clear()
        counted = self._counted[what] = self._counted.get(what, 0) + 1
        if 0 <= now - self._told.get(what, -self._every_ms) < self._every_ms:
            return 0
        self._told[what], self._counted[what] = now, 0
        return counted
