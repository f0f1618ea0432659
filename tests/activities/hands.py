"""An activity worker's hands, for tests: what a workflow asks for, what a worker claims and says."""

from typing import Any

from tests.conftest import Api
from tests.runs.engine import started, submit, tasks


def activity(seq: int = 1, **said: Any) -> dict[str, Any]:
    """A command that has `charge` done."""
    return {"type": "ScheduleActivity", "seq": seq, "name": "charge", "task_queue": "pay"} | said


async def waiting(api: Api, *made: dict[str, Any]) -> str:
    """A run whose workflow has asked for these and seen everything so far."""
    run = await started(api)
    (task,) = await tasks(api)
    assert (await submit(api, task, *made))["task_id"] is None
    return run


async def claimed(api: Api, *names: str, **body: Any) -> list[Any]:
    """What a claim of activities gets."""
    said = {"worker_id": "a", "queues": ["pay"], "activities": list(names or ("charge",)), "max_items": 10} | body
    return list((await api.ok("POST", "/v1/activities:claim", json=said))["items"])


async def tell(api: Api, item: Any, what: str, **body: Any) -> Any:
    """Complete, fail or heartbeat an attempt."""
    return await api.ok("POST", f"/v1/activities/{item['id']}/{what}", json={"epoch": item["epoch"]} | body)


async def kinds(api: Api, run: str) -> list[str]:
    """The kinds of the events after the start."""
    return [event["kind"] for event in await api.events(run)][1:]


async def shown(api: Api, item: Any) -> Any:
    """The activity as it stands."""
    return await api.ok("GET", f"/v1/activities/{item['id']}")
