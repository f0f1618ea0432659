"""Commands and replies of chains."""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from service.executions.model import Attributed, Execution
from service.kernel.command import PATH
from service.kernel.ids import Name
from service.kernel.json import fingerprint
from service.kernel.raw import ABSENT
from service.kernel.tables import Wanted
from service.runs.model import Command, Reason, Run

RESET_MAX = 10_000
"""How long a log may be for a reset, which reads and copies it in one commit."""

CARRY_MAX = 10_000
"""How far a log may have grown past what its workflow has seen for the run to go on in another: the signals among those
events go with it, in one commit."""


def next_id(execution_id: str) -> str:
    """The id of the run that follows a run."""
    return fingerprint(execution_id, "next")


class ContinueAsNew(Command, frozen=True):
    """End the run and go on in a new one with this input, perhaps as another workflow type or on another queue."""

    starts = True
    input: msgspec.Raw = ABSENT
    workflow_type: Name | None = None
    task_queue: Name | None = None

    def wants(self, tenant_id: str, execution_id: str) -> Iterable[Wanted]:
        """What is carried over, and whatever has the next run's id."""
        yield Attributed, (tenant_id, execution_id)
        yield Execution, (tenant_id, next_id(execution_id))
        yield Run, (tenant_id, next_id(execution_id))


COMMANDS = (ContinueAsNew,)


class ContinueRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End a run and go on in a new one, from outside its workflow."""

    input: msgspec.Raw = ABSENT
    workflow_type: Name | None = None
    task_queue: Name | None = None
    execution_id: str = PATH


class ResetRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Begin a new run from the log up to `to_sequence`. To reset to the same point twice, say another reason."""

    to_sequence: Annotated[int, msgspec.Meta(ge=1, le=RESET_MAX)]
    reason: Reason = None
    execution_id: str = PATH


class Next(msgspec.Struct, frozen=True):
    """The run that another goes on in; `created` is false when the same was asked before."""

    execution_id: str
    next_id: str
    created: bool = True


class Outcome(msgspec.Struct, frozen=True):
    """How an execution has `ended`, or stands. Of one that went on in others (continued as new, tried again, reset) it
    is that of the last, whose id `execution_id` is."""

    execution_id: str
    status: str
    ended: bool
    result: msgspec.Raw | None
    error: msgspec.Raw | None
    sequence: int
    completed_at: int | None


class ListedRun(msgspec.Struct, frozen=True):
    """A run of a chain."""

    place: int
    execution_id: str
    workflow_type: str
    status: str
    attempt: int
    previous_id: str | None
    next_id: str | None
    sequence: int
    created_at: int
    completed_at: int | None
