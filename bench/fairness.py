"""`python -m bench.fairness`: what a tenant with a backlog and a flood costs twenty quiet ones.

Each quiet tenant starts an execution, claims its item and completes it, at a steady rate on a connection of its own;
the time of every request counts. They are measured alone, then while a tenant beside them, which has 100,000 ready
items, keeps 64 connections busy with enqueuing and claiming. The goal: a p99 of at most twice the undisturbed one, and
nobody quiet refused.

The flood needs a client, which takes its part of the machine. So there is a third pass: the same flood sent to a server
of its own with a store of its own. What is slower then is the machine, not the service.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence

import msgspec

from bench import bodies, load, machine, stock
from bench.engine import Engine, opened
from bench.job import Job, Target, percentile
from bench.server import Running, serving, settle
from bench.tenants import tenants

GOAL = 2.0
QUEUE = "backlog"


class Pass(msgspec.Struct):
    """Times of the quiet tenants' requests (seconds), and how many were answered wrongly."""

    taken: list[float]
    errors: int

    def at(self, share: float) -> float:
        """A percentile in milliseconds."""
        return percentile(self.taken, share) * 1000


class Quiet:
    """One quiet tenant on a connection of its own."""

    def __init__(self, target: Target, rate: float) -> None:
        self.target, self.rate = target, rate
        self.found = Pass([], 0)

    async def run(self, until: float) -> None:
        """Start, claim and complete, at the rate, until that time (monotonic)."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        due = time.monotonic() + random.uniform(0, 3 / self.rate)
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.round()
            due = max(due + 3 / self.rate, time.monotonic())
        self.writer.close()

    async def round(self) -> None:
        """One execution from its start to its end."""
        await self.ask("/v1/executions", bodies.start("quiet"))
        claimed = await self.ask("/v1/work-items:claim", bodies.claim("quiet"))
        for lease in msgspec.json.decode(claimed, type=stock.Claims).items:
            await self.ask(f"/v1/work-items/{lease.id}/complete", {"epoch": lease.epoch})

    async def ask(self, path: str, body: object) -> bytes:
        """One request and the time of its answer."""
        began = time.perf_counter()
        self.writer.write(self.target.post(path, body))
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        answer = await self.reader.readexactly(int(length))
        self.found.taken.append(time.perf_counter() - began)
        if head[9:10] != b"2":
            self.found.errors += 1
            return b'{"items":[]}'
        return answer


def quiet(targets: Sequence[Target], seconds: float, rate: float) -> Pass:
    """A pass of all quiet tenants at once."""

    async def all_of_them() -> list[Pass]:
        until = time.monotonic() + seconds
        ones = [Quiet(target, rate) for target in targets]
        await asyncio.gather(*(one.run(until) for one in ones))
        return [one.found for one in ones]

    found = asyncio.run(all_of_them())
    return Pass([taken for one in found for taken in one.taken], sum(one.errors for one in found))


@contextlib.contextmanager
def flood(target: Target, connections: int) -> Iterator[None]:
    """A tenant that asks as fast as it is answered, from a process of its own."""
    requests = [
        target.post("/v1/work-items:claim", bodies.claim(QUEUE)),
        target.post("/v1/work-items", bodies.item(QUEUE)),
    ]
    job = Job(target.port, requests, connections=connections, seconds=3_600, again=True)
    client = multiprocessing.get_context("spawn").Process(target=load.run, args=(job,), daemon=True)
    client.start()
    try:
        settle(2.0)
        yield
    finally:
        client.kill()
        client.join()


class Result(msgspec.Struct):
    """The three passes on an engine."""

    engine: str
    alone: Pass
    beside: Pass
    machine: Pass

    @property
    def ratio(self) -> float:
        """The quiet tenants' p99 beside the flood, of the undisturbed one."""
        return self.beside.at(0.99) / self.alone.at(0.99)

    @property
    def good(self) -> bool:
        """Whether the goal is met."""
        return self.ratio <= GOAL and not self.beside.errors


def measured(engine: Engine, asked: argparse.Namespace) -> Result:
    """Alone, beside the flood, and beside one that is somebody else's."""
    with contextlib.ExitStack() as stack:
        running, elsewhere = (served(engine, stack) for _ in range(2))
        loud, *others = tenants(running, 1 + asked.tenants)
        [foreign] = tenants(elsewhere, 1)
        for target in (loud, foreign):
            stock.ready(target, asked.items, QUEUE)
        quiet(others, 2.0, asked.rate)
        settle(2.0)
        alone = quiet(others, asked.seconds, asked.rate)
        with flood(loud, asked.connections):
            beside = quiet(others, asked.seconds, asked.rate)
        with flood(foreign, asked.connections):
            return Result(engine.name, alone, beside, quiet(others, asked.seconds, asked.rate))


def served(engine: Engine, stack: contextlib.ExitStack) -> Running:
    """A server on a store of its own."""
    return stack.enter_context(serving(stack.enter_context(engine.store())))


def line(one: Result) -> str:
    """A result as a line of the table."""
    passes = (one.alone, one.beside, one.machine)
    times = " | ".join(f"{each.at(share):.2f}" for each in passes for share in (0.5, 0.99))
    verdict = "met" if one.good else "missed"
    return f"| {one.engine} | {len(one.alone.taken):,} | {times} | {one.ratio:.2f} | {one.beside.errors} | {verdict} |"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench.fairness", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a pass")
    parser.add_argument("--tenants", type=int, default=20, help="quiet ones")
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second of each quiet tenant")
    parser.add_argument("--items", type=int, default=100_000, help="ready items of the other one")
    parser.add_argument("--connections", type=int, default=64, help="of the other one")
    return parser.parse_args()


def main() -> int:
    """Measure, print a line for each engine, and say by the exit status whether the goal is met."""
    asked, good = options(), True
    print(", ".join(f"{name}: {value}" for name, value in machine.description().items()))
    print(f"{asked.tenants} quiet tenants, {asked.rate:g} requests/s each, beside {asked.items:,} ready items")
    print(f"goal: beside p99 at most {GOAL:g} × alone p99, nobody quiet refused\n")
    print("| Engine | Requests | Alone p50 ms | p99 | Beside p50 | p99 | Machine p50 | p99 | Ratio | Errors | Goal |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|", flush=True)
    for name in ("sqlite", "postgres") if asked.engine == "both" else (asked.engine,):
        with opened(name) as engine:
            one = measured(engine, asked)
        print(line(one), flush=True)
        good &= one.good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
