"""What a claim of workflow tasks brings of the logs: what the worker has not, and what an answer has room for."""

from typing import Any

import pytest

from service.runs import histories
from service.runs.histories import Span, pages
from tests.conftest import Api
from tests.runs.engine import started, submit, tasks


async def grown(api: Api, run: str, count: int) -> int:
    """Where a run's log ends once so many events were appended."""
    events = [{"kind": "said", "body": number} for number in range(count)]
    made = await api.ok("POST", f"/v1/executions/{run}/events", json={"events": events})
    return int(made["last_sequence"])


async def signalled(api: Api, run: str) -> None:
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={})


async def test_a_worker_that_has_the_log_is_handed_what_came_after(api: Api) -> None:
    run = await started(api)
    await submit(api, (await tasks(api))[0])
    last = await grown(api, run, 3)
    await signalled(api, run)
    (task,) = await tasks(api, since={run: last})
    assert [(event["sequence"], event["kind"]) for event in task["history"]] == [(last + 1, "signal.received")]
    assert (task["history_sequence"], task["history_complete"]) == (last + 1, True)


async def test_each_of_several_tasks_brings_the_log_of_its_own_run(api: Api) -> None:
    runs = [await started(api, input=number) for number in range(5)]
    for number, run in enumerate(runs):
        await grown(api, run, number + 1)
    found = {task["execution_id"]: task for task in await tasks(api, since={runs[4]: 3})}
    assert found.keys() == set(runs)
    for number, run in enumerate(runs):
        first = 4 if number == 4 else 1
        assert [event["sequence"] for event in found[run]["history"]] == list(range(first, number + 3))
        assert found[run]["history_complete"]
    assert found[runs[0]]["history"][0]["body"]["input"] == 0


async def test_an_answer_holds_so_many_events_and_says_what_is_left_to_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "HISTORY_MAX", 5)
    runs = [await started(api) for _ in range(3)]
    for run in runs:
        await grown(api, run, 3)
    found = sorted(await tasks(api), key=lambda task: runs.index(task["execution_id"]))
    brought = [[event["sequence"] for event in task["history"]] for task in found]
    assert sorted(map(len, brought), reverse=True) == [4, 1, 0]
    for task, sequences in zip(found, brought, strict=True):
        assert task["history_complete"] is (len(sequences) == 4)
        rest = await api.ok("GET", f"/v1/executions/{task['execution_id']}/events?after={task['history_sequence']}")
        assert [*sequences, *(event["sequence"] for event in rest["items"])] == [1, 2, 3, 4]


def shown(task: Any) -> tuple[Any, ...]:
    """Which part of its log a task brings, and whether that is all of the rest."""
    sequences = [event["sequence"] for event in task["history"]]
    return sequences, task["history_after"], task["history_sequence"], task["history_complete"]


async def test_a_worker_that_remembers_more_than_there_is_is_handed_the_log_from_its_beginning(api: Api) -> None:
    run = await started(api)
    end = await grown(api, run, 2)
    (task,) = await tasks(api, since={run: end + 1})
    assert shown(task) == ([1, 2, 3], 0, 3, True)
    await submit(api, task)
    assert await api.ok("GET", f"/v1/executions/{run}")


async def test_a_worker_that_has_all_of_the_log_is_handed_nothing_of_it(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api, since={run: await grown(api, run, 2)})
    assert shown(task) == ([], 3, 3, True)


async def test_a_log_from_its_beginning_that_finds_no_room_says_that_it_begins_anew(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "HISTORY_MAX", 3)
    runs = [await started(api) for _ in range(2)]
    for run in runs:
        await grown(api, run, 2)
    found = await tasks(api, since=dict.fromkeys(runs, 99))
    assert [shown(task) for task in found] == [([1, 2, 3], 0, 3, True), ([], 0, 0, False)]


def test_long_logs_are_read_page_by_page_and_a_run_once_in_a_page() -> None:
    long, short = Span("t", "a", 0, histories.HISTORY_MAX), Span("t", "b", 0, 2)
    again, none = Span("t", "b", 1, 2), Span("t", "c", 3, 3)
    assert list(pages([[long, none], [short]])) == [[long], [short]]
    assert list(pages([[short], [again], [short]])) == [[short], [again]]
    assert list(pages([[none]])) == []
