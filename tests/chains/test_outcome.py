"""How an execution ended: told at once where it has, and to whoever waits by the commit that ends it."""

import asyncio
from typing import Any

import pytest

from service.chains import routes
from service.chains.routes import last_run
from service.kernel import wake
from tests.chains.test_behaviour import AGAIN
from tests.conftest import Api, Clock
from tests.runs.engine import reclaim, ring, started, submit, tasks
from tests.work.test_waiting import turns, until

DONE: dict[str, Any] = {"type": "CompleteWorkflow", "result": {"shipped": True}}


@pytest.fixture(autouse=True)
def no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself: only a wake-up is an answer."""
    monkeypatch.setattr(wake, "LOOK_SECONDS", 3_600.0)


async def outcome(api: Api, id: str, wait_ms: int = 0) -> Any:
    """How an execution ended, or stands."""
    return await api.ok("GET", f"/v1/executions/{id}/outcome?wait_ms={wait_ms}")


async def asking(api: Api, id: str) -> "asyncio.Task[Any]":
    """Somebody who waits for it."""
    before = api.service.services.wakes.waiting
    task = asyncio.create_task(outcome(api, id, 60_000))
    await until(lambda: api.service.services.wakes.waiting == before + 1)
    await turns()
    return task


async def told(task: "asyncio.Task[Any]") -> Any:
    """What is answered to who waits."""
    async with asyncio.timeout(10):
        return await task


async def test_an_execution_that_goes_on_is_told_as_it_stands(api: Api) -> None:
    run = (await api.start())["execution_id"]
    found = await outcome(api, run)
    assert found == {
        "execution_id": run, "status": "running", "ended": False, "result": None, "error": None, "sequence": 1,
        "completed_at": None,
    }  # fmt: skip
    assert await outcome(api, run, 1) == found


async def test_whoever_waits_is_told_by_the_commit_that_ends_it(api: Api) -> None:
    run = (await api.start())["execution_id"]
    waits = [await asking(api, run) for _ in range(3)]
    await api.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "still.on"}]})
    await turns()
    assert not any(task.done() for task in waits)
    ended = {"status": "failed", "error": {"type": "boom"}}
    await api.ok("POST", f"/v1/executions/{run}/status", json=ended)
    for task in waits:
        found = await told(task)
        assert (found["ended"], found["status"], found["error"]) == (True, "failed", {"type": "boom"})
    assert await outcome(api, run, 60_000) == found, "one that has ended is not waited for"


async def test_what_happens_before_the_end_wakes_nobody_who_waits_for_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (await api.start())["execution_id"]
    waits = await asking(api, run)
    looked: list[str] = []

    async def look(call: Any) -> Any:
        looked.append(call.path["id"])
        return await last_run(call)

    monkeypatch.setattr(routes, "last_run", look)
    await api.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "still.on"}]})
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "paused"})
    await turns()
    assert looked == []
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={"reason": "enough"})
    assert ((await told(waits))["status"], looked) == ("terminated", [run])


async def test_of_a_run_that_goes_on_in_others_the_last_one_tells(api: Api) -> None:
    run = await started(api)
    waits = [await asking(api, run)]
    for _ in range(3):
        (task,) = await tasks(api)
        await submit(api, task, AGAIN)
        await turns()
    (task,) = await tasks(api)
    waits.append(await asking(api, task["previous_id"]))
    await submit(api, task, DONE)
    for one in waits:
        found = await told(one)
        assert (found["execution_id"], found["status"]) == (task["execution_id"], "completed")
        assert (found["result"], found["ended"]) == ({"shipped": True}, True)


async def test_another_attempt_is_waited_for(api: Api, clock: Clock) -> None:
    retry = {"backoff": "fixed", "initial_delay_ms": 1_000, "max_delay_ms": 1_000}
    run = await started(api, workflow_max_attempts=2, workflow_retry=retry)
    waits = await asking(api, run)
    for _ in range(2):
        (task,) = await tasks(api)
        await submit(api, task, {"type": "FailWorkflow", "error": {"type": "boom", "message": "no"}})
        clock.advance(1_000)
        await ring(api)
        await reclaim(api)
        await turns()
    found = await told(waits)
    assert (found["execution_id"], found["status"]) == (task["execution_id"], "failed")
    assert found["execution_id"] != run


async def test_a_run_that_is_reset_is_waited_for_anew(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    waits = await asking(api, run)
    await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 1})
    (task,) = await tasks(api)
    await submit(api, task, DONE)
    assert (await told(waits))["execution_id"] == task["execution_id"] != run


async def test_a_token_that_ends_meanwhile_is_told_nothing(api: Api) -> None:
    run = (await api.start())["execution_id"]
    minted = await api.ok("POST", "/v1/tokens", json={"name": "v", "role": "viewer"})
    viewer = api.service.client(minted["secret"])
    before = api.service.services.wakes.waiting
    asked = asyncio.create_task(viewer.get(f"/v1/executions/{run}/outcome?wait_ms=60000"))
    await until(lambda: api.service.services.wakes.waiting == before + 1)
    await turns()
    await api.ok("DELETE", f"/v1/tokens/{minted['token']['id']}")
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed", "result": "secret"})
    answer = await told(asked)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth/revoked")


async def test_what_is_not_there_is_not_waited_for(api: Api) -> None:
    other = await api.service.tenant()
    run = (await other.start())["execution_id"]
    for id in ("nobody", run):
        await api.refused("GET", f"/v1/executions/{id}/outcome?wait_ms=60000", "not-found")
    await api.refused("GET", f"/v1/executions/{run}/outcome?wait_ms=60001", "request/malformed")


async def test_where_nobody_may_wait_any_more_that_is_said(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run = (await api.start())["execution_id"]
    monkeypatch.setattr(api.service.services.wakes, "_most", 0)
    await api.refused("GET", f"/v1/executions/{run}/outcome?wait_ms=60000", "server/busy")
    assert (await outcome(api, run))["status"] == "running"
