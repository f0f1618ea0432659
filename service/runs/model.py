"""Rows, commands, replies and facts of runs."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import msgspec

from service.executions.model import Attributes, Execution, StartExecution
from service.kernel.command import PATH
from service.kernel.ids import Id, Name
from service.kernel.raw import ABSENT
from service.kernel.tables import Wanted
from service.work.model import Delay, Epoch, WorkError

OF_TASK = "run_of_task"
"""The run that a work item belongs to, asked for by (tenant, item)."""
OPEN_STEPS = "open_steps_of_run"
"""What a run has asked for and not yet got, asked for by (tenant, execution)."""
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Seen = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""How far a log was seen: the sequence of the last event, 0 before the first."""
Reason = Annotated[str, msgspec.Meta(max_length=1024)] | None
COMMANDS_MAX, TOGETHER_MAX = 2_000, 10_000
"""Commands of a submission, all of which are decided and written in one commit while others wait; and of all
submissions of a request, which have their turns."""


class Run(msgspec.Struct, frozen=True):
    """What an execution has beyond its head when workflow code drives it.

    `task_id` is its open workflow task; `woken_at` the sequence of the last event that the workflow must see; `submits`
    counts the tasks that were settled, or withdrawn from who held them, from 1 on where the run takes up what was done
    in another, and `seen` is how far the last of those settled had seen the log; `open_steps` and `alarms` count what
    must be closed when it ends. `first_id`, `previous_id` and `next_id` link the runs of a chain, `place` is its place
    there, from 1; `options` is what the start said for later runs (JSON).
    """

    tenant_id: str
    id: str
    task_id: str | None
    woken_at: int
    submits: int
    seen: int
    open_steps: int
    alarms: int
    cancel_requested_at: int | None
    first_id: str
    previous_id: str | None
    next_id: str | None
    place: int
    attempt: int
    parent_seq: int | None
    close_policy: str | None
    options: bytes
    memo: bytes | None


class Step(msgspec.Struct, frozen=True):
    """What a workflow asked for, by its own counter `seq` for things of that `kind`.

    `said` is the command as it came, `digest` tells it from another; `ref` names what was made for it (an item, an
    execution), `detail` is its capability's business (JSON). `status` is `open` until it has ended, in a word of the
    capability's.
    """

    tenant_id: str
    execution_id: str
    kind: str
    seq: int
    name: str
    digest: str
    said: bytes
    status: str
    ref: str | None
    detail: bytes | None
    created_at: int
    ended_at: int | None


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """What a workflow asks for in a submission. Every command of every capability extends it.

    A command with a counter `seq` names the `kind` of step that it makes.
    """

    kind: ClassVar[str] = ""
    starts: ClassVar[bool] = False
    """Whether it may start an execution: what limits those is counted in turn."""

    def wants(self, tenant_id: str, execution_id: str) -> Iterable[Wanted]:
        """The rows that the command needs beyond the run: those of all commands are loaded together."""
        if self.kind:
            yield Step, (tenant_id, execution_id, self.kind, self.seq)  # type: ignore[attr-defined]

    def shelves(self) -> Iterable[tuple[str, str]]:
        """The shelves that it puts something on, as (task queue, what is required): loaded with the rows above."""
        return ()


class CompleteWorkflow(Command, frozen=True):
    """End the run well."""

    result: msgspec.Raw = ABSENT


class FailWorkflow(Command, frozen=True):
    """End the run badly. With a retry policy the workflow is tried again, unless `retryable` is false."""

    starts = True
    error: WorkError
    retryable: bool = True


class CancelWorkflow(Command, frozen=True):
    """End the run as cancelled: the answer to a request to cancel."""


class RecordSideEffect(Command, frozen=True):
    """Keep a value that replay must not make again; null is a value."""

    kind = "side_effect"
    seq: Seq
    name: Name
    value: msgspec.Raw


class RecordSnapshot(Command, frozen=True):
    """Keep the workflow's state, and a snapshot of the log at this point."""

    state: msgspec.Raw


class UpsertSearchAttributes(Command, frozen=True):
    """Merge search attributes; null removes one."""

    patch: Attributes


class SetMemo(Command, frozen=True):
    """Replace the memo: a note of the workflow's that lists do not filter by."""

    memo: msgspec.Raw


COMMANDS = (
    CompleteWorkflow, FailWorkflow, CancelWorkflow, RecordSideEffect, RecordSnapshot, UpsertSearchAttributes, SetMemo,
)  # fmt: skip


class Ordered(msgspec.Struct, frozen=True):
    """Fact, told under the command's type: the workflow of this execution asks for something."""

    tenant_id: str
    execution_id: str
    command: Any


class SubmitCommands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settle a workflow task: what the workflow asks for, having seen the log up to `history_sequence`."""

    epoch: Epoch
    history_sequence: Seen
    commands: list[Any] = []
    id: str = PATH


class Submitted(msgspec.Struct, frozen=True):
    """Where the run stands after a submission; `task_id` is the next task, if there is something to see already."""

    execution_id: str
    status: str
    sequence: int
    task_id: str | None


Places = Annotated[dict[Id, Seen], msgspec.Meta(max_length=1_000)]
"""A number for each of some executions."""


class CancelRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask a run to stop. With `force_after_ms` it is cancelled by then even if its worker never answers."""

    reason: Reason = None
    force_after_ms: Delay | None = None
    execution_id: str = PATH


class TerminateRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End an execution at once, whoever works on it."""

    reason: Reason = None
    execution_id: str = PATH


class CompleteRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End an execution well, from outside: as a workflow does by `CompleteWorkflow`."""

    result: msgspec.Raw = ABSENT
    execution_id: str = PATH


class FailRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End an execution badly, from outside: as a workflow does by `FailWorkflow`, and tried again where it would be."""

    error: WorkError
    retryable: bool = True
    execution_id: str = PATH


class Link(msgspec.Struct, frozen=True):
    """What ties a run that the service starts to others: its place in a chain, or its parent's step; `expires_at` ends
    the chain, and `delay_ms` puts the first task off. `worked_on` says that the run takes up what workers have done in
    the one before."""

    first_id: str | None = None
    previous_id: str | None = None
    place: int = 1
    attempt: int = 1
    parent_seq: int | None = None
    close_policy: str | None = None
    expires_at: int | None = None
    delay_ms: int = 0
    worked_on: bool = False


class StartLinked(StartExecution, frozen=True):
    """A start that the service itself makes: of a child, of the next run of a chain, of what a schedule starts."""

    link: Link = Link()


class Failing(msgspec.Struct, frozen=True):
    """Fact: a workflow fails by its own command; it is moved to `failed` afterwards, unless a listener ended it."""

    execution: Execution
    command: FailWorkflow
    error: bytes


class Continued(msgspec.Struct, frozen=True):
    """Fact: a run has ended and goes on in another, which was just started."""

    tenant_id: str
    execution_id: str
    next_id: str


class SignalCarried(msgspec.Struct, frozen=True):
    """Fact: a signal of the run before has gone on to this one, as the last event of its log; `body` is the event's."""

    execution: Execution
    body: bytes | None


class CancelRequested(msgspec.Struct, frozen=True):
    """Fact: a run was asked to stop; whatever is pending for it is withdrawn."""

    tenant_id: str
    execution_id: str
    reason: str | None


class Closed(msgspec.Struct, frozen=True):
    """Fact: a run has ended, and these steps of it were open; told once, with all of them."""

    execution: Execution
    steps: list[Step]
