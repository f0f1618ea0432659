"""`task_timeout_ms`: no workflow task of the run is held longer at a time, however long a lease its worker asks for."""

from typing import Any

import pytest

from tests.conftest import Api, Clock
from tests.runs.engine import commands, reclaim, started, submit, tasks

MOST = 2_000


async def renewed(api: Api, path: str, task: Any, **body: Any) -> int:
    """When a lease ends once it was renewed."""
    said = {"epoch": task["epoch"]} | body
    return int((await api.ok("POST", f"{path}/{task['task_id']}/renew", json=said))["expires_at"])


async def test_a_lease_ends_in_time_and_the_task_is_given_out_again(api: Api, clock: Clock) -> None:
    await started(api, task_timeout_ms=MOST)
    (task,) = await tasks(api, lease_ms=60_000)
    assert task["expires_at"] == clock.now + MOST
    clock.advance(MOST)
    await reclaim(api)
    (again,) = await tasks(api, lease_ms=60_000)
    assert (again["task_id"], again["attempt"], again["expires_at"]) == (task["task_id"], 2, clock.now + MOST)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    await api.refused("POST", path, "lease/stale", json=commands(task))
    await submit(api, again)


@pytest.mark.parametrize("path", ["/v1/workflow-tasks", "/v1/work-items"])
async def test_a_renewal_is_no_longer_either(api: Api, clock: Clock, path: str) -> None:
    await started(api, task_timeout_ms=MOST)
    (task,) = await tasks(api, lease_ms=60_000)
    clock.advance(MOST - 1)
    assert await renewed(api, path, task) == clock.now + MOST
    assert await renewed(api, path, task, lease_ms=60_000) == clock.now + MOST
    assert await renewed(api, path, task, lease_ms=1_000) == clock.now + 1_000


async def test_a_shorter_lease_and_a_run_without_the_option_stay_as_asked(api: Api, clock: Clock) -> None:
    await started(api, task_timeout_ms=MOST)
    (task,) = await tasks(api, lease_ms=1_000)
    assert task["expires_at"] == clock.now + 1_000
    await submit(api, task)
    await started(api, run_timeout_ms=900_000)
    (task,) = await tasks(api, lease_ms=60_000)
    assert task["expires_at"] == clock.now + 60_000
    assert await renewed(api, "/v1/workflow-tasks", task, lease_ms=120_000) == clock.now + 120_000


async def test_later_tasks_and_later_runs_are_held_to_it_too(api: Api, clock: Clock) -> None:
    run = await started(api, task_timeout_ms=MOST)
    (task,) = await tasks(api)
    await submit(api, task)
    await api.ok("POST", f"/v1/executions/{run}/signals/go")
    (task,) = await tasks(api)
    assert task["expires_at"] == clock.now + MOST
    await submit(api, task, {"type": "ContinueAsNew"})
    (task,) = await tasks(api)
    assert (task["first_id"], task["expires_at"]) == (run, clock.now + MOST)
    child = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "task_timeout_ms": 1_500}
    await submit(api, task, child)
    (task,) = await tasks(api, "part")
    assert task["expires_at"] == clock.now + 1_500
