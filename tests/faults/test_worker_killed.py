"""Workers die with their leases: the sweep takes them back, and what they had settled stays settled."""

import asyncio
import random
from typing import Any

import httpx
import pytest

from tests.faults.audit import every
from tests.faults.evidence import record
from tests.faults.histories import Delivery, History, Word, check
from tests.faults.sites import AT_ONCE, PATIENCE, Site, WorkerProcess, worker
from tests.faults.size import size

AT_A_TIME = 10
ITEMS_A_WORKER = 40
LONG_MS, LONG_WAIT_MS = 600_000, 40_000


async def enqueue(client: httpx.AsyncClient, names: list[str]) -> None:
    """Items that are tried again at once, and often."""
    bodies = [{"queue": "q", "id": name, "max_attempts": 1_000, "retry": AT_ONCE} for name in names]
    answer = await client.post("/v1/work-items:batch", json=bodies)
    assert all("ok" in one for one in answer.json()["results"]), answer.text


async def test_the_leases_of_a_killed_worker_are_recovered_by_the_sweep(site: Site) -> None:
    """Each item that it held is delivered again: once, as its second attempt, with the reason kept."""
    token = await site.tenant()
    async with site.client(token) as client:
        body = {"workflow_id": "wf", "start": {"queue": "q", "retry": AT_ONCE}}
        started = await client.post("/v1/executions", json=body)
        assert started.status_code == 201, started.text
        async with worker(site.server, token, "hold", "doomed", "q") as doomed:
            held = await doomed.told()
            await doomed.kill()
        [item] = await inherit(client, LONG_WAIT_MS)
        assert (item["id"], item["epoch"], item["attempt"]) == (held["id"], 2, 2)
        late = await client.post(f"/v1/work-items/{item['id']}/complete", json={"epoch": 1})
        assert (late.status_code, late.json()["code"]) == (409, "lease/stale")
        shown = (await client.get(f"/v1/work-items/{item['id']}")).json()
        assert [error["type"] for error in shown["errors"]] == ["lease_expired"]


async def inherit(client: httpx.AsyncClient, wait_ms: int) -> list[Any]:
    """Whatever can be claimed within that time, held for long."""
    body = {"worker_id": "heir", "queues": ["q"], "max_items": 1_000, "wait_ms": wait_ms, "lease_ms": LONG_MS}
    answer = await client.post("/v1/work-items:claim", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def doom(site: Site, token: str, name: str, after: int, wait: float, history: History) -> None:
    """A worker that is killed in the middle of something, once it has said so many lines; what it had said."""
    async with worker(site.server, token, "toil", name, "q") as process:
        for _ in range(after):
            note(history, await process.told())
        await asyncio.sleep(wait)
        await process.kill()
        await rest(history, process)


async def rest(history: History, process: WorkerProcess) -> None:
    """What a worker had said and nobody had read yet."""
    while (line := await process.told()) is not None:
        note(history, line)


def note(history: History, line: Any) -> None:
    """Write down a worker's line."""
    if "word" in line:
        history.words.append(Word(*line["word"]))
    else:
        history.deliveries += [Delivery(*told) for told in line["deliveries"]]


async def kill_workers(site: Site, kills: int, seed: int) -> History:
    """Kill so many workers, some at a time, on one queue that never runs dry; then have the rest done."""
    chance, history, names = random.Random(seed), History(), list[str]()
    token = await site.tenant()
    async with site.client(token) as client:
        for first in range(0, kills, AT_A_TIME):
            doomed = range(first, min(kills, first + AT_A_TIME))
            fresh = [f"i{worker}-{n:02}" for worker in doomed for n in range(ITEMS_A_WORKER)]
            await enqueue(client, fresh)
            names += fresh
            await asyncio.gather(
                *(doom(site, token, f"w{n}", chance.randint(1, 48), chance.uniform(0, 0.02), history) for n in doomed)
            )
        await finish(client, names, history)
    return history


async def complete_the_rest(client: httpx.AsyncClient) -> list[Any]:
    """Complete everything that no one has completed; each item, as it then is.

    What a worker sent before it was killed may still arrive: it is looked for anew until nothing is left.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            done = [{"id": one["id"], "epoch": one["epoch"], "result": "heir"} for one in await inherit(client, 100)]
            if done:
                answer = await client.post("/v1/work-items:complete", json=done)
                assert all("ok" in one for one in answer.json()["results"]), answer.text
                continue
            items = await every(client, "/v1/work-items")
            if all(one["status"] == "completed" for one in items):
                return items


async def finish(client: httpx.AsyncClient, names: list[str], history: History) -> None:
    """Have the rest done: everything is complete, by whoever was told so."""
    items = await complete_the_rest(client)
    assert sorted(one["id"] for one in items) == sorted(names)
    check(history)
    results = {one["id"]: one["result"] for one in items}
    for word in history.words:
        assert not word.accepted or results[word.item] == word.worker, f"acknowledged and lost: {word}"


async def test_what_killed_workers_have_settled_stays_settled_and_the_rest_is_delivered_again(site: Site) -> None:
    history = await kill_workers(site, 4, seed=1)
    assert history.words


@pytest.mark.slow
async def test_500_killed_workers_lose_and_double_nothing(engine: str, site: Site) -> None:
    kills = size("worker_kills", 500)
    history = await kill_workers(site, kills, seed=2)
    record(
        "kill -9 of workers loses and doubles nothing", engine, kills=kills, items=kills * ITEMS_A_WORKER,
        acknowledged_settles=sum(word.accepted for word in history.words), lost=0, doubled=0,
    )  # fmt: skip
