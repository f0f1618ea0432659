"""The primary is lost and its synchronous standby promoted, under load: the server finds it by itself, nothing is lost.

The URL names both hosts. A commit is acknowledged once it is on both disks, so what was acknowledged survives either.
"""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends import connect
from backends.errors import Unavailable
from service.main import running
from tests.conftest import Clock, Service, settings_for
from tests.faults.audit import audit
from tests.faults.cluster import Cluster, new_cluster
from tests.faults.evidence import record
from tests.faults.patient import Patient, under_load
from tests.faults.size import size
from tests.races.server import Server, http, new_tenant, prepared, serving_process

RECOVERY_SECONDS = 5.0
AUDIT_EVERY = 5


@pytest.fixture
async def primary() -> AsyncIterator[Cluster]:
    """A cluster without a standby."""
    async with new_cluster() as found:
        yield found


def either(*hosts: str) -> str:
    """A URL of several hosts."""
    return f"postgresql://postgres@{','.join(hosts)}/postgres"


async def failovers(
    primary: Cluster, standby: Cluster, server: Server, token: str, ledger: Patient, rounds: int
) -> list[float]:
    """Lose the primary and promote the other, so many times, each with a new standby at the port of the lost one; how
    long it took from each promotion until all that waited was acknowledged (seconds)."""
    chance, seconds = random.Random(rounds), []
    async with http(server.base, token) as client:
        for round_ in range(rounds):
            async with under_load(client, ledger, round_) as load:
                await load.more(chance.randrange(40, 250))
                await primary.kill()
                await standby.promote()
                seconds.append(await load.answered())
                await load.more(40)
                if round_ < rounds - 1:
                    primary, standby = standby, await standby.standby(primary.port)
            if round_ % AUDIT_EVERY == 0 or round_ == rounds - 1:
                await audit(client, ledger)
    return seconds


async def survive(primary: Cluster, folder: Path, rounds: int) -> tuple[Patient, float]:
    """One server over a pair of clusters, of which the primary is lost again and again; what was counted, and the
    slowest recovery (seconds)."""
    ledger, standby = Patient(), await primary.standby()
    url = either(primary.host, standby.host)
    admin = await prepared(url)
    async with serving_process(url, folder / "server.log", sweep=True) as server:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        seconds = await failovers(primary, standby, server, token, ledger, rounds)
    print(f"{ledger.figures()}, slowest recovery {max(seconds):.2f} s")
    return ledger, max(seconds)


async def test_nothing_acknowledged_is_lost_or_doubled_when_a_standby_takes_over(
    primary: Cluster, tmp_path: Path
) -> None:
    await survive(primary, tmp_path, rounds=1)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_or_doubled_in_twenty_failovers(primary: Cluster, tmp_path: Path) -> None:
    rounds = size("failovers", 20)
    ledger, slowest = await survive(primary, tmp_path, rounds)
    assert slowest <= RECOVERY_SECONDS
    promise = "Nothing acknowledged is lost or doubled when a synchronous standby takes over under load"
    record(promise, "postgres", failovers=rounds, **ledger.figures(), slowest_recovery_seconds=slowest)


async def test_a_standby_is_refused_until_it_is_promoted(primary: Cluster) -> None:
    admin, standby = await prepared(primary.url), await primary.standby()
    with pytest.raises(Unavailable):
        await connect(standby.url)
    reading = settings_for(standby.url + "?target_session_attrs=any")
    async with running(reading, clock := Clock(), migrate=False) as services:
        service = Service(services, clock, admin)
        client = service.client(admin)
        refused = await client.post("/v1/tenants", json={"id": "acme"})
        assert (refused.status_code, refused.json()["code"]) == (503, "store/unavailable")
        await primary.kill()
        await standby.promote()
        assert (await client.post("/v1/tenants", json={"id": "acme"})).status_code == 201
        await service.close()
    store = await connect(standby.url)
    await store.close()
