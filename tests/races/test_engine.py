"""The durable engine when two things happen at once: one of them comes first, and everybody agrees which."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.alarms.sweeps import ring_due
from tests.conftest import new_store
from tests.races.conftest import Pair, Ways, in_one_process
from tests.races.test_limits import have

ROUNDS = 3


@pytest.fixture(scope="module")
async def house(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Ways]:
    """A store whose sweeps a test rings: two services on Postgres; a file of SQLite's has one service."""
    url = f"sqlite:///{tmp_path_factory.mktemp('house') / 'holdfast.db'}"
    if engine == "postgres":
        url = await new_store(request.getfixturevalue("postgres_server"))
    async with in_one_process(url, 2 if engine == "postgres" else 1) as found:
        yield found


@pytest.fixture
async def sweeping(house: Ways) -> Pair:
    """A tenant of the test's own where its sweepers ring."""
    return await house.tenant()


async def passing(pair: Pair, ms: int) -> None:
    """Time passes, and four sweepers ring at once."""
    await pair.ways.wait(ms)
    services = itertools.islice(itertools.cycle(pair.ways.services), 4)
    await asyncio.gather(*(ring_due(one.backend, one.kernel) for one in services))


async def run(pair: Pair, **body: Any) -> str:
    """A run of the workflow `order`."""
    said = {"workflow_type": "order", "task_queue": "flows"} | body
    return str((await pair.ok("POST", "/v1/executions", json=said))["execution_id"])


async def task_of(pair: Pair, execution: str, kind: str = "order", lease_ms: int = 60_000) -> Any:
    """The run's task, claimed."""
    body = {"worker_id": "w", "queues": ["flows"], "types": [kind], "max_items": 50, "wait_ms": 1_000}
    found = (await pair.ok("POST", "/v1/workflow-tasks:claim", json=body | {"lease_ms": lease_ms}))["items"]
    [task] = [one for one in found if one["execution_id"] == execution]
    return task


def said(task: Any, *commands: dict[str, Any]) -> dict[str, Any]:
    """A submission."""
    return {"epoch": task["epoch"], "history_sequence": task["history_sequence"], "commands": list(commands)}


async def submitted(pair: Pair, task: Any, *commands: dict[str, Any]) -> Any:
    """A task settled."""
    return await pair.ok("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=said(task, *commands))


async def waiting(pair: Pair, *commands: dict[str, Any], **body: Any) -> str:
    """A run that has asked for these and has seen everything so far."""
    name = await run(pair, **body)
    told = await submitted(pair, await task_of(pair, name, str(body.get("workflow_type", "order"))), *commands)
    assert told["task_id"] is None
    return name


async def log(pair: Pair, execution: str) -> list[str]:
    """The kinds of a log, which is dense."""
    events = await pair.events(execution)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    return [event["kind"] for event in events]


async def at_once(pair: Pair, *asked: tuple[str, Any]) -> list[httpx.Response]:
    """Different requests at the same time, dealt out over the doors."""
    doors = [pair.clients[n % len(pair.clients)] for n in range(len(asked))]
    sent = [door.post(path, json=body) for door, (path, body) in zip(doors, asked, strict=True)]
    answers = list(await asyncio.gather(*sent))
    assert all(answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
    return answers


async def test_of_two_submissions_of_one_task_one_wins(pair: Pair) -> None:
    name = await run(pair)
    task = await task_of(pair, name)
    bodies = [said(task, {"type": "RecordSideEffect", "seq": 1, "name": "dice", "value": n}) for n in range(8)]
    answers = await pair.all("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", bodies)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 7}, [one.text for one in answers]
    won = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
    events = await pair.events(name)
    assert [event["body"]["value"] for event in events if event["kind"] == "side_effect.recorded"] == [won]


async def test_one_submission_sent_twice_at_once_is_done_once_and_answered_alike(pair: Pair) -> None:
    name = await run(pair)
    task = await task_of(pair, name)
    body = said(task, {"type": "RecordSideEffect", "seq": 1, "name": "dice", "value": None})
    answers = await pair.all("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", [body] * 8)
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert (await log(pair, name)).count("side_effect.recorded") == 1


async def test_a_signal_and_a_submission_at_once_leave_a_task_for_what_was_not_seen(pair: Pair) -> None:
    name = await run(pair)
    for n in range(ROUNDS):
        task = await task_of(pair, name)
        signals = [(f"/v1/executions/{name}/signals/go", {"payload": n}) for _ in range(3)]
        settle = (f"/v1/workflow-tasks/{task['task_id']}/commands", said(task, {"type": "WaitForSignal", "name": "go"}))
        answers = await at_once(pair, signals[0], settle, *signals[1:])
        assert all(answer.status_code < 300 for answer in answers), [answer.text for answer in answers]
    task = await task_of(pair, name)
    assert (await log(pair, name)).count("signal.received") == 3 * ROUNDS
    assert task["history"][-1]["sequence"] == task["history_sequence"] == len(await pair.events(name))


async def test_of_a_pause_and_a_submission_one_comes_first(pair: Pair) -> None:
    for _ in range(ROUNDS):
        name = await run(pair)
        task = await task_of(pair, name)
        settle = (f"/v1/workflow-tasks/{task['task_id']}/commands", said(task, {"type": "CompleteWorkflow"}))
        pause = (f"/v1/executions/{name}/status", {"status": "paused"})
        settled, paused = await at_once(pair, settle, pause)
        assert sorted((settled.status_code, paused.status_code)) == [200, 409], (settled.text, paused.text)
        found = await pair.ok("GET", f"/v1/executions/{name}")
        assert (found["status"], found["open_items"]) == ("paused" if paused.is_success else "completed", 0)


async def test_64_writers_at_once_keep_the_log_of_a_run_dense(pair: Pair) -> None:
    name = await waiting(pair)
    asked: list[tuple[str, Any]] = []
    for n in range(16):
        asked += [
            (f"/v1/executions/{name}/signals/go", {"payload": n}),
            (f"/v1/executions/{name}/timers", {"seq": n, "duration_ms": 600_000}),
            (f"/v1/executions/{name}/activities", {"seq": n, "name": "charge", "task_queue": "pay"}),
            (f"/v1/executions/{name}/events", {"events": [{"kind": "said", "body": n}]}),
        ]
    answers = await at_once(pair, *asked)
    assert all(answer.status_code < 300 for answer in answers), [answer.text for answer in answers]
    found = Counter(await log(pair, name))
    own = ("signal.received", "timer.scheduled", "activity.scheduled", "said")
    assert found == dict.fromkeys(own, 16) | {"execution.started": 1}


async def test_a_timer_and_a_signal_at_once_are_in_the_log_once_each(sweeping: Pair) -> None:
    timers = [{"type": "ScheduleTimer", "seq": seq, "duration_ms": 30} for seq in range(ROUNDS)]
    name = await waiting(sweeping, *timers)
    signals = [(f"/v1/executions/{name}/signals/go", {"payload": n}) for n in range(ROUNDS)]
    await asyncio.gather(passing(sweeping, 30), at_once(sweeping, *signals))
    found = Counter(await log(sweeping, name))
    assert (found["timer.fired"], found["signal.received"]) == (ROUNDS, ROUNDS)
    task = await task_of(sweeping, name)
    assert (await submitted(sweeping, task, {"type": "CompleteWorkflow"}))["status"] == "completed"


async def test_children_and_parents_that_end_at_once_all_end(pair: Pair) -> None:
    """A child's end writes to its parent, the parent's end to its children: each is locked by both."""
    for n in range(ROUNDS):
        children = [
            {"type": "StartChildWorkflow", "seq": seq, "workflow_type": "part", "execution_id": f"part-{n}-{seq}"}
            for seq in range(4)
        ]
        parent = await waiting(pair, *children, execution_id=f"parent-{n}")
        body = {"worker_id": "w", "queues": ["flows"], "types": ["part"], "max_items": 50, "wait_ms": 1_000}
        held = (await pair.ok("POST", "/v1/workflow-tasks:claim", json=body))["items"]
        ends = [
            (f"/v1/workflow-tasks/{one['task_id']}/commands", said(one, {"type": "CompleteWorkflow"})) for one in held
        ]
        assert len(ends) == 4
        answers = await at_once(pair, *ends[:2], (f"/v1/executions/{parent}/terminate", {}), *ends[2:])
        assert answers[2].status_code == 200, answers[2].text
        told = Counter(await log(pair, parent))
        assert told["execution.terminated"] == 1
        done = 0
        for seq in range(4):
            shown = await pair.ok("GET", f"/v1/executions/part-{n}-{seq}")
            assert shown["status"] in ("completed", "terminated")
            done += shown["status"] == "completed"
        assert told["child.completed"] == done, "the parent hears of an end in the commit in which it is made"


async def test_of_a_cancellation_and_a_completion_one_is_the_end(pair: Pair) -> None:
    for _ in range(ROUNDS):
        name = await run(pair)
        task = await task_of(pair, name)
        settle = (f"/v1/workflow-tasks/{task['task_id']}/commands", said(task, {"type": "CompleteWorkflow"}))
        end = (f"/v1/executions/{name}/terminate", {})
        answers = await at_once(pair, settle, (f"/v1/executions/{name}/cancel", {}), end)
        kinds = await log(pair, name)
        ends = [kind for kind in kinds if kind in ("execution.completed", "execution.terminated")]
        assert kinds[-1:] == ends, kinds
        assert (answers[0].status_code == 200) == (ends == ["execution.completed"])
        assert (answers[2].status_code == 200) == (ends == ["execution.terminated"])
        shown = await pair.ok("GET", f"/v1/executions/{name}")
        assert (shown["status"], shown["open_items"]) == (ends[0].partition(".")[2], 0)


async def test_of_a_completion_and_a_timeout_of_an_activity_one_is_told(sweeping: Pair) -> None:
    activities = [
        {
            "type": "ScheduleActivity", "seq": seq, "name": "charge", "task_queue": "pay", "max_attempts": 1,
            "start_to_close_ms": 60,
        }
        for seq in range(30)
    ]  # fmt: skip
    name = await waiting(sweeping, *activities)
    body = {"worker_id": "a", "queues": ["pay"], "activities": ["charge"], "max_items": 50, "wait_ms": 1_000}
    held = (await sweeping.ok("POST", "/v1/activities:claim", json=body))["items"]
    assert len(held) == len(activities)
    done = [(f"/v1/activities/{one['id']}/complete", {"epoch": 1, "result": one["seq"]}) for one in held]
    answers, _ = await asyncio.gather(at_once(sweeping, *done), passing(sweeping, 60))
    over = ("activity.completed", "activity.timed_out")
    ends = [(one["body"]["seq"], one["kind"]) for one in await sweeping.events(name) if one["kind"] in over]
    told = dict(ends)
    assert len(ends) == len(told) == len(held)
    for one, answer in zip(held, answers, strict=True):
        assert (answer.status_code == 200) == (told[one["seq"]] == "activity.completed"), answer.text


async def test_sweepers_at_once_start_each_occurrence_and_fire_each_timer_once(sweeping: Pair) -> None:
    plan = {
        "schedule_id": "plan", "spec": {"every_ms": 1_000}, "overlap": "allow_all",
        "action": {"workflow_type": "order", "task_queue": "flows"},
    }  # fmt: skip
    await sweeping.ok("POST", "/v1/schedules", json=plan)
    timers = [{"type": "ScheduleTimer", "seq": seq, "duration_ms": 1_000} for seq in range(100)]
    name = await waiting(sweeping, *timers)
    await passing(sweeping, 3_000)
    shown = await sweeping.ok("GET", "/v1/schedules/plan")
    runs = [one["execution_id"] for one in shown["last_runs"]]
    assert len(runs) == len(set(runs)) == shown["runs"] == 3
    for one in runs:
        assert await log(sweeping, one) == ["execution.started"]
    assert (await log(sweeping, name)).count("timer.fired") == 100


async def test_timers_of_a_run_fire_in_the_order_of_their_times_whoever_sweeps(sweeping: Pair) -> None:
    count = 300
    timers = [{"type": "ScheduleTimer", "seq": n, "duration_ms": count - n} for n in range(count)]
    name = await waiting(sweeping, *timers)
    await passing(sweeping, count)
    order = [one["body"]["seq"] for one in await sweeping.events(name) if one["kind"] == "timer.fired"]
    assert order == list(reversed(range(count)))


async def test_children_at_once_take_the_last_places_under_a_limit_once(ways: Ways) -> None:
    """However they begin: by a command of their parents, from outside, or as the next runs of chains."""
    pair = await ways.tenant(limits={"running_executions": 10})
    tasks = [await task_of(pair, await run(pair)) for _ in range(8)]
    start = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part"}
    asked = [(f"/v1/workflow-tasks/{task['task_id']}/commands", said(task, start)) for task in tasks]
    asked += [(f"/v1/executions/{task['execution_id']}/children", {"child": start | {"seq": 2}}) for task in tasks]
    answers = await at_once(pair, *asked)
    told = Counter(answer.status_code for answer in answers)
    assert told[201] + told[200] == 2, told
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 409}
    assert codes == {"limit/running-executions"}
    assert await have(pair, "running_executions") == 10


async def test_attributes_written_at_once_all_survive(pair: Pair) -> None:
    """By the workflow's command, and from outside."""
    name = await run(pair)
    task = await task_of(pair, name)
    patches = [
        pair.ok("PATCH", f"/v1/executions/{name}/attributes", json={"attributes": {f"a{n}": n}}) for n in range(16)
    ]
    own = {"type": "UpsertSearchAttributes", "patch": {"own": True}}
    await asyncio.gather(submitted(pair, task, own), *patches)
    found = (await pair.ok("GET", f"/v1/executions/{name}"))["attributes"]
    assert found == {f"a{n}": n for n in range(16)} | {"own": True}
    assert (await log(pair, name)).count("attributes.set") == 17
