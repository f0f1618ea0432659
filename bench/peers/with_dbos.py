"""DBOS: threads as its guide has it, enqueuing many in one transaction, a queue polled as often as it may be."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from bench.peers.work import BATCH, BATCH_CALLERS, CALLERS, PAYLOAD, WARM, Done, batches, ready, told

LOCK = threading.Lock()
QUEUE, POLL_SECONDS, AT_ONCE = "bench", 0.05, 200
LEFT = """SELECT count(*) FROM dbos.workflow_status
           WHERE queue_name = :queue AND status IN ('ENQUEUED', 'PENDING')"""
SPAN = "SELECT max(updated_at) - min(started_at_epoch_ms) FROM dbos.workflow_status WHERE queue_name = :queue"
OPTIONS: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": "nothing"}


@DBOS.step()
def step(payload: dict[str, Any]) -> str:
    """The one step."""
    return "done"


@DBOS.workflow(name="one_step")
def one_step(payload: dict[str, Any]) -> str:
    """A workflow of one step."""
    return step(payload)


@DBOS.workflow(name="nothing")
def nothing(payload: dict[str, Any]) -> None:
    """A job that does nothing but be counted."""
    with LOCK:
        Done.count()


@contextlib.contextmanager
def launched(url: str, listens: bool) -> Iterator[None]:
    """DBOS running in this process; unless it listens, it leaves the queue to others."""
    config: DBOSConfig = {
        "name": "bench", "system_database_url": url, "sys_db_pool_size": CALLERS, "log_level": "CRITICAL",
        "application_version": "bench", "executor_id": str(os.getpid()),
    }  # fmt: skip
    DBOS(config=config)
    DBOS.listen_queues([QUEUE] if listens else [])
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=AT_ONCE, polling_interval_sec=POLL_SECONDS)
    try:
        yield
    finally:
        DBOS.destroy()


def setup(url: str, _count: int) -> None:
    """Its tables and its queue."""
    with launched(url, False):
        pass


def each(count: int, call: Callable[[], Any], callers: int) -> None:
    """`call` so often, from so many threads."""
    with ThreadPoolExecutor(callers) as pool:
        for _ in pool.map(lambda _: call(), range(count)):
            pass


def enqueue(url: str, count: int) -> None:
    """One by one."""
    with launched(url, False):
        each(WARM, lambda: DBOS.start_workflow(nothing, PAYLOAD).get_result(), CALLERS)
        began = ready()
        each(count, lambda: DBOS.enqueue_workflow(QUEUE, nothing, PAYLOAD), CALLERS)
        told(began, count)


def batch(url: str, count: int) -> None:
    """In batches: a transaction of ours around many."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), pool_size=BATCH_CALLERS)
    client = DBOSClient(system_database_url=url)

    def many() -> None:
        with engine.begin() as connection:
            for _ in range(BATCH):
                client.enqueue_in_transaction(connection, OPTIONS, PAYLOAD)

    began = ready()
    each(batches(count), many, BATCH_CALLERS)
    told(began, batches(count) * BATCH)
    client.destroy()


def drain(url: str, _count: int) -> None:
    """Until all have succeeded; the clock starts with the first that is taken, as the database has it."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    ready()
    with launched(url, True), engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        while connection.execute(sa.text(LEFT), {"queue": QUEUE}).scalar_one():
            time.sleep(0.1)
        seconds = float(connection.execute(sa.text(SPAN), {"queue": QUEUE}).scalar_one()) / 1000
        told(time.perf_counter() - seconds, Done.jobs)


def workflow(url: str, count: int) -> None:
    """Start a workflow of one step and wait for its result."""
    with launched(url, False):
        each(WARM, lambda: DBOS.start_workflow(one_step, PAYLOAD).get_result(), CALLERS)
        began = ready()
        each(count, lambda: DBOS.start_workflow(one_step, PAYLOAD).get_result(), CALLERS)
        told(began, count)


ROLES = {"setup": setup, "enqueue": enqueue, "batch": batch, "drain": drain, "workflow": workflow}

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    ROLES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
