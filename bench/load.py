"""The client in Python: one protocol object a connection, prepared bytes out, the least parsing in.

It costs some 15–20 µs of CPU a request, so it carries batches, rounds and single connections; single commands on many
connections are `wrk`'s where it is installed.
"""

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from bench.job import Follow, Job, Outcome, percentile

PATIENCE_SECONDS = 60
BLANK, LENGTH = b"\r\n\r\n", b"content-length: "


class Tally:
    """What the connections of one job share: requests left, answers so far."""

    def __init__(self, job: Job, keep: bool) -> None:
        self.stream: Iterator[bytes] = job.stream()
        self.first, self.keep = Follow(lambda _: None, job.expect, job.then), keep
        self.taken: list[float] = []
        self.bodies: list[bytes] = []
        self.errors, self.said = 0, ""
        self.open, self.ran_out, self.stopped = job.connections, False, False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(self, head: bytes, body: bytes, seconds: float, expect: tuple[bytes, int] | None) -> bool:
        """Count one answer; whether it is right."""
        self.taken.append(seconds)
        if self.keep:
            self.bodies.append(body)
        right = head[9:10] == b"2" and (expect is None or body.count(expect[0]) == expect[1])
        if not right:
            self.fail(head[:15].decode("latin-1") + " " + body[:300].decode("latin-1"))
        return right

    def fail(self, said: str) -> None:
        self.errors += 1
        self.said = self.said or said

    def leave(self) -> None:
        """A connection has nothing more to send."""
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """Sends a request, waits for the whole answer, sends what follows it or the next."""

    def __init__(self, tally: Tally) -> None:
        self.tally, self.buffer, self.sent = tally, b"", 0.0
        self.asked = tally.first
        self.idle = True
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self) -> None:
        """The next request, if there is one and time is not up."""
        request = None if self.tally.stopped else next(self.tally.stream, None)
        if request is None:
            self.tally.ran_out |= not self.tally.stopped
            self.idle = True
            self.tally.leave()
            return
        self.asked = self.tally.first
        self.write(request)

    def write(self, request: bytes) -> None:
        """Send, and note when."""
        self.idle = False
        self.sent = time.perf_counter()
        self.transport.write(request)

    def go_on(self, body: bytes, right: bool) -> None:
        """What follows an answer that was right, if anything does."""
        follow = self.asked.then if right else None
        request = None if follow is None else follow.make(body)
        if follow is None or request is None:
            self.send()
            return
        self.asked = follow
        self.write(request)

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        end = data.find(BLANK)
        if end >= 0:
            at = data.find(LENGTH, 0, end) + len(LENGTH)
            stop = data.find(b"\r", at)
            if len(data) >= end + 4 + int(data[at:stop]):
                self.buffer = b""
                body = data[end + 4 :]
                right = self.tally.answer(data[:end], body, time.perf_counter() - self.sent, self.asked.expect)
                self.go_on(body, right)
                return
        self.buffer = data

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.idle:
            self.tally.fail("the server closed the connection")
            self.tally.leave()


async def drive(job: Job, keep: bool) -> Outcome:
    """Run the job on this loop; requests under way when time is up are waited for (a minute) and counted."""
    tally, loop = Tally(job, keep), asyncio.get_running_loop()
    ports = (job.port, *job.beside)
    made = [
        await loop.create_connection(lambda: Connection(tally), "127.0.0.1", ports[at % len(ports)])
        for at in range(job.connections)
    ]
    began = time.perf_counter()
    timer = loop.call_later(job.seconds, setattr, tally, "stopped", True)
    for _, connection in made:
        connection.send()
    await asyncio.wait_for(tally.done, job.seconds + PATIENCE_SECONDS)
    took = time.perf_counter() - began
    timer.cancel()
    for transport, _ in made:
        transport.close()
    p50, p95, p99 = (percentile(tally.taken, share) * 1000 for share in (0.50, 0.95, 0.99))
    return Outcome(len(tally.taken), took, p50, p99, tally.errors, tally.said, tally.bodies, tally.ran_out, p95)


def run(job: Job, keep: bool = False) -> Outcome:
    """Run the job in this process, the garbage collector put off; `keep` keeps the answers."""
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(drive(job, keep))
    finally:
        gc.enable()
