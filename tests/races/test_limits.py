"""At a limit of N, N get in, whoever comes at once, through whichever door."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.kernel.tallies import fold
from tests.races.conftest import Pair, Ways, in_one_process

ROUNDS = 3
ADDING: dict[str, tuple[str, str, Any]] = {
    "running_executions": ("POST", "/v1/executions", {"workflow_id": "wf"}),
    "ready_work_items": ("POST", "/v1/work-items", {"queue": "q"}),
    "definitions": ("PUT", "/v1/definitions/wf{n}/1?validate=false", {"any": "thing"}),
    "tokens": ("POST", "/v1/tokens", {"name": "n", "role": "viewer"}),
    "workers": ("PUT", "/v1/workers/w{n}", {"queues": ["q"]}),
}
"""For each counted limit, a request that adds one."""


async def limit(pair: Pair, **limits: int | None) -> None:
    """Give the tenant limits."""
    answer = await pair.ways.admin.patch(f"/v1/tenants/{pair.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text


async def have(pair: Pair, name: str) -> int:
    """How many there are, by the tenant's own usage."""
    return int((await pair.ok("GET", f"/v1/tenants/{pair.tenant}/usage"))[name])


async def add(pair: Pair, name: str, count: int, first: int = 0) -> list[Any]:
    """Add that many at once, dealt out over the doors; a token again as long as too many of them wait to be made."""
    method, path, body = ADDING[name]

    async def one(n: int) -> Any:
        while True:
            answer = await pair.clients[n % len(pair.clients)].request(method, path.format(n=first + n), json=body)
            if answer.status_code != 503 or answer.json()["code"] != "auth/busy":
                return answer

    return list(await asyncio.gather(*(one(n) for n in range(count))))


def told(answers: list[Any]) -> Counter[int]:
    """How many were answered with each status."""
    return Counter(answer.status_code for answer in answers)


async def test_limits_that_are_changed_at_once_by_different_doors_are_all_there(pair: Pair) -> None:
    token = pair.ways.admin.headers["authorization"].removeprefix("Bearer ")
    doors = [pair.ways.client(door, token) for door in range(len(pair.clients))]
    path, named = f"/v1/tenants/{pair.tenant}", dict.fromkeys((*ADDING, "namespaces", "execution_days"), 70)
    changes = [
        doors[n % len(doors)].patch(path, json={"limits": {name: most}}) for n, (name, most) in enumerate(named.items())
    ]
    assert told(list(await asyncio.gather(*changes))) == {200: len(named)}
    limits = (await doors[0].get(path)).json()["limits"]
    assert {name: most for name, most in limits.items() if most is not None} == named


@pytest.mark.parametrize("name", ADDING)
async def test_of_those_who_come_at_once_as_many_get_in_as_there_are_places(pair: Pair, name: str) -> None:
    for turn in range(ROUNDS):
        there = await have(pair, name)
        await limit(pair, **{name: there + 7})
        answers = await add(pair, name, 24, first=100 * turn)
        assert told(answers) == {201: 7, 409: 17}
        refused = [answer.json() for answer in answers if answer.status_code == 409]
        code = f"limit/{name.replace('_', '-')}"
        assert {(one["code"], one["limit"], one["current"]) for one in refused} == {(code, there + 7, there + 7)}
        assert await have(pair, name) == there + 7


@pytest.mark.parametrize("name", ADDING)
async def test_a_limit_below_what_is_there_refuses_what_is_new_and_nothing_else(pair: Pair, name: str) -> None:
    await add(pair, name, 6)
    there = await have(pair, name)
    await limit(pair, **{name: there - 3})
    assert told(await add(pair, name, 8, first=50)) == {409: 8}
    assert await have(pair, name) == there


async def start(pair: Pair, **body: Any) -> str:
    """Start an execution; its id."""
    return str((await pair.ok("POST", "/v1/executions", json={"workflow_id": "wf"} | body))["execution_id"])


async def test_places_of_executions_that_end_at_once_are_all_free_again(pair: Pair) -> None:
    await limit(pair, running_executions=6)
    for _ in range(ROUNDS):
        runs = [await start(pair) for _ in range(6)]
        assert told(await add(pair, "running_executions", 4)) == {409: 4}
        ends = [pair.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"}) for run in runs]
        await asyncio.gather(*ends)
        answers = await add(pair, "running_executions", 12)
        assert told(answers) == {201: 6, 409: 6}
        made = [answer.json()["execution_id"] for answer in answers if answer.status_code == 201]
        ends = [pair.ok("POST", f"/v1/executions/{run}/status", json={"status": "cancelled"}) for run in made]
        await asyncio.gather(*ends)
        assert await have(pair, "running_executions") == 0


async def test_starts_and_endings_at_once_leave_no_more_than_the_limit(pair: Pair) -> None:
    await limit(pair, running_executions=5)
    runs = [await start(pair) for _ in range(5)]
    for _ in range(ROUNDS):
        ends = [pair.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"}) for run in runs]
        answers, _ = await asyncio.gather(add(pair, "running_executions", 16), asyncio.gather(*ends))
        runs = [answer.json()["execution_id"] for answer in answers if answer.status_code == 201]
        assert len(runs) == await have(pair, "running_executions") <= 5
        runs += [await start(pair) for _ in range(5 - len(runs))]


@pytest.fixture
async def doors(engine: str, fresh_url: str) -> AsyncIterator[Ways]:
    """The services of this process that share one store: two on Postgres, one on SQLite."""
    async with in_one_process(fresh_url, 2 if engine == "postgres" else 1) as found:
        yield found


async def test_the_limit_of_executions_holds_while_their_tallies_are_folded(doors: Ways) -> None:
    """They are counted by totals and by what was not added to these yet; each comes from the one to the other."""
    pair, stop = await doors.tenant(), asyncio.Event()

    async def folding(services: Any) -> None:
        while not stop.is_set():
            await fold(services.backend)
            await asyncio.sleep(0)

    await limit(pair, running_executions=5)
    folds = [asyncio.create_task(folding(services)) for services in doors.services for _ in range(2)]
    runs = list[str]()
    for _ in range(4 * ROUNDS):
        answers = await add(pair, "running_executions", 12)
        runs += [answer.json()["execution_id"] for answer in answers if answer.status_code == 201]
        assert len(runs) == await have(pair, "running_executions") == 5, "as many as there are places"
        gone, runs = runs[:3], runs[3:]
        paths = [f"/v1/executions/{run}/status" for run in gone]
        await asyncio.gather(*(pair.ok("POST", path, json={"status": "completed"}) for path in paths))
    stop.set()
    await asyncio.gather(*folds)


async def test_what_a_tenant_has_past_its_limit_is_let_go_of_before_there_is_a_place(doors: Ways) -> None:
    """It is not counted to its end, and nothing that goes makes a place before its time."""
    pair = await doors.tenant()
    await add(pair, "ready_work_items", 12)
    await limit(pair, ready_work_items=4)
    asked = {"worker_id": "w", "queues": ["q"], "max_items": 2}
    for left in (10, 8, 6, 4):
        answers, taken = await asyncio.gather(
            add(pair, "ready_work_items", 3), pair.ok("POST", "/v1/work-items:claim", json=asked)
        )
        assert (told(answers), len(taken["items"])) == ({409: 3}, 2)
        assert await have(pair, "ready_work_items") == left
    await pair.ok("POST", "/v1/work-items:claim", json=asked | {"max_items": 1})
    assert told(await add(pair, "ready_work_items", 3)) == {201: 1, 409: 2}


async def test_claimed_items_leave_their_places_and_released_ones_take_them_back(pair: Pair) -> None:
    await limit(pair, ready_work_items=8)
    assert told(await add(pair, "ready_work_items", 12)) == {201: 8, 409: 4}
    asked = {"worker_id": "w", "queues": ["q"], "max_items": 1}
    answers = await pair.all("POST", "/v1/work-items:claim", [asked] * 8)
    held = [item for answer in answers for item in answer.json()["items"]]
    assert len(held) == 8
    assert told(await add(pair, "ready_work_items", 12)) == {201: 8, 409: 4}
    gone = [pair.ok("POST", f"/v1/work-items/{one['id']}/release", json={"epoch": 1}) for one in held]
    await asyncio.gather(*gone)
    assert await have(pair, "ready_work_items") == 16, "what was accepted is not dropped"
    assert told(await add(pair, "ready_work_items", 4)) == {409: 4}


async def test_a_log_takes_as_many_events_as_its_limit_whoever_appends(pair: Pair) -> None:
    run = await start(pair)
    await limit(pair, events_per_execution=11)
    answers = await pair.all("POST", f"/v1/executions/{run}/events", [{"events": [{"kind": "x"}]}] * 24)
    assert told(answers) == {201: 10, 409: 14}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"limit/events-per-execution"}
    assert [event["sequence"] for event in await pair.events(run)] == list(range(1, 12))
    await pair.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"})


async def test_a_state_grows_to_its_limit_and_no_further_whoever_appends(pair: Pair) -> None:
    run = await start(pair)
    await limit(pair, state_bytes=len('{"l":[1,1,1,1,1]}'))
    answers = await pair.all("POST", f"/v1/executions/{run}/state:append", [{"path": "/l", "value": 1}] * 16)
    assert told(answers) == {200: 5, 409: 11}
    assert (await pair.ok("GET", f"/v1/executions/{run}"))["state"] == {"l": [1] * 5}


async def test_what_one_tenant_fills_leaves_another_its_places(ways: Ways) -> None:
    limits = {"running_executions": 5}
    full, free = await ways.tenant(limits=limits), await ways.tenant(limits=limits)
    answers = await asyncio.gather(*(add(one, "running_executions", 12) for one in (full, free)))
    assert [told(one) for one in answers] == [{201: 5, 409: 7}] * 2
