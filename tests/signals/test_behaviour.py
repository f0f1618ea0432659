"""Signals: durable before anybody waits, in the order of the log, once however often they are sent."""

import asyncio

import msgspec

from service.kernel.json import fingerprint
from service.signals import rules
from service.signals.model import SendSignal
from tests.conftest import Api
from tests.runs.engine import started, submit, tasks


async def test_a_signal_before_the_workflow_waits_is_in_its_history(api: Api) -> None:
    run = await started(api)
    told = await api.ok("POST", f"/v1/executions/{run}/signals/approve", json={"payload": {"by": "ann"}})
    assert told == {"execution_id": run, "sequence": 2, "created": True}
    (task,) = await tasks(api)
    assert task["history"][1]["kind"] == "signal.received"
    assert task["history"][1]["body"] == {"name": "approve", "payload": {"by": "ann"}}
    assert (await submit(api, task, {"type": "WaitForSignal", "name": "approve"}))["task_id"] is None


async def test_a_signal_wakes_a_workflow_that_waits(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "WaitForSignal", "name": "go"})
    await api.ok("POST", f"/v1/executions/{run}/signals/go")
    (task,) = await tasks(api, since={run: task["history_sequence"]})
    assert [event["body"] for event in task["history"]] == [{"name": "go"}]


async def test_a_signal_while_a_task_is_held_is_seen_by_the_next_one(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/signals/go")
    assert await tasks(api) == []
    assert (await submit(api, task))["task_id"] is not None


async def test_a_repeat_under_one_signal_id_changes_nothing(api: Api) -> None:
    run = await started(api)
    path = f"/v1/executions/{run}/signals/go"
    first = await api.ok("POST", path, json={"payload": 1, "signal_id": "s"})
    again = await api.ok("POST", path, json={"payload": 1, "signal_id": "s"})
    assert (again["sequence"], again["created"]) == (first["sequence"], False)
    await api.refused("POST", path, "signal/conflict", json={"payload": 2, "signal_id": "s"})
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    assert (await api.ok("POST", path, json={"payload": 1, "signal_id": "s"}))["created"] is False


async def test_a_repeat_of_a_signal_may_be_written_otherwise(api: Api) -> None:
    path = f"/v1/executions/{await started(api)}/signals/go"
    first = await api.ok("POST", path, json={"payload": {"a": 1, "b": 2}, "signal_id": "s"})
    again = await api.ok("POST", path, json={"payload": {"b": 2, "a": 1}, "signal_id": "s"})
    assert (again["sequence"], again["created"]) == (first["sequence"], False)
    for other in ({"payload": {"b": 2, "a": 3}}, {"payload": None}, {}):
        await api.refused("POST", path, "signal/conflict", json={"signal_id": "s"} | other)
    other = path.replace("/go", "/other")
    await api.refused("POST", other, "signal/conflict", json={"payload": {"b": 2, "a": 1}, "signal_id": "s"})


async def test_signals_that_come_together_are_one_however_they_are_written(api: Api) -> None:
    run = await started(api)
    said = [{"payload": payload, "signal_id": "s"} for payload in ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
    both = await asyncio.gather(*(api.ok("POST", f"/v1/executions/{run}/signals/go", json=one) for one in said * 4))
    assert sorted(one["created"] for one in both) == [False] * 7 + [True]


def test_what_is_kept_of_a_signal_is_what_the_version_before_compares() -> None:
    """Both may serve one store for a while, and a repeat may come to either."""
    raw = b'{"b": 2, "a": 1}'
    command = SendSignal(msgspec.Raw(raw), "s", "go", "run")
    assert rules.digest_of(command) == fingerprint("go", raw)


async def test_a_signal_to_nobody_or_to_one_that_has_ended_is_refused(api: Api) -> None:
    await api.refused("POST", "/v1/executions/nobody/signals/go", "not-found", json={})
    run = await started(api)
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    await api.refused("POST", f"/v1/executions/{run}/signals/go", "execution/terminal", json={})


async def test_a_signal_with_start_starts_once(api: Api) -> None:
    start = {"workflow_type": "order", "execution_id": "cart", "task_queue": "flows"}
    first = await api.ok("POST", "/v1/executions:signal-with-start", json={"start": start, "signal": {"name": "add"}})
    second = await api.ok("POST", "/v1/executions:signal-with-start", json={"start": start, "signal": {"name": "add"}})
    assert (first["sequence"], second["sequence"]) == (2, 3)
    assert len(await tasks(api)) == 1
    said = await api.ok("POST", "/v1/executions", json=start)
    assert said["created"] is False


async def test_a_signal_with_start_says_whom_and_where(api: Api) -> None:
    body = {"start": {"workflow_type": "order", "task_queue": "flows"}, "signal": {"name": "add"}}
    await api.refused("POST", "/v1/executions:signal-with-start", "request/invalid", json=body)
    body["start"] |= {"execution_id": "one", "queue": "others"}
    problem = await api.refused("POST", "/v1/executions:signal-with-start", "request/invalid", json=body)
    assert problem["errors"][0]["pointer"] == "/start/queue"
    body["start"] |= {"queue": "flows", "start": {"required_capabilities": ["workflow:order"]}}
    problem = await api.refused("POST", "/v1/executions:signal-with-start", "request/invalid", json=body)
    assert problem["errors"][0]["pointer"] == "/start/start/required_capabilities"


async def test_a_workflow_signals_another_in_one_commit(api: Api) -> None:
    one, two = await started(api), await started(api)
    task = next(task for task in await tasks(api) if task["execution_id"] == one)
    said = {"type": "SignalExternal", "seq": 1, "execution_id": two, "name": "go", "payload": 7}
    await submit(api, task, said, said)
    assert (await api.events(one))[-1]["kind"] == "signal.sent"
    (got,) = [event for event in await api.events(two) if event["kind"] == "signal.received"]
    assert got["body"]["payload"] == 7
    assert got["body"]["from"] == one


async def test_a_signal_to_a_workflow_that_cannot_be_told_is_told_to_the_sender(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    told = await submit(api, task, {"type": "SignalExternal", "seq": 1, "execution_id": "nobody", "name": "go"})
    (next_task,) = await tasks(api)
    assert next_task["task_id"] == told["task_id"]
    assert next_task["history"][-1]["body"]["reason"] == "not found"


async def test_a_workflow_is_told_though_somebody_used_the_id_that_its_signal_would_have(api: Api) -> None:
    """An id may be chosen freely, and an execution's may be used again once it was removed: neither stops a sender."""
    one, two = await started(api), await started(api)
    taken = f"{one}/1"
    await api.ok("POST", f"/v1/executions/{two}/signals/go", json={"signal_id": taken, "payload": 6})
    task = next(task for task in await tasks(api) if task["execution_id"] == one)
    await submit(api, task, {"type": "SignalExternal", "seq": 1, "execution_id": two, "name": "go", "payload": 7})
    assert (await api.events(one))[-1]["kind"] == "signal.sent"
    got = [event["body"]["payload"] for event in await api.events(two) if event["kind"] == "signal.received"]
    assert got == [6, 7]
    again = await api.ok("POST", f"/v1/executions/{two}/signals/go", json={"signal_id": taken, "payload": 6})
    assert again["created"] is False


async def test_a_workflow_whose_log_is_full_cannot_be_told_and_holds_up_no_sender(api: Api) -> None:
    one, two = await started(api), await started(api)
    await api.ok("POST", f"/v1/executions/{two}/events", json={"events": [{"kind": "a"}] * 8})
    limits = {"limits": {"events_per_execution": 9}}
    assert (await api.admin.patch(f"/v1/tenants/{api.tenant}", json=limits)).status_code == 200
    task = next(task for task in await tasks(api) if task["execution_id"] == one)
    note = {"type": "RecordSideEffect", "seq": 1, "name": "n", "value": 1}
    await submit(api, task, {"type": "SignalExternal", "seq": 1, "execution_id": two, "name": "go"}, note)
    *_, failed, noted = await api.events(one)
    assert (failed["kind"], failed["body"]["reason"]) == ("signal.failed", "limit/events-per-execution")
    assert noted["kind"] == "side_effect.recorded"
    assert (await api.ok("GET", f"/v1/executions/{two}/events:latest"))["sequence"] == 9
