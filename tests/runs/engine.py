"""A workflow worker's hands, for tests: start, claim, submit; and the sweeps, when a test lets time pass."""

from typing import Any

from service.alarms.sweeps import ring_due
from service.kernel.principal import SYSTEM, internal
from service.work.model import PromoteDue, ReclaimLeases
from tests.conftest import Api


async def started(api: Api, **body: Any) -> str:
    """A run of the workflow `order` on the queue `flows`."""
    said = {"workflow_type": "order", "task_queue": "flows"} | body
    return str((await api.ok("POST", "/v1/executions", json=said))["execution_id"])


async def tasks(api: Api, *types: str, **body: Any) -> list[Any]:
    """What a claim of workflow tasks gets."""
    said = {"worker_id": "w", "queues": ["flows"], "types": list(types or ("order",)), "max_items": 10} | body
    return list((await api.ok("POST", "/v1/workflow-tasks:claim", json=said))["items"])


def commands(task: Any, *made: dict[str, Any]) -> dict[str, Any]:
    """A submission that has seen what the task showed."""
    return {"epoch": task["epoch"], "history_sequence": task["history_sequence"], "commands": list(made)}


async def submit(api: Api, task: Any, *made: dict[str, Any]) -> Any:
    """Settle a task."""
    return await api.ok("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=commands(task, *made))


async def ring(api: Api) -> int:
    """Ring what is due, whoever's it is; how many rang."""
    return await ring_due(api.service.services.backend, api.service.services.kernel)


async def reclaim(api: Api) -> None:
    """Take back leases that ran out, and put what is due on its shelf."""
    await api.service.services.kernel.run(internal(SYSTEM), ReclaimLeases(limit=1_000))
    await api.service.services.kernel.run(internal(SYSTEM), PromoteDue())
