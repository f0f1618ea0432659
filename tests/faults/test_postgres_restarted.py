"""Postgres is restarted under load, again and again, while the server stays: what was acknowledged is there, once."""

import itertools
import random
from pathlib import Path

import pytest

from tests.faults.audit import audit
from tests.faults.cluster import Cluster, new_cluster
from tests.faults.evidence import record
from tests.faults.patient import Patient, under_load
from tests.faults.size import size
from tests.races.server import Server, http, new_tenant, prepared, serving_process

RECOVERY_SECONDS = 5.0
AUDIT_EVERY = 10


async def restarts(
    cluster: Cluster, server: Server, token: str, ledger: Patient, seed: int, rounds: int
) -> list[float]:
    """Restart it so many times, in turn as an operator and as a crash does; how long each recovery took (seconds)."""
    chance, seconds = random.Random(seed), []
    async with http(server.base, token) as client:
        for round_, how in zip(range(rounds), itertools.cycle(("immediate", "fast"))):
            async with under_load(client, ledger, round_) as load:
                await load.more(chance.randrange(40, 250))
                await cluster.restart(how)
                seconds.append(await load.answered())
                await load.more(40)
            if round_ % AUDIT_EVERY == 0 or round_ == rounds - 1:
                await audit(client, ledger)
    return seconds


async def survive(folder: Path, rounds: int, seed: int) -> tuple[Patient, float]:
    """One server over a database that comes and goes; what was counted, and the slowest recovery (seconds)."""
    ledger = Patient()
    async with new_cluster() as cluster:
        admin = await prepared(cluster.url)
        async with serving_process(cluster.url, folder / "server.log", sweep=True) as server:
            async with http(server.base, admin) as client:
                token = await new_tenant(client, "acme")
            seconds = await restarts(cluster, server, token, ledger, seed, rounds)
    print(f"{ledger.figures()}, slowest recovery {max(seconds):.2f} s")
    return ledger, max(seconds)


async def test_nothing_acknowledged_is_lost_or_doubled_when_postgres_is_restarted(tmp_path: Path) -> None:
    await survive(tmp_path, rounds=2, seed=1)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_or_doubled_in_a_hundred_restarts_of_postgres(tmp_path: Path) -> None:
    rounds = size("restarts", 100)
    ledger, slowest = await survive(tmp_path, rounds, seed=2)
    assert slowest <= RECOVERY_SECONDS
    promise = "Nothing acknowledged is lost or doubled when Postgres is restarted under load"
    record(promise, "postgres", restarts=rounds, **ledger.figures(), slowest_recovery_seconds=slowest)
