"""An occurrence is running until the chain of its runs ends: continued or reset, it is still the same."""

from typing import Any

from tests.chains.test_behaviour import AGAIN, FAIL
from tests.conftest import Api
from tests.runs.engine import submit, tasks
from tests.schedules.test_behaviour import end_one, passing, planned, shown, statuses


async def step(api: Api, *made: dict[str, Any]) -> Any:
    """A worker submits these for the oldest task; the task."""
    task = (await tasks(api, max_items=1))[0]
    await submit(api, task, *made)
    return task


async def test_an_occurrence_that_continues_as_new_is_running_until_its_last_run_ends(api: Api) -> None:
    await planned(api)
    await passing(api)
    first = await step(api, AGAIN)
    task = (await tasks(api, max_items=1))[0]
    (run,) = (await shown(api))["last_runs"]
    assert (run["status"], run["ended_at"]) == ("running", None)
    assert (run["execution_id"], run["latest_id"]) == (first["execution_id"], task["execution_id"])
    await submit(api, task, AGAIN)
    await passing(api)
    assert await statuses(api) == ["running", "skipped"]
    await step(api, {"type": "CompleteWorkflow"})
    await passing(api)
    assert await statuses(api) == ["completed", "skipped", "running"]


async def test_an_occurrence_that_is_not_continued_is_its_own_latest_run(api: Api) -> None:
    await planned(api)
    await passing(api)
    (run,) = (await shown(api))["last_runs"]
    assert run["latest_id"] == run["execution_id"]


async def test_a_buffered_occurrence_waits_for_the_whole_chain(api: Api) -> None:
    await planned(api, overlap="buffer_one")
    await passing(api)
    await step(api, AGAIN)
    await passing(api)
    assert await statuses(api) == ["running", "buffered"]
    await step(api, AGAIN)
    await passing(api, 1)
    assert await statuses(api) == ["running", "buffered"]
    await end_one(api)
    await passing(api, 1)
    assert await statuses(api) == ["completed", "running"]


async def test_the_last_run_of_a_chain_is_the_one_that_is_ended(api: Api) -> None:
    await planned(api, overlap="terminate_other")
    await passing(api)
    await step(api, AGAIN)
    (run,) = (await shown(api))["last_runs"]
    await passing(api)
    assert await statuses(api) == ["terminated", "running"]
    assert (await api.ok("GET", f"/v1/executions/{run['latest_id']}"))["status"] == "terminated"
    assert (await api.ok("GET", f"/v1/executions/{run['execution_id']}"))["status"] == "completed"


async def test_the_last_run_of_a_chain_is_the_one_that_is_asked_to_stop(api: Api) -> None:
    await planned(api, overlap="cancel_other")
    await passing(api)
    await step(api, AGAIN)
    task = (await tasks(api, max_items=1))[0]
    await passing(api)
    assert await statuses(api) == ["running", "buffered"]
    await submit(api, task)
    await step(api, {"type": "CancelWorkflow"})
    await passing(api, 1)
    assert await statuses(api) == ["cancelled", "running"]


async def test_an_occurrence_that_is_reset_has_the_outcome_of_its_last_run(api: Api) -> None:
    await planned(api)
    await passing(api)
    run = (await shown(api))["last_runs"][0]["execution_id"]
    await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 1})
    assert await statuses(api) == ["running"]
    await step(api, FAIL)
    assert await statuses(api) == ["failed"]
    latest = (await shown(api))["last_runs"][0]["latest_id"]
    assert latest != run
    await api.ok("POST", f"/v1/executions/{latest}/reset", json={"to_sequence": 1})
    assert await statuses(api) == ["running"], "what is reset runs again"
    await passing(api)
    assert await statuses(api) == ["running", "skipped"]
    await step(api, {"type": "CompleteWorkflow"})
    assert await statuses(api) == ["completed", "skipped"]
