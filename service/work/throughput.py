"""How fast queues move: counted in memory as commits pass, written down every few seconds, ten seconds to a row.

A commit costs a look at the items that it changed; nothing is read or written for it, and nothing waits. What a process
has not yet written when it is killed is missing from the rates of its last seconds, and from nothing else.
"""

from collections.abc import Mapping

import structlog

from backends.errors import StoreError
from backends.protocol import StateBackend, Tx
from service.kernel.later import Later
from service.kernel.tables import Key
from service.work.model import BUCKET_MS, HAPPENED

log = structlog.get_logger()
FLUSH_SECONDS = 3.0
"""Well before `SETTLED_MS` is over: by then whatever a bucket holds has been written."""
NOTED_MAX = 100_000
PAGE = 1_000


class Throughput:
    """What the commits of this process did to work items, until it is written."""

    def __init__(self, backend: StateBackend) -> None:
        self.backend = backend
        self._noted: dict[tuple[str, int, str], list[int]] = {}
        self._later = Later(self.flush, FLUSH_SECONDS)

    def note(self, now: int, measured: Mapping[Key, int]) -> None:
        """Count what a commit did at `now` (milliseconds): (tenant, queue, what) → how often."""
        bucket = now - now % BUCKET_MS
        for (tenant_id, queue, what), count in measured.items():
            counts = self._noted.get((tenant_id, bucket, queue))
            if counts is None:
                if len(self._noted) >= NOTED_MAX:
                    continue
                counts = self._noted[tenant_id, bucket, queue] = [0] * len(HAPPENED)
            counts[HAPPENED.index(what)] += count
        if measured:
            self._later.soon()

    async def flush(self) -> None:
        """Write what was noted since the last time; what the store does not take now is left out of the rates."""
        noted, self._noted = self._noted, {}
        rows = sorted((*key, *counts) for key, counts in noted.items())
        for start in range(0, len(rows), PAGE):
            try:
                await self._write(rows[start : start + PAGE])
            except StoreError as error:
                log.warning("rates of queues could not be written", error=str(error))

    async def _write(self, rows: list[tuple[object, ...]]) -> None:
        async def add(tx: Tx) -> int:
            return await tx.many("add_queue_rates", rows)

        await self.backend.write(add, tenants=sorted({str(row[0]) for row in rows}))

    async def close(self) -> None:
        """Write what is left."""
        await self._later.close()
