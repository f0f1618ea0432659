"""An occurrence that goes on in another run just as its schedule starts the next one: its newest run is the one that is
ended, or asked to stop."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.conftest import new_store
from tests.races.conftest import WAITING, in_one_process

SCHEDULE = {
    "schedule_id": "nightly", "spec": {"every_ms": 86_400_000}, "action": {"workflow_type": "order", "task_queue": "q"},
}  # fmt: skip
TRIGGER = "/v1/schedules/nightly/trigger"


async def both_behind(url: str, execution: str, *asked: Any) -> list[Any]:
    """Requests that come to an execution's row, or to one that is locked behind it, in this order: each has read by
    then what it reads before it locks that."""
    db = await asyncpg.connect(url)
    try:
        async with db.transaction():
            await db.execute("SELECT 1 FROM executions WHERE id = $1 FOR UPDATE", execution)
            sent = []
            for count, one in enumerate(asked, 1):
                sent.append(asyncio.ensure_future(one))
                while await db.fetchval(WAITING) < count:
                    await asyncio.sleep(0)
                    assert not sent[-1].done(), "it waits for nobody"
    finally:
        await db.close()
    return list(await asyncio.gather(*sent))


@pytest.mark.parametrize("overlap", ["terminate_other", "cancel_other"])
async def test_an_occurrence_that_has_just_gone_on_does_not_run_beside_the_next_one(
    postgres_server: str, overlap: str
) -> None:
    url = await new_store(postgres_server)
    async with in_one_process(url, 2) as ways:
        pair = await ways.tenant()
        await pair.ok("POST", "/v1/schedules", json=SCHEDULE | {"overlap": overlap})
        first = (await pair.ok("POST", TRIGGER, json={}))["execution_id"]
        gone_on, triggered = await both_behind(
            url, first,
            pair.first.post(f"/v1/executions/{first}/continue-as-new", json={}),
            pair.last.post(TRIGGER, json={}),
        )  # fmt: skip
        assert (gone_on.status_code, triggered.status_code) == (201, 200), (gone_on.text, triggered.text)
        newest, second = gone_on.json()["next_id"], triggered.json()["execution_id"]
        stood = {run: (await pair.ok("GET", f"/v1/executions/{run}"))["status"] for run in (first, newest, second)}
        ended = "terminated" if overlap == "terminate_other" else "cancelled"
        assert stood == {first: "completed", newest: ended, second: "running"}
        shown = await pair.ok("GET", "/v1/schedules/nightly")
        assert [(run["latest_id"], run["status"]) for run in shown["last_runs"]] == [
            (second, "running"), (newest, ended),
        ]  # fmt: skip


async def test_an_occurrence_that_is_reset_comes_before_the_next_start_or_after_it(postgres_server: str) -> None:
    url = await new_store(postgres_server)
    async with in_one_process(url, 2) as ways:
        pair = await ways.tenant()
        await pair.ok("POST", "/v1/schedules", json=SCHEDULE | {"overlap": "terminate_other"})
        first, second = [(await pair.ok("POST", TRIGGER, json={}))["execution_id"] for _ in range(2)]
        triggered, reset = await both_behind(
            url, second,
            pair.first.post(TRIGGER, json={}),
            pair.last.post(f"/v1/executions/{first}/reset", json={"to_sequence": 1}),
        )  # fmt: skip
        third, again = triggered.json()["execution_id"], reset.json()["next_id"]
        stood = {
            run: (await pair.ok("GET", f"/v1/executions/{run}"))["status"] for run in (first, second, third, again)
        }
        assert stood == {first: "terminated", second: "terminated", third: "running", again: "running"}
        fourth = (await pair.ok("POST", TRIGGER, json={}))["execution_id"]
        shown = await pair.ok("GET", "/v1/schedules/nightly")
        assert [run["execution_id"] for run in shown["last_runs"] if run["status"] == "running"] == [fourth]
