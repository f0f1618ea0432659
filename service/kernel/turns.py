"""Turns at what there are few of: readers that may take long. Whoever waits is served tenant by tenant.

A tenant has at most half of the lanes and so many waiting as there is room left: its slow filters keep nobody else from
a list.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator

from service.errors import StateError

WAITING_MAX = 1_000


class Turns:
    """`lanes` at a time, `waiting` more in line; beyond that 503 `server/busy`."""

    def __init__(self, lanes: int, waiting: int = WAITING_MAX) -> None:
        self._lanes, self._most = lanes, waiting
        self._each = max(1, lanes // 2)
        self._busy: Counter[str] = Counter()
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def of(self, tenant_id: str) -> AsyncIterator[None]:
        """A turn of the tenant's, for as long as the `with` lasts."""
        if self._lanes and not self._lines.get(tenant_id) and self._busy[tenant_id] < self._each:
            self._begin(tenant_id)
        else:
            await self._wait(tenant_id)
        try:
            yield
        finally:
            self._end(tenant_id)

    def _begin(self, tenant_id: str) -> None:
        self._lanes -= 1
        self._busy[tenant_id] += 1

    def _end(self, tenant_id: str) -> None:
        self._lanes += 1
        self._busy[tenant_id] -= 1
        if not self._busy[tenant_id]:
            del self._busy[tenant_id]
        self._call()

    async def _wait(self, tenant_id: str) -> None:
        """Stand in the tenant's line until it is its turn."""
        line = self._lines.get(tenant_id, deque())
        if len(line) >= self._most - self._waiting:
            raise StateError("server/busy", f"{self._waiting} reads wait already; try again.", retry_after=1)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        self._lines[tenant_id] = line
        self._waiting += 1
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # its turn had come as the caller went away
                self._end(tenant_id)
            raise

    def _call(self) -> None:
        """Give what is free to the lines in turn: whose place was called goes to the back."""
        for tenant_id in list(self._lines):
            if not self._lanes:
                return
            if self._busy.get(tenant_id, 0) >= self._each:
                continue
            line = self._lines.pop(tenant_id)
            place = line.popleft()
            self._waiting -= 1
            while place.done() and line:  # the caller went away
                place = line.popleft()
                self._waiting -= 1
            if not place.done():
                self._begin(tenant_id)
                place.set_result(None)
            if line:
                self._lines[tenant_id] = line
