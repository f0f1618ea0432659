"""Procrastinate: its psycopg pool, `batch_defer_async`, an asyncio worker that deletes what is done."""

import asyncio
import logging
import sys
from typing import Any

import uvloop
from procrastinate import App, PsycopgConnector

from bench.peers.work import BATCH, BATCH_CALLERS, CALLERS, PAYLOAD, WARM, Done, batches, called, ready, told

CONCURRENCY = 10


def app_for(url: str, connections: int) -> tuple[App, Any]:
    """The app and its one task, which does nothing but be counted."""
    app = App(connector=PsycopgConnector(conninfo=url, min_size=connections, max_size=connections))

    @app.task(queue="bench", name="nothing")
    async def nothing(payload: dict[str, Any]) -> None:
        Done.count()

    return app, nothing


async def setup(url: str, _count: int) -> None:
    """Its tables."""
    app, _ = app_for(url, 2)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def enqueue(url: str, count: int) -> None:
    """One by one."""
    app, nothing = app_for(url, CALLERS)
    async with app.open_async():
        await called(CALLERS, WARM, lambda: nothing.defer_async(payload=PAYLOAD))
        began = ready()
        await called(CALLERS, count, lambda: nothing.defer_async(payload=PAYLOAD))
        told(began, count)


async def batch(url: str, count: int) -> None:
    """In batches."""
    app, nothing = app_for(url, BATCH_CALLERS)
    many = [{"payload": PAYLOAD}] * BATCH
    async with app.open_async():
        began = ready()
        await called(BATCH_CALLERS, batches(count), lambda: nothing.batch_defer_async(*many))
        told(began, batches(count) * BATCH)


async def drain(url: str, _count: int) -> None:
    """Until nothing is left."""
    app, _ = app_for(url, CONCURRENCY + 2)
    async with app.open_async():
        began = ready()
        await app.run_worker_async(
            queues=["bench"],
            concurrency=CONCURRENCY,
            wait=False,
            delete_jobs="successful",
            install_signal_handlers=False,
        )
        told(Done.began or began, Done.jobs)


ROLES = {"setup": setup, "enqueue": enqueue, "batch": batch, "drain": drain}

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ROLES[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
