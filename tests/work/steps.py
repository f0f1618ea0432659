"""The steps that tests of work are told in."""

from typing import Any

from tests.conftest import Api

QUICK = {"backoff": "fixed", "initial_delay_ms": 0, "max_delay_ms": 0}
"""A retry policy without a wait."""


async def enqueue(api: Api, queue: str = "q", **body: Any) -> str:
    """Enqueue an item; its id."""
    return str((await api.ok("POST", "/v1/work-items", json={"queue": queue} | body))["id"])


async def shown(api: Api, item_id: str) -> Any:
    """An item with everything that is known of it."""
    return await api.ok("GET", f"/v1/work-items/{item_id}")


async def settle(api: Api, item: Any, verb: str, **body: Any) -> Any:
    """Complete, fail, release or renew a claimed item under its lease."""
    return await api.ok("POST", f"/v1/work-items/{item['id']}/{verb}", json={"epoch": item["epoch"]} | body)


async def fail(api: Api, item: Any, type: str = "boom", **body: Any) -> Any:
    """Fail a claimed item."""
    return await settle(api, item, "fail", error={"type": type, "message": "it broke"}, **body)


async def bury(api: Api, queue: str = "q", type: str = "boom", **body: Any) -> str:
    """Enqueue an item and let its only attempt fail; the id of the dead letter."""
    await enqueue(api, queue, max_attempts=1, **body)
    [item] = await api.claim(queue)
    assert (await fail(api, item, type))["outcome"] == "dead_lettered"
    return str(item["id"])


async def ids(api: Api, path: str, **query: Any) -> list[str]:
    """The ids of a list's first page."""
    return [item["id"] for item in (await api.ok("GET", path, params=query))["items"]]


def kinds(events: list[Any]) -> list[str]:
    """What happened, in order."""
    return [event["kind"] for event in events]
