"""Sweeps: each when it is due, one process at a time, none held up by another that fails."""

import asyncio
import itertools
from typing import Any

import pytest
from structlog.testing import capture_logs

from backends.errors import Unavailable
from service.errors import StateError
from service.kernel.lease import LEASE_MS
from service.kernel.sweeps import Sweep, Sweeper
from tests.conftest import Api, Clock, Service
from tests.work.steps import enqueue, shown


class Counting:
    """A sweep that counts its rounds and may fail."""

    def __init__(self, name: str = "counting", every_ms: int = 0, error: Exception | None = None) -> None:
        self.rounds, self.error = 0, error
        self.sweep = Sweep(name, every_ms, self.run)

    async def run(self, _services: Any) -> None:
        self.rounds += 1
        if self.error is not None:
            raise self.error


def sweeper(service: Service, *counting: Counting) -> Sweeper:
    """A sweeper as a process of its own would have it."""
    return Sweeper(service.services.backend, service.services, [one.sweep for one in counting], 10)


async def over(clock: Clock) -> None:
    """Let the lease of an earlier test's sweeper run out."""
    clock.advance(LEASE_MS)


async def test_a_sweep_runs_when_it_is_due_and_not_before(service: Service, clock: Clock) -> None:
    await over(clock)
    always, seldom = Counting("always"), Counting("seldom", 1_000)
    mine = sweeper(service, always, seldom)
    for _ in range(3):
        await mine.round()
    assert (always.rounds, seldom.rounds) == (3, 1)
    clock.advance(999)
    await mine.round()
    assert seldom.rounds == 1
    clock.advance(1)
    await mine.round()
    assert seldom.rounds == 2


async def test_a_sweep_that_fails_does_not_hold_up_the_others(service: Service, clock: Clock) -> None:
    await over(clock)
    errors = [Unavailable("away"), StateError("server/busy", "Later."), ValueError("a fault")]
    failing = [Counting(f"failing{at}", 0, error) for at, error in enumerate(errors)]
    last = Counting("last")
    mine = sweeper(service, *failing, last)
    await mine.round()
    await mine.round()
    assert [one.rounds for one in (*failing, last)] == [2, 2, 2, 2]


async def test_a_sweep_with_more_to_do_takes_turns_with_the_others(service: Service, clock: Clock) -> None:
    await over(clock)
    order: list[str] = []

    def pages(name: str, count: int, every_ms: int = 0) -> Sweep:
        left = iter(range(count, 0, -1))

        async def run(_services: Any) -> bool:
            order.append(name)
            return next(left, 0) > 0

        return Sweep(name, every_ms, run)

    sweeps = [pages("long", 3), pages("short", 0), pages("seldom", 1, 60_000)]
    mine = Sweeper(service.services.backend, service.services, sweeps, 10)
    assert [await mine.round() for _ in range(4)] == [True, True, True, False]
    assert order == ["long", "short", "seldom", "long", "short", "seldom", "long", "short", "long", "short"]


async def test_of_two_processes_one_sweeps_until_it_dies(service: Service, clock: Clock) -> None:
    """On SQLite there is no second process: the lock file sees to it."""
    await over(clock)
    one, two = Counting(), Counting()
    first, second = sweeper(service, one), sweeper(service, two)
    for _ in range(5):
        await first.round()
        await second.round()
        clock.advance(LEASE_MS // 2)
    alone = service.services.backend.name == "postgres"
    assert (one.rounds, two.rounds) == (5, 0 if alone else 5)
    clock.advance(LEASE_MS)
    await second.round()
    await first.round()
    assert (one.rounds, two.rounds) == ((5, 1) if alone else (6, 6))


async def test_processes_that_begin_at_once_agree_on_one(service: Service, clock: Clock) -> None:
    await over(clock)
    counting = [Counting() for _ in range(4)]
    await asyncio.gather(*(sweeper(service, one).round() for one in counting))
    assert sum(one.rounds for one in counting) == (1 if service.services.backend.name == "postgres" else 4)


async def test_a_sweeper_in_the_background_sweeps_and_stops(service: Service, clock: Clock) -> None:
    await over(clock)
    done = asyncio.Event()

    async def run(_services: Any) -> None:
        done.set()

    mine = Sweeper(service.services.backend, service.services, [Sweep("once", 0, run)], 10)
    mine.start()
    async with asyncio.timeout(10):
        await done.wait()
    await mine.close()
    await mine.close()


async def test_the_sweeps_of_the_service_do_all_that_time_does(service: Service, api: Api, clock: Clock) -> None:
    """One round with every capability's sweeps: a lease is taken back, a delayed item becomes due."""
    from service import capabilities

    await over(clock)
    lapsed = await enqueue(api, "a", retry={"backoff": "fixed", "initial_delay_ms": 0})
    await api.claim("a", lease_ms=1_000)
    later = await enqueue(api, "b", delay_ms=1_000)
    clock.advance(1_000)
    sweeps = list(capabilities.parts("sweeps", "SWEEPS"))
    assert len({sweep.name for sweep in sweeps}) == len(sweeps)
    await Sweeper(service.services.backend, service.services, sweeps, 10).round()
    assert (await shown(api, lapsed))["lease"] is None
    ready = (await api.ok("GET", "/v1/queues"))["items"]
    assert [(queue["ready"], queue["delayed"]) for queue in ready] == [(1, 0), (1, 0)]
    assert (await shown(api, later))["status"] == "ready"


async def test_a_store_that_is_away_is_told_of_once_and_so_is_that_it_is_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, tries, back = sweeper(service), itertools.count(), asyncio.Event()

    async def keep() -> None:
        if next(tries) < 3:
            raise Unavailable("away")
        back.set()

    monkeypatch.setattr(mine.lease, "keep", keep)
    monkeypatch.setattr(mine, "_look_seconds", 0.001)
    with capture_logs() as lines:
        mine.start()
        await back.wait()
        await mine.close()
    told = [line["event"] for line in lines if "lease of the sweeps" in line["event"]]
    assert [event.partition("sweeps ")[2] for event in told] == [
        "cannot be asked for; it is tried on",
        "can be asked for again",
    ]


async def test_a_sweep_that_is_put_off_is_told_of_once_and_so_is_that_it_goes_on(
    service: Service, clock: Clock
) -> None:
    await over(clock)
    often = Counting()
    mine = sweeper(service, often)
    with capture_logs() as lines:
        for error in (Unavailable("away"), Unavailable("away"), None, None, StateError("server/busy", "busy"), None):
            often.error = error
            clock.advance(1)
            await mine.round()
    assert often.rounds == 6
    told = [(line["event"], line["sweep"]) for line in lines if "sweep" in line]
    assert told == [("a sweep was put off", "counting"), ("a sweep goes on", "counting")] * 2
