"""Schedules: each occurrence once, in order, whatever overlaps, is missed, crashes or races."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from service.alarms.sweeps import ring_due
from service.schedules.times import stamp
from tests.conftest import Api, Service, serving
from tests.namespaces.test_deletion import count
from tests.runs.engine import ring, submit, tasks

MINUTE = 60_000
ACTION = {"workflow_type": "order", "task_queue": "flows", "input": {"n": 1}}


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    """A tenant whose schedules end with its test: in all that follow they would have hours to catch up on."""
    found = await service.tenant()
    yield found
    for one in (await found.ok("GET", "/v1/schedules"))["items"]:
        await found.ok("DELETE", f"/v1/schedules/{one['schedule_id']}")


async def planned(api: Api, **body: Any) -> Any:
    """A schedule `plan`, every minute on the minute; the clock stands half a minute before its first occurrence."""
    api.clock.advance(MINUTE - api.clock.now % MINUTE + MINUTE // 2)
    said = {"schedule_id": "plan", "spec": {"every_ms": MINUTE}, "action": ACTION} | body
    return await api.ok("POST", "/v1/schedules", json=said)


async def passing(api: Api, ms: int = MINUTE) -> None:
    """Time passes, and what is due rings; what that made due rings too."""
    api.clock.advance(ms)
    await ring(api)
    await ring(api)


async def shown(api: Api) -> Any:
    """The schedule as it stands."""
    return await api.ok("GET", "/v1/schedules/plan")


async def statuses(api: Api) -> list[str]:
    """What became of the occurrences, the oldest first."""
    return [run["status"] for run in reversed((await shown(api))["last_runs"])]


async def end_one(api: Api) -> str:
    """A worker completes the oldest run; its id."""
    task = (await tasks(api, max_items=1))[0]
    await submit(api, task, {"type": "CompleteWorkflow", "result": 1})
    return str(task["execution_id"])


async def test_an_occurrence_starts_at_its_time_and_is_named_by_it(api: Api) -> None:
    made = await planned(api)
    await ring(api)
    assert (await shown(api))["last_runs"] == []
    await passing(api)
    (run,) = (await shown(api))["last_runs"]
    assert run["nominal_at"] == made["next_at"]
    assert run["execution_id"] == f"plan.{stamp(made['next_at'])}"
    execution = await api.ok("GET", f"/v1/executions/{run['execution_id']}")
    assert (execution["input"], execution["labels"]) == ({"n": 1}, {"schedule": "plan"})
    assert (await shown(api))["next_at"] == made["next_at"] + MINUTE


async def test_an_outcome_is_kept(api: Api) -> None:
    await planned(api)
    await passing(api)
    await end_one(api)
    assert await statuses(api) == ["completed"]


async def test_a_schedule_created_again_is_the_same_and_another_is_refused(api: Api) -> None:
    body = {"schedule_id": "plan", "spec": {"cron": "0 3 * * *"}, "action": ACTION}
    assert (await api.ok("POST", "/v1/schedules", json=body))["created"] is True
    assert (await api.ok("POST", "/v1/schedules", json=body))["created"] is False
    await api.refused("POST", "/v1/schedules", "schedule/conflict", json=body | {"overlap": "allow_all"})


async def test_a_wrong_cron_and_a_wrong_zone_are_refused_with_their_places(api: Api) -> None:
    spec = {"cron": "0 24 * * *", "time_zone": "Mars/Base"}
    body = {"schedule_id": "plan", "spec": spec, "action": ACTION}
    problem = await api.refused("POST", "/v1/schedules", "request/invalid", json=body)
    assert [error["pointer"] for error in problem["errors"]] == ["/spec/cron", "/spec/time_zone"]
    await planned(api)
    await api.refused("PATCH", "/v1/schedules/plan", "request/invalid", json={"spec": spec})


@pytest.mark.parametrize(
    ("overlap", "found"),
    [
        ("skip", ["running", "skipped", "skipped"]),
        ("buffer_one", ["running", "buffered", "skipped"]),
        ("buffer_all", ["running", "buffered", "buffered"]),
        ("allow_all", ["running", "running", "running"]),
        ("terminate_other", ["terminated", "terminated", "running"]),
        ("cancel_other", ["cancelled", "cancelled", "running"]),  # no worker had them: cancelled at once
    ],
)
async def test_what_overlaps_goes_by_the_policy(api: Api, overlap: str, found: list[str]) -> None:
    await planned(api, overlap=overlap)
    for _ in range(3):
        await passing(api)
    assert await statuses(api) == found
    assert (await shown(api))["skipped"] == found.count("skipped")


async def test_what_waits_starts_when_the_one_before_has_ended_in_order(api: Api) -> None:
    await planned(api, overlap="buffer_all")
    for _ in range(3):
        await passing(api)
    ended = []
    await api.ok("POST", "/v1/schedules/plan/pause")
    for _ in range(3):
        ended.append(await end_one(api))
        await passing(api, 1)
    assert ended == sorted(ended)
    assert await statuses(api) == ["completed"] * 3


async def test_the_newest_waits_for_those_that_were_asked_to_stop(api: Api) -> None:
    await planned(api, overlap="cancel_other")
    await passing(api)
    (task,) = await tasks(api, lease_ms=600_000)
    await passing(api)
    await passing(api)
    assert await statuses(api) == ["running", "skipped", "buffered"]
    assert (await shown(api))["skipped"] == 1
    await submit(api, task, {"type": "CancelWorkflow"})
    await passing(api, 1)
    assert await statuses(api) == ["cancelled", "skipped", "running"]


async def test_a_pause_lets_nothing_start_and_a_resumption_counts_from_then(api: Api) -> None:
    await planned(api, overlap="allow_all")
    said = await api.ok("POST", "/v1/schedules/plan/pause", json={"note": "moving house"})
    assert (said["paused"], said["next_at"]) == (True, None)
    await passing(api, 5 * MINUTE)
    now = await shown(api)
    assert (now["note"], now["last_runs"]) == ("moving house", [])
    said = await api.ok("POST", "/v1/schedules/plan/resume")
    assert said["next_at"] == api.clock.now // MINUTE * MINUTE + MINUTE
    assert await api.ok("POST", "/v1/schedules/plan/resume", json={"note": "again"}) == said
    assert (await shown(api))["note"] is None, "it was not paused: nothing has changed"
    await passing(api)
    assert await statuses(api) == ["running"]


async def test_a_pause_again_changes_nothing_but_takes_another_note(api: Api) -> None:
    await planned(api, overlap="allow_all")
    said = await api.ok("POST", "/v1/schedules/plan/pause", json={"note": "moving house"})
    before, lines = await shown(api), await audited(api)
    for body in ({"note": "moving house"}, {}):
        assert await api.ok("POST", "/v1/schedules/plan/pause", json=body) == said
        assert (await shown(api), await audited(api)) == (before, lines)
    told = await api.ok("POST", "/v1/schedules/plan/pause", json={"note": "still moving"})
    now = await shown(api)
    assert (told["paused"], now["note"], now["revision"]) == (True, "still moving", before["revision"] + 1)
    assert await audited(api) == [*lines, {"note": "still moving"}]


async def audited(api: Api) -> list[Any]:
    """What the audit log tells of pauses, oldest first."""
    lines = (await api.ok("GET", "/v1/audit"))["items"]
    return [line["detail"] for line in lines if line["action"] == "schedule.paused"]


LEAVING = [
    ("POST", "/v1/schedules/plan/pause", {}),
    ("PATCH", "/v1/schedules/plan", {"spec": {"every_ms": 10 * MINUTE}}),
]
"""What makes a schedule leave its times behind."""


@pytest.mark.parametrize(("method", "path", "body"), LEAVING, ids=["pause", "another spec"])
async def test_all_that_was_due_starts_before_a_schedule_leaves_it_behind(
    api: Api, method: str, path: str, body: dict[str, Any]
) -> None:
    await planned(api, overlap="terminate_other")
    api.clock.advance(3 * MINUTE)
    await api.ok(method, path, json=body)
    assert await statuses(api) == ["terminated", "terminated", "running"]
    assert (await shown(api))["missed"] == 0


@pytest.mark.parametrize(("method", "path", "body"), LEAVING, ids=["pause", "another spec"])
async def test_what_is_due_past_a_page_when_a_schedule_leaves_it_behind_is_counted_as_missed(
    api: Api, method: str, path: str, body: dict[str, Any]
) -> None:
    await planned(api, overlap="allow_all")
    api.clock.advance(40 * MINUTE)
    await api.ok(method, path, json=body)
    now = await shown(api)
    assert (now["runs"], now["missed"]) == (32, 8)


@pytest.mark.parametrize(("method", "path", "body"), LEAVING, ids=["pause", "another spec"])
async def test_what_waits_for_its_jitter_when_a_schedule_leaves_it_behind_is_counted_as_missed(
    api: Api, method: str, path: str, body: dict[str, Any]
) -> None:
    await planned(api, spec={"every_ms": 10 * MINUTE, "jitter_ms": 9 * MINUTE})
    (coming,) = (await api.ok("GET", "/v1/schedules/plan/next?n=1"))["items"]
    await passing(api, coming["starts_at"] - api.clock.now - 1)
    await api.ok(method, path, json=body)
    now = await shown(api)
    assert (now["last_runs"], now["missed"]) == ([], 1)


async def test_another_spec_moves_the_next_time_at_once(api: Api) -> None:
    await planned(api)
    said = await api.ok("PATCH", "/v1/schedules/plan", json={"spec": {"every_ms": 10 * MINUTE}})
    assert said["next_at"] == api.clock.now // (10 * MINUTE) * 10 * MINUTE + 10 * MINUTE
    await passing(api, said["next_at"] - api.clock.now - 1)
    assert await statuses(api) == []
    await passing(api, 1)
    assert await statuses(api) == ["running"]


async def test_what_was_missed_within_the_window_is_made_up_for_in_order(api: Api) -> None:
    made = await planned(api, overlap="allow_all", catch_up_ms=3 * MINUTE)
    await passing(api, 10 * MINUTE)
    now = await shown(api)
    runs = list(reversed(now["last_runs"]))
    first = made["next_at"]
    assert [run["nominal_at"] for run in runs] == [first + n * MINUTE for n in range(7, 10)]
    assert now["missed"] == 7


@pytest.mark.parametrize(("late", "found"), [(1_000, (["running"], 0)), (1_001, ([], 1))])
async def test_a_schedule_that_makes_up_for_nothing_starts_what_its_alarm_is_a_little_late_for(
    api: Api, late: int, found: tuple[list[str], int]
) -> None:
    made = await planned(api, catch_up_ms=0)
    api.clock.advance(made["next_at"] - api.clock.now + late)
    await ring(api)
    assert (await statuses(api), (await shown(api))["missed"]) == found


async def test_many_missed_ones_start_a_page_at_a_commit(api: Api) -> None:
    await planned(api, overlap="allow_all")
    await passing(api, 70 * MINUTE)
    await passing(api, 1)
    assert (await shown(api))["runs"] == 70
    assert len(await statuses(api)) == 20


async def test_only_the_last_occurrences_are_kept_and_open_ones(api: Api) -> None:
    await planned(api, overlap="allow_all")
    await passing(api, 3 * MINUTE)
    open_one = (await shown(api))["last_runs"][0]["execution_id"]
    for _ in range(80):
        made = await api.ok("POST", "/v1/schedules/plan/trigger")
        await api.ok("POST", f"/v1/executions/{made['execution_id']}/terminate", json={})

    async def counted(tx: Any) -> int:
        rows = await tx.all("runs_of_schedules", rows=[(api.tenant, "plan")])
        return len(rows)

    backend = api.service.services.backend
    assert await backend.read(counted) <= 40 + 3
    await api.ok("POST", f"/v1/executions/{open_one}/terminate", json={})
    assert await backend.read(counted) <= 40 + 2


async def test_of_many_that_waited_and_give_way_only_the_last_are_kept(api: Api) -> None:
    await planned(api, overlap="buffer_all", catch_up_ms=100 * MINUTE)
    await passing(api, 50 * MINUTE)
    await passing(api, 0)
    assert (await shown(api))["runs"] == 50
    await api.ok("PATCH", "/v1/schedules/plan", json={"overlap": "cancel_other"})
    await passing(api)
    kept = f"schedule_runs WHERE tenant_id = '{api.tenant}'"
    assert await count(api.service, kept) == 31, "all from the twentieth on"
    assert await statuses(api) == ["skipped"] * 19 + ["running"]


async def test_a_trigger_starts_now_even_when_paused(api: Api) -> None:
    await planned(api, paused=True)
    said = await api.ok("POST", "/v1/schedules/plan/trigger")
    assert said["status"] == "running"
    again = await api.ok("POST", "/v1/schedules/plan/trigger")
    assert again["status"] == "skipped"
    by_force = await api.ok("POST", "/v1/schedules/plan/trigger", json={"overlap": "allow_all"})
    assert by_force["status"] == "running"


async def test_a_backfill_starts_what_never_started_and_nothing_twice(api: Api) -> None:
    made = await planned(api, overlap="allow_all")
    await passing(api, 2 * MINUTE)
    first = made["next_at"]
    asked = {"from": first - 40 * MINUTE, "to": first + MINUTE}
    said = await api.ok("POST", "/v1/schedules/plan/backfill", json=asked)
    assert said["occurrences"] == 42
    await passing(api, 1)
    assert (await shown(api))["runs"] == 42
    await api.ok("POST", "/v1/schedules/plan/backfill", json=asked)
    await passing(api, 1)
    assert (await shown(api))["runs"] == 42
    many = {"from": 0, "to": first}
    await api.refused("POST", "/v1/schedules/plan/backfill", "request/invalid", json=many)


async def test_a_backfill_starts_what_was_skipped(api: Api) -> None:
    made = await planned(api, overlap="skip")
    await passing(api)
    await passing(api)
    assert await statuses(api) == ["running", "skipped"]
    asked = {"from": made["next_at"], "to": made["next_at"] + MINUTE, "overlap": "allow_all"}
    await api.ok("POST", "/v1/schedules/plan/backfill", json=asked)
    await passing(api, 1)
    assert await statuses(api) == ["running", "running"]
    assert len(await tasks(api)) == 2


async def change_tenant(api: Api, **body: Any) -> None:
    """The administrator changes the tenant."""
    path = f"/v1/tenants/{api.tenant}"
    version = (await api.admin.get(path)).json()["version"]
    answer = await api.admin.patch(path, json=body, headers={"if-match": f'"{version}"'})
    assert answer.status_code == 200, answer.text


async def test_a_refused_start_is_tried_again_and_nothing_is_lost(api: Api) -> None:
    await planned(api, overlap="allow_all")
    await change_tenant(api, limits={"running_executions": 1})
    await passing(api, 2 * MINUTE)
    now = await shown(api)
    assert now["runs"] == 1
    assert now["refusal"].startswith("limit/running-executions")
    await end_one(api)
    await passing(api, 15_000)
    now = await shown(api)
    assert (now["runs"], now["missed"], now["refusal"]) == (2, 0, None)


async def test_what_waits_is_tried_again_where_its_start_is_refused(api: Api) -> None:
    await planned(api, overlap="buffer_one")
    other = (await api.start())["execution_id"]
    for _ in range(2):
        await passing(api)
    await change_tenant(api, limits={"running_executions": 1})
    await end_one(api)
    await passing(api, 1)
    assert await statuses(api) == ["completed", "buffered"]
    assert (await shown(api))["refusal"].startswith("limit/running-executions")
    await api.ok("POST", f"/v1/executions/{other}/status", json={"status": "completed"})
    await passing(api, 15_000)
    assert (await statuses(api), (await shown(api))["refusal"]) == (["completed", "running"], None)


async def test_a_suspended_tenant_starts_nothing_until_it_is_back(api: Api) -> None:
    await planned(api)
    await change_tenant(api, status="suspended")
    await passing(api)
    assert await statuses(api) == []
    await change_tenant(api, status="active")
    await passing(api, MINUTE // 4)
    assert await statuses(api) == ["running"]


async def test_the_next_times_are_told_with_their_jitter(api: Api) -> None:
    spec = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "jitter_ms": 10_000}
    await planned(api, spec=spec)
    items = (await api.ok("GET", "/v1/schedules/plan/next?n=3"))["items"]
    assert len(items) == 3
    assert all(0 <= item["starts_at"] - item["nominal_at"] < 10_000 for item in items)
    await passing(api, items[0]["starts_at"] - api.clock.now - 1)
    assert await statuses(api) == []
    await passing(api, 1)
    (run,) = (await shown(api))["last_runs"]
    assert run["nominal_at"] == items[0]["nominal_at"]


async def test_what_waits_for_its_jitter_is_still_to_come_and_holds_up_what_follows(api: Api) -> None:
    await planned(api, spec={"every_ms": MINUTE, "jitter_ms": 10 * MINUTE}, overlap="allow_all")
    items = (await api.ok("GET", "/v1/schedules/plan/next?n=5"))["items"]
    for item, after in zip(items, [*items[1:], None], strict=True):
        if item["starts_at"] > api.clock.now:
            await passing(api, item["starts_at"] - api.clock.now - 1)
            assert (await api.ok("GET", "/v1/schedules/plan/next?n=1"))["items"] == [item]
            await passing(api, 1)
        assert item["nominal_at"] in [run["nominal_at"] for run in (await shown(api))["last_runs"]]
        assert after is None or after["starts_at"] >= item["starts_at"]


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("Europe/Berlin", ["20250330T010000000Z", "20251026T003000000Z"]),  # at 03:00, and at the first 02:30
        ("America/New_York", ["20250309T070000000Z", "20251102T073000000Z"]),
        ("Australia/Lord_Howe", ["20250405T160000000Z", "20251004T153000000Z"]),
    ],
)
async def test_a_daily_half_past_two_starts_once_on_both_days_when_clocks_change(
    api: Api, zone: str, days: list[str]
) -> None:
    await planned(api, spec={"cron": "30 2 * * *", "time_zone": zone})
    for day in days:
        middle = int(datetime.strptime(day, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC).timestamp()) * 1_000
        asked = {"from": middle - 12 * 60 * MINUTE, "to": middle + 12 * 60 * MINUTE}
        assert (await api.ok("POST", "/v1/schedules/plan/backfill", json=asked))["occurrences"] == 1
    await passing(api, 1)
    runs = (await shown(api))["last_runs"]
    assert sorted(run["execution_id"].removeprefix("plan.") for run in runs) == days


async def test_a_deleted_schedule_starts_nothing_and_its_executions_stay(api: Api) -> None:
    await planned(api)
    await passing(api)
    (run,) = (await shown(api))["last_runs"]
    await api.ok("DELETE", "/v1/schedules/plan")
    assert await count(api.service, f"alarms WHERE tenant_id = '{api.tenant}'") == 0
    await passing(api)
    await api.refused("GET", "/v1/schedules/plan", "not-found")
    await end_one(api)
    assert (await api.ok("GET", f"/v1/executions/{run['execution_id']}"))["status"] == "completed"


async def test_a_schedule_made_again_starts_no_occurrence_twice(api: Api) -> None:
    made = await planned(api)
    await passing(api)
    await api.ok("DELETE", "/v1/schedules/plan")
    body = {"schedule_id": "plan", "spec": {"every_ms": MINUTE}, "action": ACTION}
    await api.ok("POST", "/v1/schedules", json=body)
    await api.ok("POST", "/v1/schedules/plan/backfill", json={"from": made["next_at"], "to": made["next_at"]})
    await passing(api, 1)
    assert (await shown(api))["runs"] == 0


async def test_schedules_are_listed_and_filtered(api: Api) -> None:
    await planned(api)
    await api.ok("POST", "/v1/namespaces", json={"name": "side"})
    await planned(api, schedule_id="other", namespace="side")
    items = (await api.ok("GET", "/v1/schedules"))["items"]
    assert {item["schedule_id"] for item in items} == {"plan", "other"}
    items = (await api.ok("GET", "/v1/schedules?namespace=side"))["items"]
    assert [item["schedule_id"] for item in items] == ["other"]


async def test_schedulers_that_race_on_one_store_start_each_occurrence_once(fresh_url: str, engine: str) -> None:
    """Two services on Postgres; a file of SQLite's has one service, whose sweeps race."""
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(serving(fresh_url))
        two = one if engine == "sqlite" else await stack.enter_async_context(serving(fresh_url))
        api = await one.tenant()
        await planned(api, overlap="allow_all")
        for _ in range(5):
            one.clock.advance(4 * MINUTE)
            two.clock.now = one.clock.now
            pair = [ring_due(each.services.backend, each.services.kernel) for each in (one, two) * 2]
            await asyncio.gather(*pair)
        now = await shown(api)
        assert (now["runs"], now["missed"], now["skipped"]) == (20, 0, 0)
        listed = await api.ok("GET", "/v1/executions?limit=1000")
        assert len({item["execution_id"] for item in listed["items"]}) == len(listed["items"]) == 20


async def test_what_waits_gives_way_to_an_execution_that_somebody_started_under_its_id(api: Api) -> None:
    """It is skipped, as it would have been at its time, and those behind it start."""
    made = await planned(api, overlap="buffer_all")
    await passing(api, 3 * MINUTE)
    assert await statuses(api) == ["running", "buffered", "buffered"]
    second, third = (f"plan.{stamp(made['next_at'] + n * MINUTE)}" for n in (1, 2))
    await api.start(execution_id=second)
    await end_one(api)
    await ring(api)
    await ring(api)
    assert await statuses(api) == ["completed", "skipped", "running"]
    assert (await shown(api))["refusal"] is None
    assert (await api.ok("GET", f"/v1/executions/{third}"))["status"] == "running"
