"""Each timeout of an activity: when it strikes, what it is called, whether another attempt follows."""

import asyncio
from typing import Any

from tests.activities.hands import activity, claimed, kinds, shown, tell, waiting
from tests.conftest import Api, Clock
from tests.runs.engine import reclaim, ring, tasks

LEASE = {"lease_ms": 3_600_000}


async def last_error(api: Api, run: str) -> tuple[str, str]:
    """The kind of the last event and the type of the error that it tells."""
    event = (await api.events(run))[-1]
    return event["kind"], event["body"]["error"]["type"]


async def errors(api: Api, item: Any) -> list[str]:
    """The types of the errors of the attempts so far."""
    return [error["type"] for error in (await shown(api, item))["errors"]]


async def test_an_activity_that_nobody_takes_in_time_has_timed_out_for_good(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(schedule_to_start_ms=1_000))
    clock.advance(999)
    await ring(api)
    assert await kinds(api, run) == ["activity.scheduled"]
    clock.advance(1)
    await ring(api)
    assert await last_error(api, run) == ("activity.timed_out", "schedule_to_start_timeout")
    assert await claimed(api) == []
    assert len(await tasks(api)) == 1


async def test_an_attempt_that_was_taken_in_time_does_not_miss_its_start(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(schedule_to_start_ms=1_000, initial_interval_ms=5_000))
    (item,) = await claimed(api, **LEASE)
    clock.advance(2_000)
    await ring(api)
    assert await kinds(api, run) == ["activity.scheduled"]
    await tell(api, item, "fail", error={"type": "down"})
    clock.advance(5_999)
    await ring(api)
    assert await kinds(api, run) == ["activity.scheduled"]
    clock.advance(1)
    await ring(api)
    assert await last_error(api, run) == ("activity.timed_out", "schedule_to_start_timeout")


async def test_an_attempt_that_takes_too_long_is_tried_again_and_its_late_answer_refused(
    api: Api, clock: Clock
) -> None:
    run = await waiting(api, activity(start_to_close_ms=1_000, initial_interval_ms=100, max_attempts=2))
    (item,) = await claimed(api, **LEASE)
    clock.advance(999)
    await tell(api, item, "heartbeat")
    await ring(api)
    assert await errors(api, item) == []
    clock.advance(1)
    await ring(api)
    assert await errors(api, item) == ["start_to_close_timeout"]
    body = {"epoch": item["epoch"]}
    await api.refused("POST", f"/v1/activities/{item['id']}/complete", "lease/not-held", json=body)
    assert await kinds(api, run) == ["activity.scheduled"]
    clock.advance(99)
    assert await claimed(api) == []
    clock.advance(1)
    (again,) = await claimed(api, **LEASE)
    assert again["attempt"] == 2
    clock.advance(1_000)
    await ring(api)
    assert await last_error(api, run) == ("activity.timed_out", "start_to_close_timeout")
    await api.refused(
        "POST", f"/v1/activities/{again['id']}/complete", "lease/settled", json={"epoch": again["epoch"]}
    )  # fmt: skip


async def test_an_attempt_that_is_not_heard_of_is_tried_again(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(heartbeat_timeout_ms=1_000, initial_interval_ms=0))
    (item,) = await claimed(api, **LEASE)
    for _ in range(3):
        clock.advance(999)
        await ring(api)
        await tell(api, item, "heartbeat", details="here")
    clock.advance(1_000)
    await ring(api)
    assert await errors(api, item) == ["heartbeat_timeout"]
    (again,) = await claimed(api)
    assert (again["attempt"], again["details"]) == (2, "here")
    await tell(api, again, "complete")
    clock.advance(10_000)
    await ring(api)
    assert await kinds(api, run) == ["activity.scheduled", "activity.completed"]


async def test_a_timeout_may_be_named_as_not_to_be_retried(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(heartbeat_timeout_ms=1_000, non_retryable=["heartbeat_timeout"]))
    await claimed(api, **LEASE)
    clock.advance(1_000)
    await ring(api)
    assert await last_error(api, run) == ("activity.timed_out", "heartbeat_timeout")


async def test_all_attempts_together_have_a_time_of_their_own(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(schedule_to_close_ms=1_000, initial_interval_ms=600, max_attempts=9))
    (item,) = await claimed(api)
    await tell(api, item, "fail", error={"type": "down"})
    clock.advance(600)
    await reclaim(api)
    (item,) = await claimed(api, **LEASE)
    clock.advance(399)
    await ring(api)
    assert await kinds(api, run) == ["activity.scheduled"]
    clock.advance(1)
    await ring(api)
    assert await last_error(api, run) == ("activity.timed_out", "schedule_to_close_timeout")
    assert await errors(api, item) == ["down", "schedule_to_close_timeout"]


async def test_a_lease_that_ran_out_does_not_leave_the_old_deadline_behind(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(start_to_close_ms=5_000, initial_interval_ms=0))
    await claimed(api, lease_ms=1_000)
    clock.advance(1_001)
    await reclaim(api)
    clock.advance(3_000)
    (again,) = await claimed(api, **LEASE)
    clock.advance(4_999)
    await ring(api)
    assert await errors(api, again) == ["lease_expired"]
    await tell(api, again, "complete")
    assert (await kinds(api, run))[-1] == "activity.completed"


async def test_an_activity_claimed_as_plain_work_is_held_to_its_time_too(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(start_to_close_ms=1_000, max_attempts=1))
    assert len(await api.claim("pay", capabilities=["activity:charge"], **LEASE)) == 1
    clock.advance(1_000)
    await ring(api)
    assert await last_error(api, run) == ("activity.timed_out", "start_to_close_timeout")


async def test_a_hundred_deadlines_of_one_run_in_one_moment_all_strike(api: Api, clock: Clock) -> None:
    run = await waiting(api, *(activity(seq, start_to_close_ms=1_000, max_attempts=1) for seq in range(100)))
    assert len(await claimed(api, max_items=100, **LEASE)) == 100
    clock.advance(1_000)
    await ring(api)  # and whatever else is due in the store: how many of these struck, the log tells
    assert (await kinds(api, run)).count("activity.timed_out") == 100
    assert len(await tasks(api)) == 1


async def test_of_a_claim_and_a_deadline_in_the_same_moment_one_wins(api: Api, clock: Clock) -> None:
    asked = (activity(seq, schedule_to_start_ms=1_000, heartbeat_timeout_ms=1_000, max_attempts=1) for seq in range(40))
    run = await waiting(api, *asked)
    clock.advance(1_000)
    *found, _ = await asyncio.gather(*(claimed(api, max_items=2, **LEASE) for _ in range(10)), ring(api))
    won = [item for items in found for item in items]
    assert (await kinds(api, run)).count("activity.timed_out") == 40 - len(won)
    clock.advance(1_000)
    paths = [f"/v1/activities/{item['id']}/heartbeat" for item in won]
    beats = (api.http.post(path, json={"epoch": item["epoch"]}) for path, item in zip(paths, won, strict=True))
    *answers, _ = await asyncio.gather(*beats, ring(api))
    alive = sum(answer.status_code == 200 for answer in answers)
    assert (await kinds(api, run)).count("activity.timed_out") == 40 - alive
