"""The database's clock, read over connections that are quick, slow, or paused on the way."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from backends import connect
from backends.postgres import PostgresBackend
from backends.postgres_clock import SET_BACK_MS, SLOW_SECONDS, TRIES, DatabaseClock
from tests.conftest import new_database

NOON = 1_800_000_000_000


class World:
    """A process's own time, in seconds, and a database that is `ahead_ms` of it."""

    def __init__(self) -> None:
        self.seconds, self.ahead_ms = 1_000.0, float(NOON)
        self.clock = DatabaseClock(lambda: self.seconds)

    @property
    def theirs(self) -> int:
        """The time by the database."""
        return int(self.seconds * 1000 + self.ahead_ms)

    def over(self, there: float, back: float) -> Callable[[], Awaitable[float]]:
        """A question that is so many seconds on its way there, and its answer so many on its way back."""

        async def ask() -> float:
            self.seconds += there
            answer = self.seconds * 1000 + self.ahead_ms
            self.seconds += back
            return answer

        return ask


@pytest.fixture
async def world() -> World:
    """One in which the clock was read once, quickly."""
    found = World()
    assert await found.clock.read(found.over(0.001, 0.001))
    return found


async def test_a_reading_that_was_paused_on_its_way_is_not_taken(world: World) -> None:
    for there, back in ((20.0, 0.001), (0.001, 20.0), (0.0, SLOW_SECONDS + 0.01)):
        assert not await world.clock.read(world.over(there, back))
        assert world.clock.now() == world.theirs, "what was known before holds on"
    assert await world.clock.read(world.over(0.001, 0.001))
    assert world.clock.now() == world.theirs


async def test_time_never_steps_back_whatever_is_read(world: World) -> None:
    seen = [world.clock.now()]
    for there, back in ((0.2, 0.0), (0.0, 0.2), (9.0, 0.0), (0.0, 9.0), (0.05, 0.1)):
        await world.clock.read(world.over(there, back))
        seen.append(world.clock.now())
    assert seen == sorted(seen)


async def test_at_the_start_it_is_read_until_it_was_quick() -> None:
    world = World()
    assert [await world.clock.read(world.over(way, 0.0)) for way in (3.0, 0.3, 0.002)] == [False, False, True]
    assert abs(world.clock.now() - world.theirs) <= 1


async def test_where_the_way_is_long_the_quickest_of_eight_is_taken() -> None:
    world = World()
    ways = [2.0, 0.9, 0.3, 0.8, 5.0, 0.7, 0.6, 0.5]
    assert [await world.clock.read(world.over(way, 0.0)) for way in ways] == [False] * (TRIES - 1) + [True]
    assert abs(world.clock.now() - world.theirs) <= 150, "wrong by half of the way at most"


async def test_a_clock_that_was_set_back_is_followed_by_a_quick_reading_alone(world: World) -> None:
    world.ahead_ms -= 2 * SET_BACK_MS
    before = world.clock.now()
    assert not await world.clock.read(world.over(1.0, 0.0))
    assert world.clock.now() >= before
    assert await world.clock.read(world.over(0.001, 0.001))
    assert world.clock.now() == world.theirs < before


@pytest.fixture
async def store(postgres_server: str) -> AsyncIterator[PostgresBackend]:
    """A store whose process has a time that the test moves."""
    backend = await connect(await new_database(postgres_server), connections=2)
    assert isinstance(backend, PostgresBackend)
    yield backend
    await backend.close()


async def test_a_process_that_was_paused_while_it_asked_keeps_its_time(store: PostgresBackend) -> None:
    world = World()
    jumps = iter([0.0, 30.0, 0.0, 0.0])

    def monotonic() -> float:
        world.seconds += next(jumps)
        return world.seconds

    store._time = DatabaseClock(monotonic)
    assert not await store._read_clock()
    assert await store._read_clock()
