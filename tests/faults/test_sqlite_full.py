"""The disk fills up under load, again and again: writes are refused with 507 and change nothing, reads go on, and once
there is room the same server goes on."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults import sqlite_copy
from tests.faults.audit import audit
from tests.faults.evidence import record
from tests.faults.ledger import Doubt, Gone, had_happened
from tests.faults.load import loaded
from tests.faults.resting import Restful
from tests.faults.room import Room, rooms
from tests.races.server import http, new_tenant, prepared, serving_process

PATIENCE = 60.0
DISK_BYTES = 64 << 20


class Cramped(Restful):
    """A ledger that, refused with 507, sends the same again once there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.room = asyncio.Event()
        self.room.set()
        self.full, self.refused = asyncio.Event(), 0

    async def send(self, http: httpx.AsyncClient, method: str, path: str, body: Any, key: str | None = None) -> Any:
        """Send a change until it is acknowledged; its JSON. Raises `Gone` when there is to be no more load."""
        headers = {} if key is None else {"idempotency-key": key}
        doubt, refused = Doubt(method, path, body, key), False
        while True:
            if self.resting:
                raise Gone
            answer = await http.request(method, path, json=body, headers=headers)
            if not no_room(answer):
                break
            refused = True
            await self._wait_for_room()
        assert answer.status_code < 300, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        assert isinstance(body, list) or not (refused and had_happened(doubt, answer)), f"{method} {path} {body}"
        self.note(doubt, answer.json())
        return answer.json()

    async def _wait_for_room(self) -> None:
        self.refused += 1
        self.full.set()
        await self.room.wait()


def no_room(answer: httpx.Response) -> bool:
    """Whether the request, or an entry of a batch, was refused with 507."""
    told = answer.json()
    if answer.status_code == 507:
        assert (answer.headers["content-type"], told["code"]) == ("application/problem+json", "store/full"), told
        return True
    entries = told.get("results", []) if isinstance(told, dict) else []
    return any(entry["error"]["code"] == "store/full" for entry in entries if "error" in entry)


async def fill(room: Room, rounds: int, seed: int) -> Cramped:
    """Take the room away so many times, under load, from one server that is never started anew."""
    chance, ledger = random.Random(seed), Cramped()
    url = f"sqlite:///{room.folder / 'holdfast.db'}"
    admin = await prepared(url)
    async with serving_process(url, room.folder / "server.log", sweep=True) as server:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        async with http(server.base, token) as client, asyncio.timeout(rounds * PATIENCE):
            tasks = loaded(client, ledger, 0)
            try:
                for _ in range(rounds):
                    await ledger.more(chance.randrange(20, 200))
                    ledger.room.clear()
                    room.take(server, chance)
                    await ledger.full.wait()
                    await reads_go_on(client, ledger)
                    room.give(server)
                    ledger.full.clear()
                    ledger.room.set()
                await ledger.more(50)
                ledger.resting = True
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await audit(client, ledger)
        await server.kill()
    assert await sqlite_copy.faults(room.folder / "holdfast.db") == []
    return ledger


async def reads_go_on(client: httpx.AsyncClient, ledger: Cramped) -> None:
    """While there is no room: points, lists and scans are read, and hold what was acknowledged; the server is ready."""
    run = random.choice(list(ledger.executions))
    for path in (f"/v1/executions/{run}", f"/v1/executions/{run}/events", "/v1/work-items?limit=5", "/readyz",
                 "/v1/executions?filter=workflow_id%20%3D%20'wf'&limit=5"):  # fmt: skip
        answer = await client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"


async def test_a_full_disk_refuses_writes_and_nothing_else_until_there_is_room(tmp_path: Path) -> None:
    with rooms(tmp_path, DISK_BYTES) as found:
        for seed, room in enumerate(found):
            ledger = await fill(room, rounds=2 // len(found), seed=seed)
            assert ledger.refused


@pytest.mark.slow
async def test_a_disk_that_is_full_twenty_times_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with rooms(tmp_path, DISK_BYTES) as found:
        for seed, room in enumerate(found):
            ledger = await fill(room, rounds=20, seed=seed)
            record(
                f"A full disk ({room.way}) is 507, changes nothing and is recovered from without a restart",
                "sqlite",
                times_full=20,
                refused=ledger.refused,
                acknowledged=ledger.acknowledged,
                lost=0,
                doubled=0,
            )
