"""PgQueuer: its asyncpg drivers, lists for batches, one queue manager that takes a thousand jobs at a time."""

import asyncio
import json
import logging
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.domain.types import QueueExecutionMode
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.peers.work import BATCH, BATCH_CALLERS, CALLERS, PAYLOAD, WARM, Done, batches, called, ready, told

RAW = json.dumps(PAYLOAD).encode()


async def setup(url: str, _count: int) -> None:
    """Its tables."""
    await Queries(AsyncpgDriver(await asyncpg.connect(url))).install()


async def enqueue(url: str, count: int) -> None:
    """One by one."""
    async with asyncpg.create_pool(url, min_size=CALLERS, max_size=CALLERS) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await called(CALLERS, WARM, lambda: queries.enqueue("warm", RAW))
        began = ready()
        await called(CALLERS, count, lambda: queries.enqueue("nothing", RAW))
        told(began, count)


async def batch(url: str, count: int) -> None:
    """In batches."""
    names, payloads, priorities = ["nothing"] * BATCH, [RAW] * BATCH, [0] * BATCH
    async with asyncpg.create_pool(url, min_size=BATCH_CALLERS, max_size=BATCH_CALLERS) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        began = ready()
        await called(BATCH_CALLERS, batches(count), lambda: queries.enqueue(names, payloads, priorities))  # type: ignore[arg-type]
        told(began, batches(count) * BATCH)


async def drain(url: str, _count: int) -> None:
    """Until nothing is left."""
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @pgq.entrypoint("nothing")
    async def nothing(job: Job) -> None:
        Done.count()

    began = ready()
    await pgq.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
    told(Done.began or began, Done.jobs)


ROLES = {"setup": setup, "enqueue": enqueue, "batch": batch, "drain": drain}

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ROLES[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
