"""Commands and replies of activities."""

from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from service.alarms.model import Alarm
from service.kernel.command import PATH
from service.kernel.ids import Name
from service.kernel.raw import ABSENT
from service.kernel.tables import Wanted
from service.runs.model import Command, Seq
from service.work.model import (
    BACKOFF_MS_MAX,
    OPEN_ITEMS,
    Attempts,
    CompleteWork,
    Epoch,
    ErrorType,
    FailWork,
    LeaseMs,
    Retry,
    Span,
    WorkItem,
)

KIND = "activity"


def required(name: str) -> str:
    """The capability of workers that can run activities of this name."""
    return f"{KIND}:{name}"


def alarm_of(seq: int) -> str:
    """The name of an activity's alarm."""
    return f"{KIND}:{seq}"


def name_of(node_id: str | None) -> tuple[str, int]:
    """An activity's name and counter, as its item's `node_id` has them: `charge:7`."""
    name, _, seq = (node_id or "").rpartition(":")
    return name, int(seq)


def alarm_key(item: WorkItem) -> tuple[str, str, str]:
    """The key of the alarm of an activity's item."""
    return item.tenant_id, item.execution_id or "", alarm_of(name_of(item.node_id)[1])


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An activity: its name, where it is done, how it is retried, and how long each part of it may take.

    `schedule_to_start_ms`: from when an attempt may be claimed until it is. `start_to_close_ms`: an attempt.
    `heartbeat_timeout_ms`: between two signs of life. `schedule_to_close_ms`: everything, retries included. The delay
    before attempt n+1 is `min(max_interval_ms, initial_interval_ms · backoff_coefficient^(n-1))`.
    """

    seq: Seq
    name: Name
    task_queue: Name
    input: msgspec.Raw = ABSENT
    max_attempts: Attempts = 3
    initial_interval_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 1_000
    backoff_coefficient: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0
    max_interval_ms: Annotated[int, msgspec.Meta(ge=0, le=BACKOFF_MS_MAX)] = 300_000
    non_retryable: Annotated[list[ErrorType], msgspec.Meta(max_length=64)] = []
    start_to_close_ms: Span = 300_000
    schedule_to_start_ms: Span | None = None
    schedule_to_close_ms: Span | None = None
    heartbeat_timeout_ms: Span | None = None

    @property
    def retry(self) -> Retry:
        """The same as work knows it; what the workflow says is what it gets, so there is no jitter."""
        return Retry(
            initial_delay_ms=self.initial_interval_ms,
            coefficient=self.backoff_coefficient,
            max_delay_ms=self.max_interval_ms,
            jitter=False,
            non_retryable=self.non_retryable,
        )


DEFAULTS = {
    field.name: field.default for field in msgspec.structs.fields(Asked) if field.default is not msgspec.NODEFAULT
}


class ScheduleActivity(Asked, Command, frozen=True):
    """Have an activity done."""

    kind = KIND

    def __post_init__(self) -> None:
        """A default that is said is the same as one that is not: both are left out of what is kept and compared."""
        for name, default in DEFAULTS.items():
            if getattr(self, name) == default:
                msgspec.structs.force_setattr(self, name, default)

    def shelves(self) -> Iterable[tuple[str, str]]:
        """Where workers that can run it look."""
        yield self.task_queue, required(self.name)


class CancelActivity(Command, frozen=True):
    """Take an activity back: one that waits is withdrawn, one that is under way is told at its next heartbeat."""

    seq: Seq

    def wants(self, tenant_id: str, execution_id: str) -> Iterable[Wanted]:
        """The activity's step and alarm, and the open items of the run, its own among them."""
        yield from ScheduleActivity(self.seq, "", "").wants(tenant_id, execution_id)
        yield OPEN_ITEMS, (tenant_id, execution_id)
        yield Alarm, (tenant_id, execution_id, alarm_of(self.seq))


COMMANDS = (ScheduleActivity, CancelActivity)


class NewActivity(Asked, frozen=True):
    """An activity of a run, asked for from outside its workflow."""

    kind: ClassVar[str] = KIND
    execution_id: str = PATH


class Scheduled(msgspec.Struct, frozen=True):
    """An activity as its run has it; `created` is false when the same one was asked for before."""

    id: str
    execution_id: str
    seq: int
    name: str
    status: str
    created: bool


class CompleteActivity(CompleteWork, frozen=True, forbid_unknown_fields=True):
    """An activity is done; its workflow is told."""


class FailActivity(FailWork, frozen=True, forbid_unknown_fields=True):
    """An attempt has failed: another one later, or the workflow is told."""


class ActivitySettlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of an attempt: one of `complete` and `fail`."""

    complete: CompleteActivity | None = None
    fail: FailActivity | None = None


class ClaimActivities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for activities of some queues, of names that this worker can run. What `settle` says is done first, each for
    itself, and in the same commit where there is room; if any of it is refused, the answer does not wait."""

    worker_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    queues: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=64)]
    activities: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=256)]
    namespace: Name = "main"
    max_items: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    lease_ms: LeaseMs = 30_000
    settle: Annotated[list[ActivitySettlement], msgspec.Meta(max_length=1_000)] = []


class HeartbeatActivity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sign of life: the lease goes on, and the next attempt is handed the last `details`."""

    epoch: Epoch
    details: msgspec.Raw = ABSENT
    id: str = PATH


class Deadlines(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an activity's alarm keeps: how long its parts may take, when all of it and its attempt must end."""

    start_to_close_ms: int
    schedule_to_start_ms: int | None = None
    heartbeat_ms: int | None = None
    close_at: int | None = None
    ends_at: int | None = None
    silent_at: int | None = None
