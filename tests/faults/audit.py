"""What a store holds, against what it said it holds."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

import httpx

from tests.faults.ledger import Ledger

PATIENCE = 60.0


async def every(http: httpx.AsyncClient, path: str) -> list[Any]:
    """All items of a list."""
    out: list[Any] = []
    cursor = ""
    while True:
        answer = await http.get(f"{path}?limit=1000{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        out += page["items"]
        if page["next_cursor"] is None:
            return out
        cursor = f"&cursor={page['next_cursor']}"


async def log(http: httpx.AsyncClient, execution: str) -> list[Any]:
    """The whole log of an execution."""
    out: list[Any] = []
    while True:
        answer = await http.get(f"/v1/executions/{execution}/events?limit=1000&after={len(out)}")
        assert answer.status_code == 200, f"{execution}: {answer.text}"
        page = answer.json()
        out += page["items"]
        if page["next_after"] is None:
            assert len(out) == page["last_sequence"], execution
            return out


async def logs(http: httpx.AsyncClient, executions: list[Any]) -> dict[str, list[Any]]:
    """Every log of the tenant, out of its feed, each dense from 1 to where its execution stands.

    The feed holds back what may still be overtaken by a transaction under way, a dead server's too: it is asked again.
    """
    told: dict[str, list[Any]] = {one["execution_id"]: [] for one in executions}
    left, cursor = sum(one["sequence"] for one in executions), ""
    async with asyncio.timeout(PATIENCE):
        while left:
            page = (await http.get(f"/v1/events?limit=1000{cursor}")).json()
            for fed in page["items"]:
                told[fed["execution_id"]].append(fed["event"])
            left -= len(page["items"])
            cursor = f"&after={page['next_cursor']}"
    for one in executions:
        dense = list(range(1, one["sequence"] + 1))
        assert [event["sequence"] for event in told[one["execution_id"]]] == dense, one["execution_id"]
    return told


async def glance(http: httpx.AsyncClient, ledger: Ledger) -> None:
    """What was acknowledged last is there: cheap, however much the store holds."""
    assert not ledger.doubts
    for run in set(ledger.last_executions):
        found = await log(http, run)
        assert [event["sequence"] for event in found] == list(range(1, len(found) + 1)), run
        assert found[0]["body"].get("input") == ledger.executions[run], run
        assert [event["body"] for event in found if event["kind"] == "said"] == ledger.logs[run], run
    for item in set(ledger.last_items):
        shown = (await http.get(f"/v1/work-items/{item}")).json()
        assert shown["status"] == ledger.items[item], shown


async def audit(http: httpx.AsyncClient, ledger: Ledger) -> None:
    """Nothing that was acknowledged is lost, nothing is doubled, nothing else is there."""
    assert not ledger.doubts
    executions = await every(http, "/v1/executions")
    assert sorted(one["execution_id"] for one in executions) == sorted(ledger.executions)
    told = await logs(http, executions)
    assert {run: log[0]["body"].get("input") for run, log in told.items()} == ledger.executions
    for run, said in ledger.logs.items():
        assert [event["body"] for event in told[run] if event["kind"] == "said"] == said, run
    items = await every(http, "/v1/work-items")
    assert {one["id"]: one["status"] for one in items} == ledger.items
    check_items(items)
    check_open(executions, items)
    check_settled_once(told, items)


def check_items(items: list[Any]) -> None:
    """An item is ready, leased or completed, and nothing in between."""
    for one in items:
        assert (one["lease"] is not None) == (one["status"] == "leased"), one
        assert (one["settled_at"] is not None) == (one["status"] == "completed"), one
        assert one["attempt"] == (0 if one["status"] == "ready" else 1), one
        assert one["errors"] == [], one
        if one["status"] == "completed":
            assert one["result"] == one["id"], one


def check_open(executions: list[Any], items: list[Any]) -> None:
    """An execution counts its open items."""
    open_ = Counter(
        one["execution_id"] for one in items if one["status"] in ("ready", "leased") and one["execution_id"]
    )
    for one in executions:
        assert one["open_items"] == open_[one["execution_id"]], one


def check_settled_once(told: dict[str, list[Any]], items: list[Any]) -> None:
    """A completed item of an execution has one event that says so; an open one has none."""
    completed: dict[str, int] = defaultdict(int)
    for log in told.values():
        for event in log:
            if event["kind"] == "work.completed":
                completed[event["work_item_id"]] += 1
    of_executions = {one["id"]: one["status"] for one in items if one["execution_id"]}
    assert completed == {name: 1 for name, status in of_executions.items() if status == "completed"}
