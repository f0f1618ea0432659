"""The connection to Postgres is cut at every moment: an unknown outcome is called one, and the repeat finds out."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backends import connect, postgres_listen
from backends.errors import Unavailable
from service.kernel import wake
from service.main import running
from tests.conftest import Api, Clock, Service, new_database, serving, settings_for
from tests.faults.audit import audit
from tests.faults.evidence import record
from tests.faults.patient import PATIENCE, UNKNOWN, Load, Patient, under_load
from tests.faults.proxy import LISTEN, Proxy, proxied
from tests.faults.size import size
from tests.races.server import http, new_tenant, prepared, serving_process

MOMENTS = ("before", "half", "during", "after")
AUDIT_EVERY = 50
RECOVERY_SECONDS = 5.0
WAIT_MS = 60_000
CLAIM = {"worker_id": "w", "queues": ["q"], "wait_ms": WAIT_MS}
START = b"INSERT INTO executions"
"""What a start sends to the store, the first time on a connection."""
RUN = {"workflow_id": "wf", "execution_id": "run", "start": {"queue": "q", "id": "it"}}


@pytest.fixture
async def proxy(postgres_server: str) -> AsyncIterator[Proxy]:
    """A proxy before an empty database."""
    async with proxied(await new_database(postgres_server)) as found:
        yield found


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_commit_that_was_cut_is_unknown_and_the_repeat_finds_out(proxy: Proxy, moment: str) -> None:
    async with serving(proxy.url) as service:
        api = await service.tenant()
        proxy.cut(moment)
        refused = await api.refused("POST", "/v1/executions", UNKNOWN, json=RUN)
        assert (refused["status"], refused["retry_after"]) == (503, 1)
        assert proxy.cuts == {moment: 1}
        found = (await api.ok("POST", "/v1/executions", json=RUN))["created"]
        assert found is {"before": True, "half": True, "after": False}.get(moment, found)
        assert [event["kind"] for event in await api.events("run")] == ["execution.started"]
        assert [item["id"] for item in await api.claim("q", max_items=10)] == ["it"]


async def test_a_start_that_is_cut_says_that_postgres_cannot_be_reached(proxy: Proxy) -> None:
    for marker in (b"current_schema", b"clock_timestamp"):
        proxy.cut("before", marker)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await connect(proxy.url)
        assert proxy.cuts["before"] == 1
        proxy.cuts.clear()


async def test_a_claim_that_was_cut_is_found_out_by_its_key(proxy: Proxy) -> None:
    async with serving(proxy.url) as service:
        api = await service.tenant()
        await api.start(**RUN)
        proxy.cut("after")
        key = {"idempotency-key": "k"}
        await api.refused("POST", "/v1/work-items:claim", UNKNOWN, json=CLAIM, headers=key)
        found = await api.ok("POST", "/v1/work-items:claim", json=CLAIM, headers=key)
        assert [(item["id"], item["epoch"]) for item in found["items"]] == [("it", 1)]


async def test_a_statement_that_was_cut_is_tried_again_and_done_once(proxy: Proxy) -> None:
    async with serving(proxy.url) as service:
        api = await service.tenant()
        proxy.cut("during", START)
        assert (await api.ok("POST", "/v1/executions", json=RUN))["created"] is True
        assert proxy.cuts == {"during": 1}
        assert [event["kind"] for event in await api.events("run")] == ["execution.started"]
        assert [item["id"] for item in await api.claim("q", max_items=10)] == ["it"]


async def test_a_statement_that_was_cut_twice_is_unavailable_and_left_no_trace(proxy: Proxy) -> None:
    async with serving(proxy.url) as service:
        api = await service.tenant()
        for _ in range(2):
            proxy.cut("during", START)
        await api.refused("POST", "/v1/executions", "store/unavailable", json=RUN)
        assert proxy.cuts == {"during": 2}
        assert (await api.ok("POST", "/v1/executions", json=RUN))["created"] is True


async def cut_once(proxy: Proxy, load: Load, chance: random.Random) -> float:
    """One cut under load, at a moment of chance; the seconds until the requests that it met were acknowledged."""
    made = proxy.cuts.total() + 1
    moment = chance.choice((*MOMENTS, "anywhere", "anywhere", "all"))
    if moment == "all":
        await load.more(chance.randrange(40))
        proxy.cut_all()
    elif moment == "anywhere":
        proxy.cut_anywhere(chance.randrange(40_000))
    else:
        proxy.cut(moment)
    await load.until(lambda: proxy.cuts.total() >= made)
    return await load.answered()


async def survive(proxy: Proxy, folder: Path, cuts: int, seed: int) -> tuple[Patient, float]:
    """One server whose way to Postgres breaks again and again; what was counted, and the slowest recovery (seconds)."""
    chance, ledger, seconds = random.Random(seed), Patient(), []
    admin = await prepared(proxy.url)
    async with serving_process(proxy.url, folder / "server.log", sweep=True) as server:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        async with http(server.base, token) as client:
            for round_ in range(0, cuts, AUDIT_EVERY):
                async with under_load(client, ledger, round_) as load:
                    for _ in range(min(AUDIT_EVERY, cuts - round_)):
                        seconds.append(await cut_once(proxy, load, chance))
                await audit(client, ledger)
    print(f"{dict(proxy.cuts)}, {ledger.figures()}, slowest recovery {max(seconds):.2f} s")
    return ledger, max(seconds)


async def test_nothing_acknowledged_is_lost_or_doubled_when_connections_are_cut(proxy: Proxy, tmp_path: Path) -> None:
    await survive(proxy, tmp_path, cuts=12, seed=1)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_or_doubled_in_many_hundred_cuts(proxy: Proxy, tmp_path: Path) -> None:
    cuts = size("cuts", 800)
    ledger, slowest = await survive(proxy, tmp_path, cuts, seed=2)
    assert slowest <= RECOVERY_SECONDS
    promise = "Nothing acknowledged is lost or doubled when connections to Postgres are cut under load"
    record(promise, "postgres", cuts=cuts, **ledger.figures(), slowest_recovery_seconds=slowest)


class Doors:
    """Two services over one database: `near` reaches it through the proxy, `far` by itself."""

    def __init__(self, proxy: Proxy, near: Api, far: Api) -> None:
        self.proxy, self.near, self.far = proxy, near, far

    async def waiting(self, here: Api, there: Api) -> "asyncio.Task[list[Any]]":
        """A claim that waits at one door; the other has heard of it."""
        claim = asyncio.ensure_future(here.claim("q", wait_ms=WAIT_MS))
        heard = there.service.services.backend._listener
        async with asyncio.timeout(PATIENCE):
            while not any(f"work/{here.tenant}" in topics for _, topics in heard._peers.values()):
                await asyncio.sleep(0.005)
        return claim

    def cut_listener(self) -> None:
        """Cut the near one's listening connection, and let no other come."""
        self.proxy.closed_to = LISTEN
        [link] = self.proxy.that_said(LISTEN)
        link.cut()

    async def enqueue(self, at: Api) -> None:
        """Enqueue the item that is waited for."""
        await at.ok("POST", "/v1/work-items", json={"queue": "q", "id": "it"})


@pytest.fixture
async def doors(proxy: Proxy) -> AsyncIterator[Doors]:
    """Both services; a tenant's owner at each."""
    clock = Clock()
    async with serving(proxy.url) as near, running(settings_for(proxy._url), clock) as services:
        api = await near.tenant()
        house = Service(services, clock, near.admin)
        yield Doors(proxy, api, Api(house, api.tenant, api.owner_token))
        await house.close()


def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is woken or waits in vain."""
    monkeypatch.setattr(wake, "LOOK_SECONDS", 3_600.0)


async def ended(waiting: "asyncio.Task[list[Any]]") -> list[str]:
    """The items of the claim that waited, if it ends well before its time."""
    async with asyncio.timeout(WAIT_MS / 2_000):
        return [item["id"] for item in await waiting]


async def test_a_wait_ends_though_the_listener_is_away(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "LOOK_SECONDS", 0.05)
    waiting = await doors.waiting(doors.near, doors.far)
    doors.cut_listener()
    await doors.enqueue(doors.far)
    assert await ended(waiting) == ["it"]


async def test_a_listener_that_was_cut_comes_back_and_looks(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_looks(monkeypatch)
    waiting = await doors.waiting(doors.near, doors.far)
    doors.cut_listener()
    await doors.enqueue(doors.far)
    doors.proxy.closed_to = None
    assert await ended(waiting) == ["it"]


async def test_a_listener_finds_out_at_once_that_it_was_cut(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_looks(monkeypatch)
    monkeypatch.setattr(postgres_listen, "HELLO_SECONDS", 3_600.0)
    waiting = await doors.waiting(doors.near, doors.far)
    [link] = doors.proxy.that_said(LISTEN)
    link.cut()
    async with asyncio.timeout(PATIENCE):
        while link in doors.proxy.links or not doors.proxy.that_said(LISTEN):
            await asyncio.sleep(0.005)
    await doors.enqueue(doors.far)
    assert await ended(waiting) == ["it"]


async def test_a_wake_up_that_was_cut_is_said_again(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_looks(monkeypatch)
    waiting = await doors.waiting(doors.far, doors.near)
    doors.proxy.cut("before", b"wake ")
    await doors.enqueue(doors.near)
    assert await ended(waiting) == ["it"]
    assert doors.proxy.cuts == {"before": 1}


async def test_a_host_that_never_answers_keeps_nobody_from_the_next(proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never says a word
        here = f"127.0.0.1:{proxy.port}"
        store = await connect(proxy.url.replace(here, f"127.0.0.1:{deaf.getsockname()[1]},{here}"))
        try:
            assert await store.migrate()
        finally:
            await store.close()
