"""Run a world for so many steps; a failure names its seed and step, and is the same each time."""

import contextlib
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

from service.kernel import ids, lease, run, sweeps, view
from tests.simulator.world import World

DEEP_EVERY = 5_000
ENGINE_EVERY = 250


class Failed(AssertionError):
    """A world broke a promise: at this step of this seed."""

    def __init__(self, seed: int, step: int, cause: BaseException, engine: bool = False) -> None:
        self.seed, self.step, self.cause = seed, step, cause
        super().__init__(
            f"seed {seed}, step {step}: {type(cause).__name__}: {cause}\n"
            f"again, with a trace: python -m tests.simulator --seed {seed} --steps {step}{' --engine' * engine}"
        )


class Log:
    """Where the service writes its log in a world: what it did not expect is a failure."""

    def __init__(self, world: World) -> None:
        self._world = world

    def info(self, event: str, **facts: Any) -> None:
        """Who sweeps: anybody may."""
        self._world.counts[event] += 1

    def warning(self, event: str, **facts: Any) -> None:
        """The store was away, or a race was lost each time: expected in a world where things go wrong."""
        self._world.counts[event] += 1

    def exception(self, event: str, **facts: Any) -> None:
        """A fault of the service itself."""
        self._world.unexpected.append(f"the service failed: {event} {facts}: {sys.exc_info()[1]!r}")


@contextlib.contextmanager
def by_chance_alone(seed: int, world: World) -> Iterator[None]:
    """Ids, jitter, the log of the service, and how long it took to decide, come from the seed and go to the world."""
    chance, slow, log = random.Random(seed), random.Random(seed + 1), Log(world)
    put = [(view, "random", chance), (ids, "generator", chance), (run, "log", log), (sweeps, "log", log),
           (lease, "log", log), (run, "perf_counter", lambda: slow.random() * run.LONG * 1.5),
           (ids.Last, "now", 0), (ids.Last, "count", 0)]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for owner, name, value in put:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def simulate(
    seed: int,
    steps: int,
    *,
    shape: Mapping[str, Any] | None = None,
    prepare: Callable[[World], None] | None = None,
    trace: deque[str] | None = None,
) -> World:
    """A world that lived for `steps` and came to rest; raises `Failed`. `shape` says what is not to be drawn by chance,
    `prepare` may change the world before it begins."""
    world = World(seed, shape or {})
    if prepare is not None:
        prepare(world)
    if trace is not None:
        world.say = world.database.say = lambda said: trace.append(f"{world.steps:>7} {said}")
    with by_chance_alone(seed, world):
        try:
            for step in range(1, steps + 1):
                world.step()
                if step % DEEP_EVERY == 0:
                    world.ledger.deep()
                elif world.shape.engine and step % ENGINE_EVERY == 0:
                    world.ledger.engine()
            world.calm_down()
        except Exception as error:
            raise Failed(seed, world.steps, error, world.shape.engine) from error
    return world


def many(first: int, steps: int, worlds: int, **shape: Any) -> dict[str, Any]:
    """So many worlds of `steps` each, from one seed on: what happened in them, and how fast."""
    counts: Counter[str] = Counter()
    began, worked = time.perf_counter(), time.process_time()
    for seed in range(first, first + worlds):
        world = simulate(seed, steps, shape=shape)
        counts.update(world.counts)
        counts.update(world.occurrences.counts)
        counts["steps"] += world.steps
        counts["commits"] += world.database.commits
        counts["undone"] += world.database.undone
        counts["deadlocks"] += world.database.deadlocks
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    return dict(counts) | {"seconds": seconds, "cpu_seconds": cpu, "steps_per_cpu_second": int(counts["steps"] / cpu)}
