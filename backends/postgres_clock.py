"""The database's clock, as a process carries it between readings.

A reading says what the time was at some moment of its way there and back; taken for the middle, it is wrong by half of
the way at most. So one on which a process or a connection paused is not taken: what was known before holds on. Only
where eight in a row were slow, the way itself is long, and the quickest of them is taken.
"""

import time
from collections.abc import Awaitable, Callable

SLOW_SECONDS = 0.25
TRIES = 8
SET_BACK_MS = 5_000


class DatabaseClock:
    """Milliseconds since the epoch by the database's clock; `monotonic` is the process's own, in seconds.

    Between readings it is carried by a clock that only moves forward. A reading that is a little behind the one before
    makes it stand, never step back; one that is `SET_BACK_MS` behind says that the database's clock itself was set
    back, and is followed.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset, self._latest = 0.0, 0
        self._slow: list[tuple[float, float]] = []

    def now(self) -> int:
        """The time, once a reading was taken."""
        self._latest = max(self._latest, int(self._monotonic() * 1000 + self._offset))
        return self._latest

    async def read(self, ask: Callable[[], Awaitable[float]]) -> bool:
        """Ask the database for its time in milliseconds; whether the answer was taken. It is at the eighth try."""
        before = self._monotonic()
        theirs = await ask()
        after = self._monotonic()
        self._slow.append((after - before, theirs - (before + after) * 500))
        if after - before > SLOW_SECONDS and len(self._slow) < TRIES:
            return False
        _, self._offset = min(self._slow)
        self._slow.clear()
        if self._latest > after * 1000 + self._offset + SET_BACK_MS:
            self._latest = 0
        return True
