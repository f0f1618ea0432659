"""The process that sweeps is killed while leases run out: they are still taken back, each once.

On Postgres two servers stand beside each other and one of them holds the sweep: the other takes over, with workers at
work. On SQLite the only server is killed, and its next life goes on.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.faults.claimants import LEASE_MS, Claimant, Job, fill, work
from tests.faults.evidence import record
from tests.faults.histories import check, whole
from tests.faults.sites import PATIENCE
from tests.faults.size import size
from tests.races.server import Server, http, new_tenant, prepared

WORKERS, ITEMS, DOOMED_CLAIMS = 8, 300, 4


class Sweepers:
    """The servers of a store; each would sweep, one does."""

    def __init__(self, url: str, folder: Path, count: int) -> None:
        self._url = url
        self.down = [Server(url, folder / f"server{n}.log", sweep=True, sweep_interval_ms=50) for n in range(count)]
        self.up: list[Server] = []
        self._names: dict[str, Server] = {}
        self._dead: set[str] = set()

    async def start(self) -> None:
        """Start a server that is down."""
        await self.down[0].start()
        self.up.append(self.down.pop(0))

    async def kill(self, server: Server) -> None:
        """Kill a server; its next life has another name."""
        await server.kill()
        self.up.remove(server)
        self.down.append(server)
        self._dead |= {name for name, one in self._names.items() if one is server}
        self._names = {name: one for name, one in self._names.items() if one is not server}

    async def holder(self) -> Server:
        """The server that sweeps. The lease has its holder by a name that each process makes for itself: ask while at
        most one that is up has not been asked for yet."""
        if self._url.startswith("sqlite"):
            return self.up[0]
        name = await self._name()
        if name not in self._names:
            [self._names[name]] = [one for one in self.up if one not in self._names.values()]
        return self._names[name]

    async def _name(self) -> str:
        """Who holds the lease, once somebody does who lives."""
        db = await asyncpg.connect(self._url)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    name = await db.fetchval("SELECT holder FROM sweep_leases WHERE name = 'sweeps'")
                    if name is not None and name not in self._dead:
                        return str(name)
                    await asyncio.sleep(0.02)
        finally:
            await db.close()


@contextlib.asynccontextmanager
async def sweepers(url: str, folder: Path) -> AsyncIterator[Sweepers]:
    """Two servers on Postgres, of which the first sweeps; one on SQLite."""
    found = Sweepers(url, folder, 1 if url.startswith("sqlite") else 2)
    try:
        while found.down:
            await found.start()
            await found.holder()
        yield found
    finally:
        for server in found.up:
            await server.kill()


async def finish(door: Server, owner: str, job: Job) -> None:
    """Have a job done through a server, for which every lease must be taken back that was left to lapse."""
    async with http(door.base, owner) as client:
        await work([client], job, WORKERS)
    check(job.history)
    whole(job.ids, job.history)


async def kill_holder(among: Sweepers, admin: str, name: str, chance: random.Random) -> None:
    """Kill the server that sweeps at about the time when many leases run out; another one sweeps, or its next life."""
    victim = await among.holder()
    door = next((one for one in among.up if one is not victim), victim)
    async with http(door.base, admin) as system:
        owner = await new_tenant(system, name)
    async with http(door.base, owner) as client:
        job = Job(await fill(client, ITEMS), rounds=1)
        doomed = Claimant("doomed", client, job)
        for _ in range(DOOMED_CLAIMS):
            await doomed.claim()
    async with asyncio.TaskGroup() as group:
        if door is not victim:
            group.create_task(finish(door, owner, job))
        await asyncio.sleep(chance.uniform(0.8, 1.2) * LEASE_MS / 1000)
        await among.kill(victim)
    if door is victim:
        await among.start()
        await finish(door, owner, job)
    assert await among.holder() is door


async def test_leases_are_taken_back_when_the_server_that_sweeps_is_killed(fresh_url: str, tmp_path: Path) -> None:
    admin = await prepared(fresh_url)
    async with sweepers(fresh_url, tmp_path) as among:
        await kill_holder(among, admin, "acme", random.Random(1))


@pytest.mark.slow
async def test_fifty_sweepers_killed_leave_every_lease_to_the_next(engine: str, fresh_url: str, tmp_path: Path) -> None:
    kills, chance = size("sweeper_kills", 50), random.Random(2)
    admin = await prepared(fresh_url)
    longest = 0.0
    async with sweepers(fresh_url, tmp_path) as among:
        for n in range(kills):
            began = time.monotonic()
            await kill_holder(among, admin, f"acme-{n}", chance)
            longest = max(longest, time.monotonic() - began)
            if among.down:
                await among.start()
    record(
        "kill -9 of the process that sweeps leaves every lease to the next", engine, kills=kills,
        items=kills * ITEMS, doubled=0, left_behind=0, longest_round_seconds=longest,
    )  # fmt: skip
