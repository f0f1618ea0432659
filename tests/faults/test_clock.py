"""Clocks that are wrong or set: on Postgres a server's own decides nothing; on SQLite it is the store's, and may jump
without anything being lost, doubled or locked."""

import ast
import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from service.kernel.sweeps import Sweeper
from service.work.sweeps import SWEEPS
from tests.conftest import Api, Service, new_database, serving
from tests.faults.audit import audit
from tests.faults.evidence import record
from tests.faults.load import loaded
from tests.faults.resting import Restful
from tests.faults.wrong_clock import WrongClock
from tests.races.server import http, new_tenant, prepared, serving_process
from tests.tidy import house

MINUTE = 60_000
OFF = 10 * MINUTE
HALF = OFF // 2
PATIENCE = 60.0
ASKS = {"time.time", "time.time_ns", "time.gmtime", "time.localtime", "time.ctime", "time.strftime", "datetime.now",
        "datetime.utcnow", "datetime.today", "date.today"}  # fmt: skip
MAY_ASK = {"backends.sqlite"}
"""Modules that ask for the time of day, and decide something by it."""


def test_nothing_asks_the_process_for_the_time_but_the_sqlite_store() -> None:
    """A log's time stamps are structlog's; `monotonic` clocks measure how long something takes."""
    asking = {
        module.name
        for module in house.modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).removeprefix("datetime.") in ASKS
    }
    assert asking == MAY_ASK


# ── Postgres ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def changed(url: str, statement: str, *values: Any) -> int:
    """Run a statement behind the service's back; the database's time (milliseconds)."""
    db = await asyncpg.connect(url)
    try:
        await db.execute(statement, *values)
        return int(await db.fetchval("SELECT extract(epoch FROM clock_timestamp()) * 1000"))
    finally:
        await db.close()


async def ok(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """The JSON of a POST that must succeed."""
    answer = await client.post(path, json=body)
    assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text}"
    return answer.json()


async def claim(client: httpx.AsyncClient, queue: str, lease_ms: int, wait_ms: int = 0) -> list[Any]:
    """Claim an item."""
    body = {"worker_id": "w", "queues": [queue], "lease_ms": lease_ms, "wait_ms": wait_ms}
    return list((await ok(client, "/v1/work-items:claim", **body))["items"])


async def holder(client: httpx.AsyncClient, item: str) -> tuple[str, int]:
    """A leased item's status and epoch."""
    shown = (await client.get(f"/v1/work-items/{item}")).json()
    return shown["status"], shown["lease"]["epoch"]


@pytest.mark.parametrize("off", [OFF, -OFF], ids=["ahead", "behind"])
async def test_a_server_whose_clock_is_wrong_leases_sweeps_and_expires_by_the_databases(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    url = await new_database(postgres_server)
    admin = await prepared(url)
    async with serving_process(url, tmp_path / "right.log", sweep=False) as right:
        for name, value in WrongClock(tmp_path / "clock", off).environment.items():
            monkeypatch.setenv(name, value)
        async with serving_process(url, tmp_path / "wrong.log", sweep=True, sweep_interval_ms=50) as wrong:
            async with http(right.base, admin) as client:
                token = await new_tenant(client, "acme")
            async with http(right.base, token) as sound, http(wrong.base, token) as skewed:
                await leases_end_by_the_database(url, sound, skewed)
                await tokens_end_by_the_database(url, sound, wrong.base)


async def leases_end_by_the_database(url: str, sound: httpx.AsyncClient, skewed: httpx.AsyncClient) -> None:
    """Leases that the wrong server gave; the sweep is its own."""
    retry = {"initial_delay_ms": 0, "jitter": False}
    for name in ("kept", "ended"):
        await ok(skewed, "/v1/work-items", queue=name, id=name, retry=retry)
    await ok(skewed, "/v1/work-items", queue="later", id="later", delay_ms=HALF)
    [kept] = await claim(skewed, "kept", HALF)
    [ended] = await claim(sound, "ended", HALF)
    now = await changed(url, "SELECT 1")
    assert abs(kept["expires_at"] - now - HALF) < MINUTE
    assert abs(ended["expires_at"] - now - HALF) < MINUTE
    await changed(url, "UPDATE work_items SET expires_at = $1 WHERE id = 'ended'", now - HALF)
    [again] = await claim(skewed, "ended", HALF, wait_ms=20_000)  # once the wrong server has swept
    assert again["epoch"] == 2
    assert await holder(sound, "kept") == ("leased", 1)
    assert await claim(skewed, "later", HALF) == []
    done = await ok(sound, "/v1/work-items/kept/complete", epoch=1)
    assert done["status"] == "completed"
    late = await skewed.post("/v1/work-items/ended/complete", json={"epoch": 1})
    assert (late.status_code, late.json()["code"]) == (409, "lease/stale")


async def tokens_end_by_the_database(url: str, sound: httpx.AsyncClient, base: str) -> None:
    """Tokens whose end lies between the two clocks, shown to the wrong server."""
    for after, status in ((HALF, 200), (-HALF, 401)):
        minted = await ok(sound, "/v1/tokens", name="short", role="viewer")
        now = await changed(url, "SELECT 1")
        await changed(url, "UPDATE tokens SET expires_at = $1 WHERE id = $2", now + after, minted["token"]["id"])
        async with http(base, minted["secret"]) as client:
            assert (await client.get("/v1/executions")).status_code == status, after


# ── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Service]:
    """A SQLite service of one's own, whose clock may jump."""
    async with serving(f"sqlite:///{tmp_path / 'holdfast.db'}") as service:
        yield service


def sweeper(service: Service) -> Sweeper:
    """The sweeps of work, run when a test says so."""
    return Sweeper(service.services.backend, service.services, SWEEPS, 10)


async def leased(api: Api, lease_ms: int) -> Any:
    """An item, enqueued and claimed."""
    await api.ok("POST", "/v1/work-items", json={"queue": "q", "retry": {"initial_delay_ms": 0, "jitter": False}})
    [item] = await api.claim("q", lease_ms=lease_ms)
    return item


async def test_a_clock_set_forward_ends_leases_early_and_leaves_one_holder(sqlite: Service) -> None:
    api, sweeps = await sqlite.tenant(), sweeper(sqlite)
    item = await leased(api, MINUTE)
    sqlite.clock.advance(OFF)
    await sweeps.round()
    [again] = await api.claim("q")
    assert (again["id"], again["epoch"]) == (item["id"], 2)
    await api.refused("POST", f"/v1/work-items/{item['id']}/complete", "lease/stale", json={"epoch": 1})
    await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json={"epoch": 2})


async def test_a_clock_set_back_ends_leases_late_and_hands_nothing_out_twice(sqlite: Service) -> None:
    api, sweeps = await sqlite.tenant(), sweeper(sqlite)
    await sweeps.round()
    item = await leased(api, MINUTE)
    sqlite.clock.advance(-OFF)
    later = await leased(api, MINUTE)
    assert later["id"] != item["id"]
    sqlite.clock.advance(2 * MINUTE)
    await sweeps.round()
    assert [(again["id"], again["epoch"]) for again in await api.claim("q", max_items=9)] == [(later["id"], 2)]
    await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json={"epoch": 1})


async def test_a_clock_that_jumps_makes_every_id_new_and_keeps_logs_and_feed_in_order(sqlite: Service) -> None:
    api, chance = await sqlite.tenant(), random.Random(1)
    made: list[str] = []
    for _ in range(100):
        sqlite.clock.advance(chance.choice([-OFF, -1, 0, 1, OFF]))
        made.append((await api.start())["execution_id"])
        await api.ok("POST", f"/v1/executions/{made[0]}/events", json={"events": [{"kind": "said", "body": len(made)}]})
    assert len(set(made)) == 100
    log = await api.events(made[0])
    assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
    assert [event["body"] for event in log if event["kind"] == "said"] == list(range(1, 101))
    feed = (await api.ok("GET", "/v1/events?limit=1000"))["items"]
    started = [one["execution_id"] for one in feed if one["event"]["sequence"] == 1]
    assert started == made
    listed, cursor = [], ""
    while cursor is not None:
        page = await api.ok("GET", f"/v1/executions?limit=7{cursor and f'&cursor={cursor}'}")
        listed += [one["execution_id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(listed) == sorted(made)


async def test_a_clock_set_back_brings_no_token_back_and_locks_no_tenant_out(sqlite: Service) -> None:
    api = await sqlite.tenant()
    minted = await api.ok("POST", "/v1/tokens", json={"name": "gone", "role": "owner"})
    gone = sqlite.client(minted["secret"])
    assert (await gone.get("/v1/executions")).status_code == 200
    limits = {"limits": {"requests_per_second": 5}}
    assert (await api.admin.patch(f"/v1/tenants/{api.tenant}", json=limits)).status_code == 200
    await api.ok("DELETE", f"/v1/tokens/{minted['token']['id']}")
    for _ in range(3):
        assert (await gone.get("/v1/executions")).json()["code"] == "auth/revoked"
        assert (await gone.post("/v1/executions", json={"workflow_id": "wf"})).json()["code"] == "auth/revoked"
        await api.start()
        sqlite.clock.advance(-OFF)


# ── both, under load ───────────────────────────────────────────────────────────────────────────────────────────────


async def jumped(url: str, folder: Path, jumps: int, monkeypatch: pytest.MonkeyPatch) -> Restful:
    """A server under load whose clock is set so many times, to anywhere within ten minutes of the right time."""
    chance, ledger, clock = random.Random(5), Restful(), WrongClock(folder / "clock", 0)
    admin = await prepared(url)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    async with serving_process(url, folder / "server.log", sweep=True, sweep_interval_ms=50) as server:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        async with http(server.base, token) as client:
            tasks = loaded(client, ledger, 0)
            try:
                for _ in range(jumps):
                    clock.set(chance.randrange(-OFF, OFF))
                    async with asyncio.timeout(PATIENCE):
                        await ledger.more(chance.randrange(1, 100))
                    assert not any(task.done() for task in tasks)
                ledger.resting = True
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await audit(client, ledger)
    return ledger


async def test_a_server_whose_clock_is_set_under_load_loses_and_doubles_nothing(
    fresh_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jumped(fresh_url, tmp_path, 6, monkeypatch)


@pytest.mark.slow
async def test_a_server_whose_clock_is_set_a_thousand_times_loses_and_doubles_nothing(
    engine: str, fresh_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await jumped(fresh_url, tmp_path, 1_000, monkeypatch)
    record(
        "A server's clock that is set under load, within ± 10 min, loses and doubles nothing", engine,
        times_set=1_000, acknowledged=ledger.acknowledged, lost=0, doubled=0,
    )  # fmt: skip
