"""A worker stands still past the end of its lease, and goes on as if nothing had been: nothing it says counts."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.faults.evidence import record
from tests.faults.sites import AT_ONCE, PATIENCE, Site, WorkerProcess, worker
from tests.faults.size import size

FOUND = ("ready", "held", "settled")
"""How the worker finds its item: taken back, in another's hands, or settled by another."""
LATER = {"initial_delay_ms": 3_600_000, "jitter": False}
HEIR_MS = 600_000
AT_ONCE_MAX = 10


async def taken_back(client: httpx.AsyncClient, item: str) -> None:
    """Wait until the sweep has taken an item from its holder."""
    async with asyncio.timeout(PATIENCE):
        while (await client.get(f"/v1/work-items/{item}")).json()["status"] == "leased":
            await asyncio.sleep(0.02)


async def inherit(client: httpx.AsyncClient, queue: str) -> Any:
    """Wait for the item, and hold it for long."""
    body = {"worker_id": "heir", "queues": [queue], "lease_ms": HEIR_MS, "wait_ms": 60_000}
    [item] = (await client.post("/v1/work-items:claim", json=body)).json()["items"]
    assert (item["epoch"], item["attempt"]) == (2, 2)
    return item


async def complete(client: httpx.AsyncClient, item: Any) -> None:
    """The heir's word counts."""
    body = {"epoch": item["epoch"], "result": "heir"}
    answer = await client.post(f"/v1/work-items/{item['id']}/complete", json=body)
    assert answer.status_code == 200, answer.text


async def pass_over(client: httpx.AsyncClient, paused: WorkerProcess, queue: str, found: str) -> tuple[Any, Any]:
    """Stop the worker until its item stands as `found`; the item, and the heir's if there is one."""
    item = await paused.told()
    await paused.stop()
    await taken_back(client, item["id"])
    heirs = await inherit(client, queue) if found != "ready" else None
    if found == "settled":
        await complete(client, heirs)
    return item, heirs


async def pause(site: Site, token: str, n: int) -> None:
    """One paused worker: everything it says is refused, and the log knows nothing of it."""
    found, queue = FOUND[n % len(FOUND)], f"q{n}"
    first = {"queue": queue, "retry": LATER if found == "ready" else AT_ONCE}
    async with site.client(token) as client, worker(site.server, token, "hold", f"w{n}", queue) as paused:
        started = await client.post("/v1/executions", json={"workflow_id": "wf", "execution_id": queue, "start": first})
        assert started.status_code == 201, started.text
        item, heirs = await pass_over(client, paused, queue, found)
        paused.go_on()
        said = await paused.told()
        assert {(status, code) for _, status, code in said} == {
            (409, "lease/not-held" if found == "ready" else "lease/stale")
        }, said
        if found == "held":
            await complete(client, heirs)
        shown = (await client.get(f"/v1/work-items/{item['id']}")).json()
        log = (await client.get(f"/v1/executions/{queue}/events")).json()["items"]
    kinds = ["execution.started", "work.lease_expired", "work.retry_scheduled", "work.completed"]
    assert [event["kind"] for event in log] == kinds[: 3 if found == "ready" else 4]
    assert [error["type"] for error in shown["errors"]] == ["lease_expired"]
    assert (shown["status"], shown["result"]) == (("ready", None) if found == "ready" else ("completed", "heir"))


async def pauses(site: Site, count: int) -> None:
    """So many paused workers, some at once."""
    token = await site.tenant()
    for first in range(0, count, AT_ONCE_MAX):
        await asyncio.gather(*(pause(site, token, n) for n in range(first, min(count, first + AT_ONCE_MAX))))


async def test_a_paused_worker_settles_nothing_after_its_lease(site: Site) -> None:
    await pauses(site, 3)


@pytest.mark.slow
async def test_fifty_paused_workers_settle_nothing_after_their_leases(engine: str, site: Site) -> None:
    count = size("pauses", 50)
    await pauses(site, count)
    record(
        "a worker stopped past its lease (SIGSTOP, SIGCONT) settles nothing", engine, pauses=count,
        late_words_refused=6 * count, accepted=0,
    )  # fmt: skip
