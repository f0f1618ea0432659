"""A server is killed while workflows run on it: each ends right, each of their steps ends once, none is stranded."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backends.sqlite_file import open_to_read
from tests.faults.evidence import record
from tests.faults.flows import LOOPS, RESULTS, Flows
from tests.faults.size import size
from tests.races.server import Server, http, new_tenant, prepared
from tests.sqlite import named
from tests.walk import engine_rows

TENANT = "acme"
LIFE = 80
"""Acknowledged requests of a life, on average."""
PATIENCE = 90.0
PLAN = {
    "schedule_id": "plan", "spec": {"every_ms": 1_000}, "overlap": "allow_all",
    "action": {"workflow_type": "part", "task_queue": "flows"},
}  # fmt: skip


async def rows(url: str) -> engine_rows.Rows:
    """The tenant's rows in one snapshot, read without a server."""
    texts = {name: f"SELECT * FROM {name} WHERE tenant_id = '{TENANT}'" for name in engine_rows.TABLES}
    if url.startswith("sqlite"):
        db = open_to_read(Path(url.removeprefix("sqlite:///")))
        db.row_trace = named
        try:
            db.execute("BEGIN")
            return {name: db.execute(text).fetchall() for name, text in texts.items()}
        finally:
            db.close()
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {name: [dict(row) for row in await connection.fetch(text)] for name, text in texts.items()}
    finally:
        await connection.close()


async def live(server: Server, token: str, flows: Flows, until: int, wait: float) -> None:
    """One life of the server: clients at work until so much is acknowledged, and then it is killed."""
    async with http(server.base, token) as client:
        tasks = flows.at_work(client)
        try:
            async with asyncio.timeout(PATIENCE):
                while flows.acknowledged < until and not any(task.done() for task in tasks):
                    await asyncio.sleep(0.001)
            await asyncio.sleep(wait)
            await server.kill()
            await asyncio.gather(*tasks)
        finally:
            await end(tasks)


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel clients; what they complain about has been heard."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def finish(server: Server, token: str, flows: Flows) -> None:
    """A last life in which nothing new begins and everything ends."""
    flows.resting = True
    async with http(server.base, token) as client:
        await flows.send(client, "/v1/schedules/plan/pause", {})
        for name in flows.asked:
            await flows.start(client, name)
        tasks = flows.at_work(client)
        try:
            left: list[Any] = []
            async with asyncio.timeout(PATIENCE):
                while left := (await client.get("/v1/executions?status=running&limit=3")).json()["items"]:
                    for task in tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"still running: {left}") from None
        finally:
            await end(tasks)


def audit(found: engine_rows.Rows, flows: Flows) -> Counter[str]:
    """Every workflow has ended, as it must; nothing that was acknowledged is missing; how many ended how."""
    engine = engine_rows.Engine(found)
    assert flows.asked.keys() <= engine.executions.keys(), flows.asked.keys() - engine.executions.keys()
    ends: Counter[str] = Counter()
    for name, row in engine.executions.items():
        first = engine.runs[name]["first_id"]
        ends[row["status"]] += 1
        if row["status"] == "completed":
            expected = None if engine.runs[name]["next_id"] else RESULTS[row["workflow_id"]]
            assert json.loads(row["result"] or b"null") == expected, row
        else:
            family = {name, first, row["parent_id"]}
            assert row["status"] in ("cancelled", "terminated"), row
            assert family & flows.cancelled or not family & flows.asked.keys(), f"nobody asked it to end: {row}"
    for name in [name for name, kind in flows.asked.items() if kind == "loop" and name not in flows.cancelled]:
        chain = [run for run in engine.runs.values() if run["first_id"] == name]
        assert len(chain) == LOOPS + 1, chain
    assert {row["status"] for row in found["schedule_runs"]} <= {"completed"}
    return ends


async def survive(url: str, folder: Path, kills: int, seed: int) -> tuple[Flows, Counter[str]]:
    """So many lives of a server over one store: after each, and at the end, its rows are looked at."""
    chance, flows = random.Random(seed), Flows()
    admin = await prepared(url)
    server = Server(url, folder / "server.log", sweep=True, sweep_interval_ms=50)
    await server.start()
    try:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, TENANT)
        async with http(server.base, token) as client:
            await flows.send(client, "/v1/schedules", PLAN)
        for _ in range(kills):
            until = flows.acknowledged + chance.randrange(1, 2 * LIFE)
            await live(server, token, flows, until, chance.uniform(0, 0.01))
            engine_rows.check(await rows(url))
            await server.start()
        await finish(server, token, flows)
    finally:
        await server.kill()
    found = await rows(url)
    engine_rows.check(found)
    return flows, audit(found, flows)


async def test_workflows_end_right_when_their_server_is_killed(fresh_url: str, tmp_path: Path) -> None:
    flows, ends = await survive(fresh_url, tmp_path, kills=2, seed=1)
    assert ends["completed"] > len(flows.started) / 2, ends


@pytest.mark.slow
async def test_workflows_end_right_in_200_kills(engine: str, fresh_url: str, tmp_path: Path) -> None:
    kills = size("engine_kills", 200)
    flows, ends = await survive(fresh_url, tmp_path, kills, seed=2)
    record(
        "kill -9 of a server strands no workflow", engine, kills=kills, acknowledged=flows.acknowledged,
        workflows_started=len(flows.started), runs_completed=ends["completed"],
        runs_cancelled_or_terminated=ends["cancelled"] + ends["terminated"], stranded=0, steps_ended_twice=0,
    )  # fmt: skip
