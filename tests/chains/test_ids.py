"""An id that is used again after its run was removed: what followed from that run is still there, and nobody's way."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.retention import sweeps
from service.retention.sweeps import DAY_MS, Walk
from tests.conftest import Api, serving
from tests.runs.engine import reclaim, started, submit, tasks

DAYS = 30
AGAIN = {"type": "ContinueAsNew"}
FAIL = {"type": "FailWorkflow", "error": {"type": "boom"}}
CHILD = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "parent_close_policy": "abandon"}


@pytest.fixture
async def own(fresh_url: str) -> AsyncIterator[Api]:
    """A tenant in a store of its own that keeps executions for thirty days."""
    async with serving(fresh_url, execution_days=DAYS) as service:
        yield await service.tenant()


async def month_later(api: Api) -> None:
    """What has ended by now is removed."""
    api.clock.advance(DAYS * DAY_MS + 1)
    services = api.service.services
    walk = services.lines["retention"] = Walk()
    while not walk.rest_until:
        await sweeps.remove(services)


async def children_of_namesakes(api: Api) -> tuple[Any, Any]:
    """The task of a child that lives on though its parent was removed, and that of a child of another `parent`."""
    await started(api, execution_id="parent", workflow_type="parent")
    await submit(api, (await tasks(api, "parent"))[0], CHILD, {"type": "CompleteWorkflow"})
    await month_later(api)
    (old,) = await tasks(api, "part")
    await started(api, execution_id="parent", workflow_type="parent")
    await submit(api, (await tasks(api, "parent"))[0], CHILD)
    (new,) = await tasks(api, "part")
    return old, new


@pytest.mark.parametrize("ending", [AGAIN, FAIL])
async def test_a_run_goes_on_though_another_chain_began_under_its_id(own: Api, ending: dict[str, object]) -> None:
    body = {"execution_id": "loop", "workflow_max_attempts": 2, "workflow_retry": {"initial_delay_ms": 0}}
    await started(own, **body)
    await submit(own, (await tasks(own))[0], ending)
    await month_later(own)
    (old,) = await tasks(own, max_items=1)
    await started(own, **body)
    (new,) = await tasks(own, max_items=1)
    assert (old["first_id"], new["execution_id"]) == ("loop", "loop")
    await submit(own, new, ending)
    await reclaim(own)
    (next_,) = await tasks(own, max_items=1)
    assert next_["previous_id"] == "loop"
    assert next_["execution_id"] != old["execution_id"]
    assert (await own.ok("GET", "/v1/executions/loop"))["status"] in ("completed", "failed")
    again = await own.ok("POST", f"/v1/executions/{next_['execution_id']}/continue-as-new", json={})
    assert again["created"]
    chain = (await own.ok("GET", "/v1/executions/loop/chain"))["items"]
    assert [one["execution_id"] for one in chain] == ["loop", next_["execution_id"], again["next_id"]]
    chain = (await own.ok("GET", f"/v1/executions/{old['execution_id']}/chain"))["items"]
    assert [one["execution_id"] for one in chain] == [old["execution_id"]]


@pytest.mark.parametrize("first", ["old", "new"])
async def test_a_child_starts_though_one_of_an_earlier_run_of_the_same_id_lives_on(own: Api, first: str) -> None:
    old, new = await children_of_namesakes(own)
    assert new["execution_id"] != old["execution_id"]
    children = {"new": new, "old": old}
    await submit(own, children.pop(first), {"type": "CompleteWorkflow", "result": first})
    ((second, task),) = children.items()
    await submit(own, task, {"type": "CompleteWorkflow", "result": second})
    log = await own.events("parent")
    assert [event["kind"] for event in log] == ["execution.started", "child.started", "child.completed"]
    assert (log[1]["body"]["execution_id"], log[2]["body"]["result"]) == (new["execution_id"], "new")


async def test_the_child_of_a_namesake_goes_on_and_nobody_else_follows_it(own: Api) -> None:
    old, new = await children_of_namesakes(own)
    await submit(own, old, AGAIN)
    (child,) = (await own.ok("GET", "/v1/executions/parent/children"))["items"]
    assert (child["execution_id"], child["status"]) == (new["execution_id"], "open")


async def test_a_chosen_id_is_the_childs_of_a_namesake_as_long_as_that_lives(own: Api) -> None:
    kid = CHILD | {"execution_id": "kid"}
    await started(own, execution_id="parent", workflow_type="parent")
    await submit(own, (await tasks(own, "parent"))[0], kid, {"type": "CompleteWorkflow"})
    await month_later(own)
    (old,) = await tasks(own, "part")
    await started(own, execution_id="parent", workflow_type="parent")
    task = (await tasks(own, "parent"))[0]
    await submit(own, task, kid)
    assert [event["kind"] for event in await own.events("parent")][1:] == ["child.failed"]
    await submit(own, old, {"type": "CompleteWorkflow"})
    await submit(own, (await tasks(own, "parent"))[0], kid | {"seq": 2})
    (new,) = await tasks(own, "part")
    assert new["execution_id"] not in ("kid", old["execution_id"])
