"""The lease of the sweeps: one holder, an epoch for each, and nothing that yesterday's could do to today's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backends.errors import Unavailable
from service.kernel import wake
from service.kernel.lease import CHANNEL, LEASE_MS, Lease, read
from service.kernel.sweeps import Sweep, Sweeper
from service.kernel.wake import topic_of
from tests.conftest import Service, new_store, serving


@pytest.fixture
async def shared(postgres_server: str) -> AsyncIterator[Service]:
    """A service on a Postgres of its own, where several processes may want to sweep."""
    async with serving(await new_store(postgres_server)) as service:
        yield service


def lease(service: Service, name: str) -> Lease:
    """The hand of another process on the lease."""
    return Lease(service.services.backend, holder=name)


async def row(service: Service) -> tuple[str, int]:
    """Whose the lease is in the database, and under which epoch."""
    found = await read(service.services.backend)
    assert found is not None
    return found.holder, found.epoch


async def test_of_those_who_ask_at_once_one_gets_it(shared: Service) -> None:
    hands = [lease(shared, f"p{n}") for n in range(8)]
    assert sum(await asyncio.gather(*(hand.keep() for hand in hands))) == 1
    [held] = [hand for hand in hands if hand.held]
    assert await row(shared) == (held.holder, 1)


async def test_it_goes_on_as_long_as_it_is_renewed_and_a_half_at_most_is_used_up(shared: Service) -> None:
    one, two = lease(shared, "one"), lease(shared, "two")
    for _ in range(10):
        assert await one.keep()
        assert not await two.keep()
        shared.clock.advance(LEASE_MS // 2)
    assert await row(shared) == ("one", 1)


async def test_it_ends_for_its_holder_at_the_moment_at_which_another_may_take_it(shared: Service) -> None:
    one, two = lease(shared, "one"), lease(shared, "two")
    await one.keep()
    shared.clock.advance(LEASE_MS - 1)
    assert one.held and not await two.keep()
    shared.clock.advance(1)
    assert not one.held and await one.holding() is None and await two.keep()
    assert await row(shared) == ("two", 2)


async def test_a_holder_that_was_paused_finds_its_time_over_before_it_asks(shared: Service) -> None:
    """And when nobody came meanwhile it may go on, under the same epoch."""
    one = lease(shared, "one")
    await one.keep()
    shared.clock.advance(10 * LEASE_MS)
    assert not one.held
    assert await one.keep()
    assert await row(shared) == ("one", 1)


async def test_a_holder_of_yesterday_neither_keeps_nor_gives_away_what_is_anothers(shared: Service) -> None:
    one, two = lease(shared, "one"), lease(shared, "two")
    await one.keep()
    shared.clock.advance(LEASE_MS)
    await two.keep()
    await one.release()
    assert await row(shared) == ("two", 2) and two.held
    assert not await one.keep() and not await lease(shared, "three").keep()
    shared.clock.advance(LEASE_MS // 2)
    assert await two.keep()


async def test_a_name_alone_renews_nothing_without_its_epoch(shared: Service) -> None:
    """The holder of the epoch before is refused, also where it has come back since under the same name."""
    one, again = lease(shared, "one"), lease(shared, "one")
    await one.keep()
    assert await again.keep()
    assert await row(shared) == ("one", 2)
    shared.clock.advance(LEASE_MS // 2)
    assert not await one.keep()
    assert await again.keep()


async def test_what_is_let_go_of_is_taken_at_once(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "LOOK_SECONDS", 3_600.0)  # whoever waits for it is woken
    one, two = lease(shared, "one"), lease(shared, "two")
    await one.keep()
    with shared.services.wakes.park(topic_of(CHANNEL), lambda _channel: True) as place:
        await one.release()
        async with asyncio.timeout(10):
            assert await place.rest(3_600)
    assert not one.held and await one.holding() is None
    assert await two.keep()
    assert await row(shared) == ("two", 2)


async def test_whoever_took_it_without_hearing_so_takes_it_again(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the commit was lost: nobody else may, and its holder need not wait."""
    one, two = lease(shared, "one"), lease(shared, "two")
    write = shared.services.backend.write

    async def lost(work: Any, **said: Any) -> Any:
        await write(work, **said)
        raise Unavailable("the connection to Postgres was lost")

    monkeypatch.setattr(shared.services.backend, "write", lost)
    with pytest.raises(Unavailable):
        await one.keep()
    monkeypatch.undo()
    assert not one.held and not await two.keep()
    assert await one.keep()
    assert await row(shared) == ("one", 2)


async def test_whoever_is_stopped_before_it_hears_that_it_took_it_lets_go(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends just as its COMMIT is done: its successor need not wait."""
    one, two = lease(shared, "one"), lease(shared, "two")
    write = shared.services.backend.write

    async def stopped(work: Any, **said: Any) -> Any:
        await write(work, **said)
        raise asyncio.CancelledError

    monkeypatch.setattr(shared.services.backend, "write", stopped)
    with pytest.raises(asyncio.CancelledError):
        await one.keep()
    monkeypatch.undo()
    assert await row(shared) == ("one", 1)
    await one.release()
    assert await two.keep()
    assert await row(shared) == ("two", 2)
    await one.release()
    assert await row(shared) == ("two", 2)


async def test_a_clock_that_is_set_back_leaves_the_lease_with_its_holder(shared: Service) -> None:
    one = lease(shared, "one")
    await one.keep()
    shared.clock.advance(-100 * LEASE_MS)
    assert not one.held
    assert await one.keep()
    shared.clock.advance(LEASE_MS)
    assert not one.held


async def test_a_sweep_of_many_pages_stops_where_another_process_holds_the_lease(shared: Service) -> None:
    """A paused process wakes up between two pages; its successor is at work."""
    services, pages = shared.services, list[str]()
    after: list[Sweep] = []

    async def page(_services: Any) -> bool:
        pages.append("page")
        shared.clock.advance(LEASE_MS)
        await lease(shared, "successor").keep()
        return True

    async def never(_services: Any) -> bool:
        pages.append("never")
        return False

    after.append(Sweep("after", 0, never))
    mine = Sweeper(services.backend, services, [Sweep("long", 0, page), *after], 10)
    assert not await mine.round()
    assert not await mine.round()
    assert pages == ["page"]


async def test_a_sweeper_that_stops_hands_over_to_one_that_waits(shared: Service) -> None:
    """By a word of the database, not by time: the clock of this test stands still."""
    services = shared.services
    began = {name: asyncio.Event() for name in ("first", "second")}

    def sweeper(name: str) -> Sweeper:
        async def run(_services: Any) -> None:
            began[name].set()

        return Sweeper(services.backend, services, [Sweep("one", 0, run)], 10)

    first, second = sweeper("first"), sweeper("second")
    async with asyncio.timeout(20):
        first.start()
        await began["first"].wait()
        second.start()
        assert not began["second"].is_set()
        await first.close()
        await began["second"].wait()
        await second.close()
    assert await second.lease.holding() is None


async def test_on_sqlite_the_only_process_holds_it_without_asking(tmp_path: Any) -> None:
    async with serving(f"sqlite:///{tmp_path / 'holdfast.db'}") as service:
        only = Lease(service.services.backend)
        assert only.held and await only.holding() is None
        assert await only.keep()
        service.clock.advance(100 * LEASE_MS)
        assert only.held
        await only.release()
        holding = await only.holding()
        assert holding is not None and (holding.holder, holding.expires_at) == (only.holder, None)
        assert await read(service.services.backend) is None
