"""Wake-ups: after the commit, never before, each one counted; between processes on Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from backends import connect
from backends.protocol import StateBackend, Tx
from tests.conformance.jobs import exists, job
from tests.conftest import new_database

PATIENCE = 20.0


async def eventually(true: Callable[[], bool]) -> None:
    """Wait, within bounds, until something that another process does has happened."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


async def wake(store: StateBackend, *channels: str) -> None:
    """Commit a transaction that wakes channels and does nothing else."""

    async def work(tx: Tx) -> None:
        await tx.one("ping")
        for channel in channels:
            tx.wake(channel)

    await store.write(work)


async def test_a_wake_up_comes_once_with_its_count(store: StateBackend, tenant: str) -> None:
    heard: list[tuple[str, int]] = []
    store.subscribe(lambda channel, count: heard.append((channel, count)))
    await wake(store, f"work/{tenant}/a", f"work/{tenant}/b", f"work/{tenant}/a")
    ours = sorted(one for one in heard if tenant in one[0])
    assert ours == [(f"work/{tenant}/a", 2), (f"work/{tenant}/b", 1)]


async def test_a_wake_up_comes_after_the_commit(store: StateBackend, tenant: str) -> None:
    seen: list[asyncio.Task[bool]] = []

    def heard(channel: str, _count: int) -> None:
        if tenant in channel:
            seen.append(asyncio.ensure_future(exists(store, tenant, "a")))

    async def work(tx: Tx) -> None:
        tx.wake(f"work/{tenant}/q")
        await tx.many("insert_jobs", [job(tenant, "a")])
        assert not seen

    store.subscribe(heard)
    await store.write(work)
    assert [await one for one in seen] == [True]


class Two:
    """Two stores over one Postgres database, as two processes have them; `heard` is what the second hears."""

    def __init__(self, url: str, first: StateBackend, second: StateBackend) -> None:
        self.url, self.first, self.second = url, first, second
        self.heard: list[tuple[str, int]] = []
        first.subscribe(lambda channel, count: None)
        second.subscribe(lambda channel, count: self.heard.append((channel, count)))

    def known(self, topic: str) -> bool:
        """Whether the first store knows that the second waits for `topic`."""
        peers = self.first._listener._peers  # type: ignore[attr-defined]
        return any(topic in topics for _, topics in peers.values())

    async def kill_listeners(self) -> int:
        """End every connection that listens; how many there were."""
        db = await asyncpg.connect(self.url)
        try:
            rows = await db.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name <> 'holdfast' AND pid <> pg_backend_pid()"
            )
        finally:
            await db.close()
        return len(rows)


@pytest.fixture
async def two(postgres_server: str) -> AsyncIterator[Two]:
    """Two stores that talk to each other."""
    url = await new_database(postgres_server)
    first, second = await connect(url, connections=3), await connect(url, connections=3)
    try:
        await first.migrate()
        yield Two(url, first, second)
    finally:
        await first.close()
        await second.close()


async def test_another_process_hears_what_it_waits_for_with_the_count(two: Two) -> None:
    two.second.want(frozenset({"work/acme"}))
    await eventually(lambda: two.known("work/acme"))
    await wake(two.first, "work/other/q", "work/acme/q", "work/acme/q", "tail/acme/e1")
    await wake(two.first, "work/acme/last")
    await eventually(lambda: ("work/acme/last", 1) in two.heard)
    assert [one for one in two.heard if one[0] != "*"] == [("work/acme/q", 2), ("work/acme/last", 1)]


async def test_a_call_to_everybody_reaches_another_process(two: Two) -> None:
    two.second.want(frozenset({"work/acme"}))
    await eventually(lambda: two.known("work/acme"))
    before = two.heard.count(("*", 1))
    await wake(two.first, "*")
    await wake(two.first, "work/acme/last")
    await eventually(lambda: ("work/acme/last", 1) in two.heard)
    assert two.heard.count(("*", 1)) == before + 1


async def test_what_no_longer_is_waited_for_is_not_told(two: Two) -> None:
    two.second.want(frozenset({"work/acme"}))
    await eventually(lambda: two.known("work/acme"))
    two.second.want(frozenset({"work/other"}))
    await eventually(lambda: two.known("work/other"))
    await wake(two.first, "work/acme/q")
    await wake(two.first, "work/other/q")
    await eventually(lambda: ("work/other/q", 1) in two.heard)
    assert ("work/acme/q", 1) not in two.heard


async def test_a_listener_whose_connection_was_killed_comes_back_and_makes_everybody_look(two: Two) -> None:
    two.second.want(frozenset({"work/acme"}))
    await eventually(lambda: two.known("work/acme"))
    two.heard.clear()
    assert await two.kill_listeners() == 2
    await eventually(lambda: ("*", 1) in two.heard)
    two.first._listener._peers.clear()  # type: ignore[attr-defined]
    await eventually(lambda: two.known("work/acme"))
    await wake(two.first, "work/acme/again")
    await eventually(lambda: ("work/acme/again", 1) in two.heard)


async def test_a_process_that_closes_tells_what_its_last_commit_woke_and_ends(two: Two) -> None:
    """The wake-up and the end come at the same moment, as when a holder lets go of something and stops."""
    two.second.want(frozenset({"work/acme"}))
    await eventually(lambda: two.known("work/acme"))
    async with asyncio.timeout(PATIENCE):
        await wake(two.first, "work/acme/last")
        await two.first.close()
    await eventually(lambda: ("work/acme/last", 1) in two.heard)
