"""Commands and replies of children."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from service.executions.model import Attributes, Execution
from service.kernel.command import PATH
from service.kernel.ids import Id, Name
from service.kernel.json import fingerprint
from service.kernel.raw import ABSENT
from service.kernel.tables import Wanted
from service.runs.model import Command, Run, Seq
from service.work.model import Attempts, Retry, Span

Policy = Literal["terminate", "request_cancel", "abandon"]
"""What becomes of the child when its parent ends or is asked to stop."""


class StartChildWorkflow(Command, frozen=True):
    """Start a child. Without `execution_id` its id follows from the parent's and `seq`; without `task_queue` it runs on
    the parent's."""

    kind = "child"
    starts = True
    seq: Seq
    workflow_type: Name
    execution_id: Id | None = None
    task_queue: Name | None = None
    input: msgspec.Raw = ABSENT
    parent_close_policy: Policy = "terminate"
    search_attributes: Attributes = msgspec.field(default_factory=dict)
    memo: msgspec.Raw = ABSENT
    execution_timeout_ms: Span | None = None
    run_timeout_ms: Span | None = None
    task_timeout_ms: Span | None = None
    workflow_retry: Retry | None = None
    workflow_max_attempts: Attempts | None = None

    def child_id(self, parent_id: str) -> str:
        """The child's id: chosen, or one that follows from what it is, so that a repeat is recognised."""
        return self.execution_id or fingerprint(parent_id, "child", self.seq)

    def wants(self, tenant_id: str, execution_id: str) -> Iterable[Wanted]:
        """The step, and whatever has the child's id."""
        yield from super().wants(tenant_id, execution_id)
        yield Execution, (tenant_id, self.child_id(execution_id))
        yield Run, (tenant_id, self.child_id(execution_id))


COMMANDS = (StartChildWorkflow,)


class StartChild(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start a child of a run from outside its workflow, as the command says."""

    child: StartChildWorkflow
    parent_id: str = PATH


class Child(msgspec.Struct, frozen=True):
    """A child as its parent knows it: `execution_id` is that of its newest run, null when its id was taken; `status` is
    `open`, a word for its end, or `closed` when the parent ended before. `created` is false for a repeat."""

    seq: int
    workflow_type: str
    execution_id: str | None
    status: str
    created: bool = True


class ListedChild(msgspec.Struct, frozen=True):
    """A child in a list, with where its newest run stands."""

    seq: int
    workflow_type: str
    execution_id: str | None
    status: str
    execution_status: str | None
    created_at: int
    ended_at: int | None
