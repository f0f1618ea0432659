"""Examples of schedules, for the contract."""

from service.http.examples import AT, Example

CHANGED = {"schedule_id": "nightly", "paused": False, "next_at": AT + 3_600_000, "revision": 2, "created": False}
SPEC = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}
ACTION = {"workflow_type": "report", "task_queue": "flows"}
LISTED = {
    "schedule_id": "nightly",
    "namespace": "main",
    "spec": SPEC,
    "action": ACTION | {"input": None, "search_attributes": None, "memo": None},
    "overlap": "skip",
    "catch_up_ms": 86_400_000,
    "paused": False,
    "note": None,
    "next_at": AT + 3_600_000,
    "runs": 7,
    "missed": 0,
    "skipped": 1,
    "refusal": None,
    "revision": 9,
    "created_at": AT,
    "updated_at": AT,
}
RUN = {
    "execution_id": "nightly.20260701T003000000Z",
    "nominal_at": AT,
    "status": "completed",
    "started_at": AT + 12,
    "ended_at": AT + 4_000,
    "latest_id": "nightly.20260701T003000000Z",
}
EXAMPLES = [
    Example(
        "createSchedule",
        {"schedule_id": "nightly", "spec": SPEC, "action": ACTION},
        CHANGED | {"revision": 1, "created": True},
    ),
    Example("listSchedules", None, {"items": [LISTED], "next_cursor": None}),
    Example("getSchedule", None, LISTED | {"last_runs": [RUN]}),
    Example("changeSchedule", {"spec": SPEC | {"jitter_ms": 60_000}, "overlap": "buffer_one"}, CHANGED),
    Example("deleteSchedule", None, {"schedule_id": "nightly"}),
    Example("pauseSchedule", {"note": "the ledger is closed"}, CHANGED | {"paused": True, "next_at": None}),
    Example("resumeSchedule", {"note": "open again"}, CHANGED),
    Example(
        "triggerSchedule",
        {"overlap": "allow_all"},
        {"schedule_id": "nightly", "execution_id": "nightly.0197c2f0-7c00-7000-8000-00000000000a", "status": "running"},
    ),
    Example("backfillSchedule", {"from": AT - 86_400_000, "to": AT}, {"schedule_id": "nightly", "occurrences": 1}),
    Example("nextTimes", None, {"items": [{"nominal_at": AT + 3_600_000, "starts_at": AT + 3_612_000}]}),
]
