"""Rows, commands and replies of schedules."""

import re
from typing import Annotated, Literal

import msgspec

from service.executions.model import Attributes
from service.kernel.command import PATH
from service.kernel.ids import Name
from service.kernel.raw import ABSENT
from service.work.model import YEAR_MS, Moment

OPEN_RUNS = "open_runs_of_schedule"
"""The occurrences of a schedule that run or wait, asked for by (tenant, schedule)."""
RUNS_PAGE = "runs_page_of_schedule"
"""Twenty occurrences of a schedule by their numbers, asked for by (tenant, schedule, number // 20)."""
ALL_RUNS = "runs_of_schedule"
"""What is written down of a schedule's occurrences, asked for by (tenant, schedule)."""
PAGE = 20
KIND = "schedule"
"""The kind of a schedule's alarms: `schedule` rings for the next occurrence."""
FOLLOW = "schedule:follow"
"""The alarm that rings when what waits may start."""
BACKFILL = "schedule:backfill:"
"""An alarm that goes through a range of the past, a page at a time."""

Overlap = Literal["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"]
ScheduleId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,63}$(?!\n)",
        description="1–64 of A–Z a–z 0–9 . _ ~ -, no leading punctuation",
    ),
]
Note = Annotated[str, msgspec.Meta(max_length=1024)] | None
OCCURRENCE = re.compile(r"(.{1,64})\.(?:\d{8}T\d{9}Z|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def owner_of(schedule_id: str) -> str:
    """Whom a schedule's alarms belong to; no execution can be called so."""
    return f"schedule/{schedule_id}"


def schedule_of(execution_id: str) -> str | None:
    """The schedule that an execution's id names, if it has the form of an occurrence's."""
    found = OCCURRENCE.fullmatch(execution_id) if "." in execution_id else None
    return found and found.group(1)


ALARM_LATE_MS = 1_000
"""How late an alarm may ring: an occurrence is not missed by less, whatever its schedule says."""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When occurrences are: a `cron` of five fields in an IANA `time_zone`, or every `every_ms` since the epoch plus
    `offset_ms`; from `start_at` to `end_at`, each up to `jitter_ms` late."""

    cron: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    time_zone: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "UTC"
    every_ms: Annotated[int, msgspec.Meta(ge=1_000, le=10 * YEAR_MS)] | None = None
    offset_ms: Annotated[int, msgspec.Meta(ge=0, le=10 * YEAR_MS)] = 0
    start_at: Moment | None = None
    end_at: Moment | None = None
    jitter_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an occurrence starts."""

    workflow_type: Name
    task_queue: Name
    input: msgspec.Raw = ABSENT
    search_attributes: Attributes = {}
    memo: msgspec.Raw = ABSENT


class Schedule(msgspec.Struct, frozen=True):
    """A schedule; `next_at` is the nominal time of its next occurrence, None when none comes. `missed`
    counts occurrences that came too late, or that a pause or another spec left behind, `skipped` those that met another
    one. `refusal` says why the next one cannot start yet."""

    tenant_id: str
    id: str
    namespace: str
    spec: bytes
    workflow_type: str
    task_queue: str
    input: bytes | None
    attributes: bytes | None
    memo: bytes | None
    overlap: str
    catch_up_ms: int
    paused: int
    note: str | None
    next_at: int | None
    runs: int
    missed: int
    skipped: int
    refusal: str | None
    digest: str
    revision: int
    created_at: int
    updated_at: int


class ScheduleRun(msgspec.Struct, frozen=True):
    """An occurrence: `buffered`, `running`, `skipped`, or the status that its execution ended in. One that goes on in
    other runs is running until the last of them ends; `latest_id` is that one, empty as long as there is no other."""

    tenant_id: str
    schedule_id: str
    execution_id: str
    number: int
    nominal_at: int
    status: str
    started_at: int | None
    ended_at: int | None
    followed: int
    dropped: int
    latest_id: str = ""

    @property
    def current(self) -> str:
        """The run that it has come to."""
        return self.latest_id or self.execution_id


class CreateSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start workflows at times. Occurrences missed by more than `catch_up_ms` (at least a second) are let go."""

    schedule_id: ScheduleId
    spec: Spec
    action: Action
    namespace: Name = "main"
    overlap: Overlap = "skip"
    catch_up_ms: Annotated[int, msgspec.Meta(ge=0, le=YEAR_MS)] = 86_400_000
    paused: bool = False
    note: Note = None


class ChangeSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replace parts of a schedule, each as a whole; what is left out stays."""

    spec: Spec | None = None
    action: Action | None = None
    overlap: Overlap | None = None
    catch_up_ms: Annotated[int, msgspec.Meta(ge=0, le=YEAR_MS)] | None = None
    id: str = PATH


class PauseSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let nothing of its plan come until it is resumed; the note says why. What is `buffered` still starts in its turn.
    One that is paused already takes another note, and is otherwise left as it is."""

    note: Note = None
    id: str = PATH


class ResumeSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Go on with the first occurrence from now. One that is not paused is left as it is, and the note is not taken."""

    note: Note = None
    id: str = PATH


class DeleteSchedule(msgspec.Struct, frozen=True):
    """Take a schedule away; what it has started goes on."""

    id: str


class TriggerSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start now, whatever the time and even when paused, by the schedule's overlap policy or by another."""

    overlap: Overlap | None = None
    id: str = PATH


class BackfillSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start the occurrences of a range of the past that were never started, both ends included."""

    from_: Moment = msgspec.field(name="from")
    to: Moment
    overlap: Overlap = "allow_all"
    id: str = PATH


class ScheduleChanged(msgspec.Struct, frozen=True):
    """Where a schedule stands; `created` is false when it was there before."""

    schedule_id: str
    paused: bool
    next_at: int | None
    revision: int
    created: bool = False


class ScheduleDeleted(msgspec.Struct, frozen=True):
    """The schedule that is gone."""

    schedule_id: str


class Triggered(msgspec.Struct, frozen=True):
    """What became of it: `running`, `buffered` or `skipped`."""

    schedule_id: str
    execution_id: str
    status: str


class Backfilling(msgspec.Struct, frozen=True):
    """How many occurrences lie in the range; those that never started do so from now on, in order."""

    schedule_id: str
    occurrences: int


class Range(msgspec.Struct, frozen=True):
    """What an alarm of a backfill still has to go through, and by which policy."""

    from_: int
    to: int
    overlap: str
