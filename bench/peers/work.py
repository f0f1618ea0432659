"""What the programs of the peers have in common. Standard library only: they run in an environment of their own.

A program is started as `python -m bench.peers.with_x <role> <url> <count>`, prepares, says `ready`, waits for a line,
does its work, and prints how many jobs it did in how many seconds.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.bodies import INPUT

PAYLOAD: dict[str, Any] = INPUT
CALLERS, BATCH_CALLERS, BATCH = 32, 4, 1_000
WARM = 100


def ready() -> float:
    """Say so, wait to be told to go, and look at the clock."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.perf_counter()


def told(began: float, done: int) -> None:
    """Say what was done."""
    print(json.dumps({"seconds": time.perf_counter() - began, "done": done}), flush=True)


async def called(callers: int, count: int, call: Callable[[], Awaitable[Any]]) -> None:
    """`call` so often, from so many callers, each waiting for its own."""
    left = itertools.repeat(None, count)

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(callers)))


class Done:
    """How many jobs were worked on in this process, and since when."""

    jobs = 0
    began = 0.0

    @classmethod
    def count(cls) -> None:
        """One more; the first one starts the clock, so that a worker's own start does not count against it."""
        cls.began = cls.began or time.perf_counter()
        cls.jobs += 1


def batches(count: int) -> int:
    """How many batches so many jobs are."""
    return -(-count // BATCH)
