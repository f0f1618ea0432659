"""Commands and replies of timers."""

from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from service.alarms.model import Alarm
from service.kernel.command import PATH
from service.kernel.tables import Wanted
from service.runs.model import Command, Seq, Step
from service.work.model import YEAR_MS, Moment

Duration = Annotated[int, msgspec.Meta(ge=0, le=10 * YEAR_MS, description="milliseconds, at most ten years")]
ONE_TIME = "give one of fire_at and duration_ms"


def alarm_of(seq: int) -> str:
    """The name of a timer's alarm."""
    return f"timer:{seq}"


class ScheduleTimer(Command, frozen=True):
    """Fire `timer.fired` at `fire_at`, or after `duration_ms`."""

    kind = "timer"
    seq: Seq
    duration_ms: Duration | None = None
    fire_at: Moment | None = None

    def __post_init__(self) -> None:
        if (self.fire_at is None) == (self.duration_ms is None):
            raise ValueError(ONE_TIME)


class CancelTimer(Command, frozen=True):
    """Take a timer back that has not fired; one that has is left alone."""

    seq: Seq

    def wants(self, tenant_id: str, execution_id: str) -> Iterable[Wanted]:
        """The timer's step and its alarm."""
        yield Step, (tenant_id, execution_id, ScheduleTimer.kind, self.seq)
        yield Alarm, (tenant_id, execution_id, alarm_of(self.seq))


COMMANDS = (ScheduleTimer, CancelTimer)


class NewTimer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A timer of a run, set from outside its workflow."""

    kind: ClassVar[str] = ScheduleTimer.kind
    seq: Seq
    duration_ms: Duration | None = None
    fire_at: Moment | None = None
    execution_id: str = PATH


class Timer(msgspec.Struct, frozen=True):
    """A timer as it stands; `created` is false when the same one was set before."""

    execution_id: str
    seq: int
    fire_at: int
    status: str
    created: bool
