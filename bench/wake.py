"""How soon a parked claim is answered: from the moment an enqueue is sent to the moment the claim's answer is there.

With one claim parked, and with five hundred on the same queue, of which each enqueue must wake one.
"""

import asyncio
import time

import msgspec
import uvloop

from bench import bodies, stock
from bench.engine import Engine
from bench.job import Target, percentile
from bench.server import serving

TIMES, WARM = 300, 20
PARKED = (1, 500)
PARKED_SECONDS = 0.01
WAIT_MS = 60_000
P50, P99 = 1.5, 5.0
"""The goal, in milliseconds."""


class Wake(msgspec.Struct):
    """Milliseconds from enqueue to claim with so many claims parked, and how many came back empty or refused."""

    engine: str
    parked: int
    p50: float
    p99: float
    errors: int


class Line:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def post(self, request: bytes) -> tuple[bytes, float]:
        """The answer's body, and when it was there; the status is the body's to tell."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        body = await self.reader.readexactly(length)
        return body, time.perf_counter()


async def opened(port: int) -> Line:
    """A connection to the server."""
    return Line(*await asyncio.open_connection("127.0.0.1", port))


async def turns(target: Target, queue: str, parked: int, times: int) -> tuple[list[float], int]:
    """Enqueue, note when a parked claim has its answer, park it again; over and over."""
    lines, enqueuer = [await opened(target.port) for _ in range(parked)], await opened(target.port)
    waiting = target.post(bodies.CLAIM, bodies.claim(queue, wait_ms=WAIT_MS))
    enqueue = target.post(bodies.ITEMS, bodies.item(queue))
    answers: asyncio.Queue[tuple[bytes, float]] = asyncio.Queue()

    async def park(line: Line) -> None:
        while True:
            answers.put_nowait(await line.post(waiting))

    tasks = [asyncio.create_task(park(line)) for line in lines]
    await asyncio.sleep(PARKED_SECONDS * (1 + parked / 10))  # all claims have looked, found nothing and parked
    taken, errors = [], 0
    for _ in range(times):
        await asyncio.sleep(PARKED_SECONDS)  # and so has the one that was answered last
        errors += not answers.empty()
        sent = time.perf_counter()
        await enqueuer.post(enqueue)
        body, at = await asyncio.wait_for(answers.get(), WAIT_MS / 1000)
        taken.append((at - sent) * 1000)
        errors += body.count(b'"epoch":') != 1
    for task in tasks:
        task.cancel()
    for line in (*lines, enqueuer):
        line.writer.close()
    return taken, errors


def measure(engine: Engine, times: int = TIMES) -> list[Wake]:
    """Each number of claims on a store of its own."""
    found = []
    for parked in PARKED:
        with engine.store() as url, serving(url) as run, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            taken, errors = runner.run(turns(run.target, stock.fresh_queue(), parked, times + WARM))
        found.append(Wake(engine.name, parked, percentile(taken[WARM:], 0.5), percentile(taken[WARM:], 0.99), errors))
    return found
