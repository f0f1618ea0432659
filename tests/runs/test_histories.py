"""What a claim of workflow tasks brings of the logs: what the worker has not, and what an answer has room for."""

import contextlib
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from backends.protocol import Tx
from service.runs import histories
from service.runs.histories import Reading, Span
from tests.conftest import Api, new_database, serving
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


async def written_apart(api: Api) -> tuple[str, list[int]]:
    """A run with four events, and when each was written."""
    run = await started(api)
    for count in (1, 2):
        api.clock.advance(1_000)
        await grown(api, run, count)
    return run, [event["at"] for event in await api.events(run)]


async def test_a_worker_that_remembers_another_event_is_handed_the_log_from_its_beginning(api: Api) -> None:
    for since, when, after in ((2, 2, 2), (4, 4, 4), (2, 1, 0), (2, 3, 0), (5, 4, 0), (0, 1, 0)):
        run, at = await written_apart(api)
        (task,) = await tasks(api, since={run: since}, since_at={run: at[when - 1]})
        assert shown(task) == ([1, 2, 3, 4][after:], after, 4, True), (since, when)
        await submit(api, task, {"type": "CompleteWorkflow"})


async def test_the_time_of_an_event_that_is_not_named_is_refused(api: Api) -> None:
    asked = {"worker_id": "w", "queues": ["flows"], "types": ["order"], "since": {"a": 1}, "since_at": {"a": 1, "b": 1}}
    problem = await api.refused("POST", "/v1/workflow-tasks:claim", "request/invalid", json=asked)
    assert [error["pointer"] for error in problem["errors"]] == ["/since_at/b"]


async def copied(url: str, request: pytest.FixtureRequest) -> str:
    """A backup of a store that nobody serves: the URL of another one, with the same in it."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        return f"sqlite:///{shutil.copy(file, file.with_name('backup.db'))}"
    return await new_database(request.getfixturevalue("postgres_server"), url.partition("?")[0].rpartition("/")[2])


async def test_what_was_remembered_of_a_store_that_was_put_back_is_thrown_away(
    fresh_url: str, request: pytest.FixtureRequest
) -> None:
    async with serving(fresh_url) as service:
        api = await service.tenant()
        run = await started(api)
        await grown(api, run, 1)
    backup = await copied(fresh_url, request)

    async def gone_on(url: str, *kinds: str) -> Api:
        """The tenant as it was then, a minute after the last one, with events that the other store has not."""
        service = await stack.enter_async_context(serving(url))
        service.clock.now = api.clock.now = api.clock.now + 60_000
        found = Api(service, api.tenant, api.owner_token)
        await found.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": kind} for kind in kinds]})
        return found

    async with contextlib.AsyncExitStack() as stack:
        last = (await (await gone_on(fresh_url, "lost", "lost")).events(run))[-1]
        (task,) = await tasks(
            await gone_on(backup, "kept", "kept", "kept"),
            since={run: last["sequence"]}, since_at={run: last["at"]},
        )  # fmt: skip
    assert [event["kind"] for event in task["history"]] == ["execution.started", "said", "kept", "kept", "kept"]


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


async def test_an_answer_holds_so_many_bytes_and_says_what_is_left_to_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "HISTORY_BYTES", 1_000)
    monkeypatch.setattr(histories, "PAGE_EVENTS", 4)
    run, other = [await started(api) for _ in range(2)]
    events = [{"kind": "said", "body": "x" * 300}] * 19
    await api.ok("POST", f"/v1/executions/{run}/events", json={"events": events})
    found = {task["execution_id"]: task for task in await tasks(api)}
    brought = [event["sequence"] for event in found[run]["history"]]
    assert brought == list(range(1, len(brought) + 1))
    assert len(brought) == 5, "the event with which they come to so many bytes is the last"
    assert not found[run]["history_complete"]
    rest = await api.ok("GET", f"/v1/executions/{run}/events?after={found[run]['history_sequence']}")
    assert len(brought) + len(rest["items"]) == 20
    assert other in found


async def read_in_pages(*answers: list[Span], size: int = 0) -> tuple[list[list[Span]], Reading]:
    """The pages in which logs are read whose events are of that size."""
    asked: list[list[Span]] = []

    class Store:
        async def all(self, _name: str, *, rows: list[Span]) -> list[Any]:
            asked.append(rows)
            return [
                (*one[:2], at, "k", b"x" * size, 0, "me", None, None, None)
                for one in rows
                for at in range(one.seen + 1, one.until + 1)
            ]

    reading, store = Reading(list(answers)), cast("Tx", Store())
    while reading.page:
        await reading.go_on(store)
    return asked, reading


async def test_long_logs_are_read_page_by_page_and_a_run_once_in_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "PAGE_EVENTS", 4)
    long, short = Span("t", "a", 0, 6), Span("t", "b", 0, 2)
    again, none = Span("t", "b", 1, 2), Span("t", "c", 3, 3)
    pages, reading = await read_in_pages([long, none], [short])
    assert pages == [[Span("t", "a", 0, 4)], [Span("t", "a", 4, 6), short]]
    assert [len(reading.logs[span]) for span in (long, none, short)] == [6, 0, 2]
    assert (await read_in_pages([short], [again], [short]))[0] == [[short], [again]]
    assert (await read_in_pages([none]))[0] == []


async def test_a_log_is_read_no_further_once_nobody_who_asks_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "PAGE_EVENTS", 2)
    monkeypatch.setattr(histories, "HISTORY_BYTES", 25)
    long, other = Span("t", "a", 0, 10), Span("t", "b", 0, 2)
    pages, reading = await read_in_pages([long, other], [other], size=10)
    assert pages == [[Span("t", "a", 0, 2)], [Span("t", "a", 2, 4)], [other]]
    assert [len(reading.logs[span]) for span in (long, other)] == [3, 2]
