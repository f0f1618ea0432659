"""A server is killed in the middle of the retention sweep, again and again: no execution is left by halves."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from backends.erasure import of_executions
from backends.sqlite_file import open_to_read
from service.kernel.tallies import tallies_of
from service.retention.sweeps import DAY_MS
from tests.conftest import Api, serving
from tests.races.server import Server, prepared
from tests.tenants.test_behaviour import at_large
from tests.tenants.test_killed import owned

RUNS, EVENTS, OPEN = 500, 60, 20
TENANT = "aged"


async def furnished(url: str) -> None:
    """Executions that ended days ago, with rows in several tables, and some that go on."""
    async with serving(url) as service:
        service.clock.now -= 3 * DAY_MS
        api = await owned(service, TENANT)
        for first in range(0, RUNS, 100):
            await asyncio.gather(*(ended(api, first + n) for n in range(100)))
        for n in range(OPEN):
            await api.start(execution_id=f"open-{n}", labels={"l": "1"})


async def ended(api: Api, n: int) -> None:
    """An execution with a log, a label, a state and a work item, over."""
    path = f"/v1/executions/run-{n}"
    await api.start(execution_id=f"run-{n}", labels={"l": "1"}, state={"s": n}, start={"queue": "q"})
    await api.ok("POST", f"{path}/events", json={"events": [{"kind": "x"}] * EVENTS})
    await api.ok("POST", f"{path}/status", json={"status": "completed"})


async def rows(api: Api) -> dict[str, Counter[str]]:
    """How many rows each execution has, table by table, as the store itself says."""
    found = dict[str, Counter[str]]()
    for table, column in of_executions().items():
        asked = f"SELECT {column}, count(*) FROM {table} WHERE tenant_id = '{TENANT}' GROUP BY {column}"
        for run, count in await query(api, asked):
            if run is not None:
                found.setdefault(str(run), Counter())[table] = count
    return found


async def query(api: Api, text: str) -> list[Any]:
    """What a statement finds, whoever is fenced from it."""
    backend: Any = api.service.services.backend
    if backend.name == "sqlite":
        return list(backend._db.execute(text).fetchall())
    async with at_large(api.service) as db:
        return list(await db.fetch(text))


async def whole(url: str, before: dict[str, Counter[str]]) -> int:
    """Hold the store to it: an execution is there with every row that it had, or without one; how many are there."""
    async with serving(url) as service:
        api = Api(service, TENANT, "")
        left = await rows(api)
        assert [run for run in left if left[run] != before[run]] == []
        assert {f"open-{n}" for n in range(OPEN)} <= left.keys()
        told = await service.services.backend.read(lambda tx: tallies_of(tx, TENANT, "main"), tenants=[TENANT])
        assert (told["completed"], told["running"]) == (len(left) - OPEN, OPEN)
        return len(left) - OPEN


class Watch:
    """A connection that looks on while a server sweeps."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._db: Any = None

    async def ended(self) -> int:
        """How many executions that have ended are left."""
        asked = f"SELECT count(*) FROM executions WHERE tenant_id = '{TENANT}' AND status = 'completed'"
        if self._url.startswith("sqlite"):
            self._db = self._db or open_to_read(Path(self._url.removeprefix("sqlite:///")))
            return int(self._db.execute(asked).fetchone()[0])
        self._db = self._db or await asyncpg.connect(self._url)
        return int(await self._db.fetchval(asked))

    async def until(self, fewer: int) -> None:
        """Back when there are no more than so many left."""
        async with asyncio.timeout(60):
            while await self.ended() > fewer:
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        if isinstance(self._db, apsw.Connection):
            self._db.close()
        elif self._db is not None:
            await self._db.close()


async def killed_at(server: Server, watch: Watch, fewer: int) -> None:
    """Start the server, which sweeps at once, and kill it when so many are left, whatever it is about to do next."""
    starting = asyncio.create_task(server.start())
    try:
        await watch.until(fewer)
    finally:
        await server.kill()
        await asyncio.gather(starting, return_exceptions=True)  # it need not have come as far as to be ready


async def through_kills(url: str, log: Path, kills: int, seed: int) -> None:
    """So many kills, the store held to it after each; then a server that is left alone comes to the end."""
    await prepared(url)
    await furnished(url)
    async with serving(url) as service:
        before = await rows(Api(service, TENANT, ""))
    assert len(before) == RUNS + OPEN
    server, chance = Server(url, log, sweep=True, sweep_interval_ms=10, execution_days=1), random.Random(seed)
    left = [RUNS]
    for _ in range(kills):
        watch = Watch(url)
        try:
            await killed_at(server, watch, max(0, left[-1] - chance.randrange(1, 40)))
        finally:
            await watch.close()
        left.append(await whole(url, before))
    assert left == sorted(left, reverse=True)
    assert any(0 < some < RUNS for some in left), f"no kill struck in the middle: {left}"
    watch = Watch(url)
    try:
        await killed_at(server, watch, 0)
    finally:
        await watch.close()
    assert await whole(url, before) == 0


async def test_kills_in_the_middle_of_the_sweep_leave_no_execution_by_halves(fresh_url: str, tmp_path: Path) -> None:
    await through_kills(fresh_url, tmp_path / "server.log", 5, 1)


@pytest.mark.slow
async def test_many_kills_in_the_middle_of_the_sweep_leave_no_execution_by_halves(
    fresh_url: str, tmp_path: Path
) -> None:
    for seed in range(10):
        await through_kills(fresh_url, tmp_path / "server.log", 10, seed)
