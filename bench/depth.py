"""What a claim costs as the backlog grows: the same short rounds of claims against stores of different depths, in turn.

Every depth has a store and a server of its own; between rounds the queue gets back what was taken. The depths take
turns, so that a machine that changes its speed changes it for all of them.
"""

import contextlib
import statistics

import msgspec

from bench import bodies, load, machine, stock
from bench.engine import Engine
from bench.job import Job
from bench.server import Running, serving, settle

ROUND = 500
ROUNDS = 40
DEPTHS = (1_000, 100_000)
FULL_DEPTHS = (*DEPTHS, 1_000_000)


class Claimed(msgspec.Struct):
    """Claims at one depth: items a second and CPU µs a claim, over the rounds; `ratio` is to the first depth."""

    engine: str
    depth: int
    rate: float
    ratio: float
    p99: float
    server_us: float
    errors: int


def round_of(running: Running, queue: str, connections: int) -> tuple[float, float, float, int]:
    """One round: rate, p99, server CPU µs a claim, errors; then the queue is as deep as before."""
    before = machine.cpu_seconds(running.pid)
    request = running.target.post(bodies.CLAIM, bodies.claim(queue))
    outcome = load.run(Job(running.port, [request] * ROUND, connections, 60, expect=(b'"epoch":', 1)))
    spent = machine.cpu_seconds(running.pid) - before
    stock.send(
        running.target, [running.target.post("/v1/work-items:batch", [bodies.item(queue)] * ROUND)], (b'{"ok":', ROUND)
    )
    return outcome.rate, outcome.p99, spent * 1e6 / outcome.requests, outcome.errors


def measure(engine: Engine, depths: tuple[int, ...], connections: int) -> list[Claimed]:
    """Every depth, the shallowest first."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(stack.enter_context(engine.store()))) for _ in depths]
        queues = [stock.ready(one.target, depth) for one, depth in zip(servers, depths, strict=True)]
        settle(2.0)
        for running, queue in zip(servers, queues, strict=True):
            round_of(running, queue, connections)
        rounds = [
            [round_of(running, queue, connections) for running, queue in zip(servers, queues, strict=True)]
            for _ in range(ROUNDS)
        ]
    return [
        summary(engine, depth, [turn[0] for turn in rounds], [turn[at] for turn in rounds])
        for at, depth in enumerate(depths)
    ]


def summary(
    engine: Engine,
    depth: int,
    first: list[tuple[float, float, float, int]],
    mine: list[tuple[float, float, float, int]],
) -> Claimed:
    """The rounds of one depth, each beside the first depth's round of the same turn."""
    ratio = statistics.median(one[0] / other[0] for one, other in zip(mine, first, strict=True))
    rate, p99 = (statistics.median(one[at] for one in mine) for at in (0, 1))
    # CPU time is counted in ticks of 10 ms, longer than a fifth of a round: only the mean is worth anything.
    server_us = statistics.fmean(one[2] for one in mine)
    return Claimed(engine.name, depth, rate, ratio, p99, server_us, sum(one[3] for one in mine))
