"""Schedules over HTTP."""

from itertools import islice
from typing import Annotated, Any

import msgspec

from backends.protocol import Row, Tx
from service.errors import not_found
from service.executions.model import ShownAttributes
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command
from service.http.lists import Page, listed, where
from service.kernel.filters import Field, Vocabulary
from service.kernel.raw import shown
from service.schedules.model import (
    Backfilling,
    BackfillSchedule,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    PauseSchedule,
    ResumeSchedule,
    ScheduleChanged,
    ScheduleDeleted,
    Spec,
    Triggered,
    TriggerSchedule,
)
from service.schedules.times import jitter, occurrences

VOCABULARY = Vocabulary(
    fields=(
        Field("id", "s.id", "text"),
        Field("namespace", "s.namespace", "text"),
        Field("workflow_type", "s.workflow_type", "text"),
        Field("created_at", "s.created_at", "time"),
    )
)
COUNT = Annotated[int, msgspec.Meta(ge=1, le=100)]
FAR = 2**62


class ShownAction(msgspec.Struct, frozen=True):
    """What an occurrence starts."""

    workflow_type: str
    task_queue: str
    input: msgspec.Raw | None
    search_attributes: ShownAttributes | None
    memo: msgspec.Raw | None


class ListedSchedule(msgspec.Struct, frozen=True):
    """A schedule in a list. `missed` counts occurrences that came too late, `skipped` those that met another one;
    `refusal` says why the next one cannot start yet."""

    schedule_id: str
    namespace: str
    spec: Spec
    action: ShownAction
    overlap: str
    catch_up_ms: int
    paused: bool
    note: str | None
    next_at: int | None
    runs: int
    missed: int
    skipped: int
    refusal: str | None
    revision: int
    created_at: int
    updated_at: int


class ShownRun(msgspec.Struct, frozen=True):
    """An occurrence: `buffered`, `running`, `skipped`, or the status that its execution ended in. `latest_id` is the
    run that it has come to, if it went on in others."""

    execution_id: str
    nominal_at: int
    status: str
    started_at: int | None
    ended_at: int | None
    latest_id: str


class ShownSchedule(ListedSchedule, frozen=True):
    """A schedule with its last twenty occurrences, the newest first."""

    last_runs: list[ShownRun]


class NextTime(msgspec.Struct, frozen=True):
    """An occurrence to come: its nominal time, and when it starts, which jitter makes later."""

    nominal_at: int
    starts_at: int


class NextTimes(msgspec.Struct, frozen=True):
    """The occurrences to come, were the schedule never paused."""

    items: list[NextTime]


def in_list(row: Row) -> ListedSchedule:
    """A row of a list."""
    spec = msgspec.json.decode(row[2], type=Spec)
    action = ShownAction(row[3], row[4], shown(row[5]), shown(row[6]), shown(row[7]))
    return ListedSchedule(row[0], row[1], spec, action, row[8], row[9], bool(row[10]), *row[11:20])


async def read_one(call: Call) -> tuple[Row, list[Row], int]:
    """The schedule's row, its last occurrences, and the time."""

    async def read(tx: Tx) -> tuple[Row | None, list[Row], int]:
        tenant, id = call.who.tenant_id, call.path["id"]
        row = await tx.one("read_schedule", tenant_id=tenant, id=id)
        return row, await tx.all("read_schedule_runs", tenant_id=tenant, id=id), tx.now

    row, rows, now = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("schedule", call.path["id"])
    return row, rows, now


async def get(call: Call) -> ShownSchedule:
    """One schedule."""
    row, rows, _ = await read_one(call)
    runs = [ShownRun(*one) for one in rows]
    return ShownSchedule(*msgspec.structs.astuple(in_list(row)), runs)  # type: ignore[call-arg]  # the same, and these


async def list_all(call: Call) -> Page:
    """Schedules by age, newest first."""
    condition = where(call.query["filter"], VOCABULARY, namespace=call.query["namespace"])
    return await listed(
        call,
        "list_schedules",
        (FAR, ""),
        ("at", "id"),
        in_list,
        lambda row: (row[18], row[0]),
        where=condition,
        scan=True,
        bulky=True,
        tenant_id=call.who.tenant_id,
    )


async def next_times(call: Call) -> NextTimes:
    """The occurrences to come."""
    row, _, now = await read_one(call)
    spec = msgspec.json.decode(row[2], type=Spec)
    found: list[NextTime] = []
    starts_at = 0
    for nominal in islice(occurrences(spec, before_next(row[0], spec, row[12], now)), call.query["n"]):
        starts_at = max(starts_at, nominal + jitter(row[0], spec, nominal))  # in order: none overtakes another
        found.append(NextTime(nominal, starts_at))
    return NextTimes(found)


def before_next(id: str, spec: Spec, next_at: int | None, now: int) -> int:
    """After when to look for what is to come: now, or just before what waits for its jitter."""
    waits = next_at is not None and next_at <= now < next_at + jitter(id, spec, next_at)
    return next_at - 1 if next_at is not None and waits else now


async def delete(call: Call) -> Any:
    """Take a schedule away."""
    return await call.run(DeleteSchedule(call.path["id"]))


PAYLOAD = ("limit/payload-bytes",)
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/schedules",
        "createSchedule",
        "execution.write",
        "Start workflows at times",
        command(CreateSchedule),
        reply=ScheduleChanged,
        body=CreateSchedule,
        created=True,
        errors=("schedule/conflict", "auth/queue", "namespace/unknown", "namespace/deleting", *PAYLOAD),
    ),
    Endpoint(
        "GET",
        "/v1/schedules",
        "listSchedules",
        "read",
        "List schedules",
        list_all,
        reply=Page,
        item=ListedSchedule,
        writes=False,
        query=(
            LIMIT,
            CURSOR,
            Query("filter", str, None, "A filter: `workflow_type = 'report'`."),
            Query("namespace", str, None, "Only this namespace."),
        ),
    ),
    Endpoint(
        "GET",
        "/v1/schedules/{id}",
        "getSchedule",
        "read",
        "A schedule and what it started last",
        get,
        reply=ShownSchedule,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "PATCH",
        "/v1/schedules/{id}",
        "changeSchedule",
        "execution.write",
        "Change a schedule",
        command(ChangeSchedule, id="id"),
        reply=ScheduleChanged,
        body=ChangeSchedule,
        errors=("not-found", "auth/queue", *PAYLOAD),
    ),
    Endpoint(
        "DELETE",
        "/v1/schedules/{id}",
        "deleteSchedule",
        "execution.write",
        "Take a schedule away",
        delete,
        reply=ScheduleDeleted,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/schedules/{id}/pause",
        "pauseSchedule",
        "execution.write",
        "Pause a schedule",
        command(PauseSchedule, id="id"),
        reply=ScheduleChanged,
        body=PauseSchedule,
        bare=True,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/schedules/{id}/resume",
        "resumeSchedule",
        "execution.write",
        "Let a schedule go on",
        command(ResumeSchedule, id="id"),
        reply=ScheduleChanged,
        body=ResumeSchedule,
        bare=True,
        errors=("not-found", "auth/queue"),
    ),
    Endpoint(
        "POST",
        "/v1/schedules/{id}/trigger",
        "triggerSchedule",
        "execution.write",
        "Start what a schedule starts, now",
        command(TriggerSchedule, id="id"),
        reply=Triggered,
        body=TriggerSchedule,
        bare=True,
        errors=("not-found", "auth/queue", "namespace/deleting", "limit/running-executions", *PAYLOAD),
    ),
    Endpoint(
        "POST",
        "/v1/schedules/{id}/backfill",
        "backfillSchedule",
        "execution.write",
        "Make up for a range of the past",
        command(BackfillSchedule, id="id"),
        reply=Backfilling,
        body=BackfillSchedule,
        errors=("not-found", "auth/queue"),
    ),
    Endpoint(
        "GET",
        "/v1/schedules/{id}/next",
        "nextTimes",
        "read",
        "When a schedule's next occurrences are",
        next_times,
        reply=NextTimes,
        writes=False,
        query=(Query("n", COUNT, 10, "How many times to answer."),),
        errors=("not-found",),
    ),
]
