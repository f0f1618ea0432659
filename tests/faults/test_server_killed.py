"""A server is killed under load, again and again: what it acknowledged is there, once, and nothing else is."""

import asyncio
import random
import statistics
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.audit import audit, glance
from tests.faults.evidence import record
from tests.faults.ledger import Ledger
from tests.faults.load import loaded
from tests.faults.size import size
from tests.races.server import Server, http, new_tenant, prepared

WRITES = 500
"""Acknowledged writes of a life, on average."""
READY_SECONDS, SLOW_MACHINE = 3.0, 3.0
"""How soon a server is ready again, and by how much a busy machine may miss it."""


async def kill_under_load(server: Server, token: str, ledger: Ledger, round_: int, chance: random.Random) -> None:
    """Let clients work until some more writes were acknowledged, and kill the server in the middle of the next.

    The little wait at the end spreads the kills over what a server does with a request, its commit above all.
    """
    after, wait = chance.randrange(1, 2 * WRITES), chance.uniform(0, 0.008)
    async with http(server.base, token) as client:
        tasks = loaded(client, ledger, round_)
        enough = asyncio.ensure_future(ledger.more(after))
        try:
            async with asyncio.timeout(60):
                await asyncio.wait([enough, *tasks], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(wait)
            await server.kill()
            await asyncio.gather(*tasks)
        finally:
            for task in [enough, *tasks]:
                task.cancel()
            await asyncio.gather(enough, *tasks, return_exceptions=True)


class Lives:
    """What the lives of a server had in common: how soon each was ready, and what its clients were left in doubt of."""

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.doubts = self.happened = 0

    async def begin(self, server: Server) -> None:
        """Start the server and keep how long it took: the process, its imports, the recovery of the store."""
        began = time.monotonic()
        await server.start()
        self.ready.append(time.monotonic() - began)

    async def resolve(self, client: httpx.AsyncClient, ledger: Ledger) -> None:
        """Have every request that is in doubt answered."""
        self.doubts += len(ledger.doubts)
        self.happened += await ledger.resolve(client)


async def survive(url: str, folder: Path, rounds: int, seed: int, audited_every: int) -> tuple[Ledger, Lives]:
    """So many lives of a server over one store: a glance at it after each, an audit after some and after the last."""
    chance, ledger, lives = random.Random(seed), Ledger(), Lives()
    admin = await prepared(url)
    server = Server(url, folder / "server.log", sweep=True)
    await server.start()
    try:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        for round_ in range(rounds):
            await kill_under_load(server, token, ledger, round_, chance)
            await lives.begin(server)
            async with http(server.base, token) as client:
                await lives.resolve(client, ledger)
                await glance(client, ledger)
                if (rounds - round_ - 1) % audited_every == 0:
                    await audit(client, ledger)
    finally:
        await server.kill()
    return ledger, lives


async def test_nothing_acknowledged_is_lost_or_doubled_when_a_server_is_killed(fresh_url: str, tmp_path: Path) -> None:
    await survive(fresh_url, tmp_path, rounds=5, seed=1, audited_every=2)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_or_doubled_in_500_kills(
    engine: str, fresh_url: str, tmp_path: Path
) -> None:
    kills = size("kills", 500)
    ledger, lives = await survive(fresh_url, tmp_path, kills, seed=2, audited_every=100)
    assert ledger.acknowledged >= 0.8 * WRITES * kills
    assert max(lives.ready) <= READY_SECONDS * SLOW_MACHINE
    record(
        "kill -9 of a server under load loses and doubles nothing", engine, kills=kills,
        acknowledged_writes=ledger.acknowledged, lost=0, doubled=0, requests_in_doubt=lives.doubts,
        known_to_have_happened=lives.happened, ready_again_median_seconds=statistics.median(lives.ready),
        ready_again_longest_seconds=max(lives.ready),
    )  # fmt: skip
