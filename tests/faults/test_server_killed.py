"""A server is killed under load, again and again: what it acknowledged is there, once, and nothing else is."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.audit import audit
from tests.faults.ledger import Ledger
from tests.faults.load import loaded
from tests.races.server import Server, http, new_tenant, prepared


async def kill_under_load(server: Server, token: str, ledger: Ledger, round_: int, chance: random.Random) -> None:
    """Let clients work until some more requests were acknowledged, and kill the server in the middle of the next.

    The little wait at the end spreads the kills over what a server does with a request, its commit above all.
    """
    after, wait = chance.randrange(40, 250), chance.uniform(0, 0.008)
    enough = ledger.acknowledged + after
    async with http(server.base, token) as client:
        tasks = loaded(client, ledger, round_)
        try:
            async with asyncio.timeout(60):
                while ledger.acknowledged < enough and not any(task.done() for task in tasks):
                    await asyncio.sleep(0)
            await asyncio.sleep(wait)
            await server.kill()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def survive(url: str, folder: Path, rounds: int, seed: int) -> None:
    """So many lives of a server over one store."""
    chance, ledger = random.Random(seed), Ledger()
    admin = await prepared(url)
    server = Server(url, folder / "server.log", sweep=True)
    await server.start()
    try:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        for round_ in range(rounds):
            await kill_under_load(server, token, ledger, round_, chance)
            doubts = len(ledger.doubts)
            await server.start()
            async with http(server.base, token) as client:
                happened = await ledger.resolve(client)
                print(f"round {round_}: {ledger.acknowledged} acknowledged, {doubts} in doubt, {happened} had happened")
                await audit(client, ledger)
    finally:
        await server.kill()


async def test_nothing_acknowledged_is_lost_or_doubled_when_a_server_is_killed(fresh_url: str, tmp_path: Path) -> None:
    await survive(fresh_url, tmp_path, rounds=5, seed=1)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_or_doubled_in_fifty_kills(fresh_url: str, tmp_path: Path) -> None:
    await survive(fresh_url, tmp_path, rounds=50, seed=2)
