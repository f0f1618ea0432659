"""How soon a parked claim is answered: from the moment an enqueue is sent to the moment the claim's answer is there."""

import asyncio
import time

import msgspec
import uvloop

from bench import bodies, stock
from bench.engine import Engine
from bench.job import Target, percentile
from bench.server import serving

TIMES = 300
PARKED_SECONDS = 0.01
WAIT_MS = 20_000


class Wake(msgspec.Struct):
    """Milliseconds from enqueue to claim, and how many claims came back empty or refused."""

    engine: str
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


async def turns(target: Target, queue: str, times: int) -> tuple[list[float], int]:
    """Park, enqueue, note the time; again."""
    lines = [Line(*await asyncio.open_connection("127.0.0.1", target.port)) for _ in range(2)]
    waiting = target.post(bodies.CLAIM, bodies.claim(queue, wait_ms=WAIT_MS))
    enqueue = target.post(bodies.ITEMS, bodies.item(queue))
    taken, errors = [], 0
    for _ in range(times):
        parked = asyncio.create_task(lines[0].post(waiting))
        await asyncio.sleep(PARKED_SECONDS)  # until the claim has looked, found nothing and parked
        errors += parked.done()
        sent = time.perf_counter()
        await lines[1].post(enqueue)
        body, at = await parked
        taken.append((at - sent) * 1000)
        errors += body.count(b'"epoch":') != 1
    for line in lines:
        line.writer.close()
    return taken, errors


def measure(engine: Engine, times: int = TIMES) -> Wake:
    """On a store of its own."""
    with engine.store() as url, serving(url) as running, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        taken, errors = runner.run(turns(running.target, stock.fresh_queue(), times + 20))
    return Wake(engine.name, percentile(taken[20:], 0.5), percentile(taken[20:], 0.99), errors)
