"""Rows, commands and replies of executions, and the status machine."""

from typing import Annotated, Literal

import msgspec

from service.definitions.model import Version
from service.kernel.command import PATH
from service.kernel.ids import Id, Name
from service.kernel.raw import ABSENT
from service.kernel.states import Machine
from service.work.model import Attempts, Enqueue, Retry, Span

ENDED = frozenset({"completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded"})
STATUS = Machine(
    "execution",
    {
        "pending": frozenset({"running", "cancelled", "terminated"}),
        "running": frozenset({"paused", *ENDED}),
        "paused": frozenset({"running", "cancelled", "terminated", "failed"}),
        **{status: frozenset() for status in ENDED},
    },
)
OPEN = ("pending", "running", "paused")
EVENT_OF = {status: f"execution.{status}" for status in ENDED - {"limit_exceeded"}}
Status = Literal[
    "pending", "running", "paused", "completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded"
]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Value = Annotated[str, msgspec.Meta(max_length=512)] | int | bool | None
NAMES_MAX = 64
"""Labels of an execution, and attributes, at most."""
Labels = Annotated[dict[Name, Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=NAMES_MAX)]
LabelPatch = Annotated[
    dict[Name, Annotated[str, msgspec.Meta(max_length=256)] | None], msgspec.Meta(max_length=NAMES_MAX)
]
Attributes = Annotated[dict[Name, Value], msgspec.Meta(max_length=NAMES_MAX)]
ShownLabels = Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": dict[str, str]})]
ShownAttributes = Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": dict[str, Value]})]

OF_ITEM = "execution_of_item"
"""The execution that a work item belongs to, asked for by (tenant, item)."""
FACETS = "facets_of_execution"
"""The labels and attributes of an execution, asked for by (tenant, execution)."""
NAMESPACE = "namespace_by_name"
"""A namespace other than `main`, asked for by (tenant, name): who enters one asks for it with everything else."""


def channel_of_end(tenant_id: str, execution_id: str) -> str:
    """The channel of an execution's end: the events before it wake nobody who waits for that."""
    return f"end/{tenant_id}/{execution_id}"


class Execution(msgspec.Struct, frozen=True):
    """The head of an execution: what a decision needs. `result` and `error` are set by the decision that ends it.

    `segment` is 1 for a run, which workflow code drives, else 0. `unfolded_bytes` counts the event bodies after
    `snapshot_sequence`.
    """

    tenant_id: str
    id: str
    namespace: str
    workflow_id: str
    version: str | None
    status: str
    queue: str | None
    parent_id: str | None
    segment: int
    sequence: int
    snapshot_sequence: int
    snapshot_events: int
    snapshot_bytes: int
    snapshot_keep: int
    unfolded_bytes: int
    open_items: int
    digest: str
    created_at: int
    started_at: int | None
    updated_at: int
    completed_at: int | None
    result: bytes | None = None
    error: bytes | None = None


class NewExecution(Execution, frozen=True):
    """An execution as it is first written."""

    labels: bytes | None = None
    attributes: bytes | None = None


class Attributed(msgspec.Struct, frozen=True):
    """The labels and attributes of an execution, apart from its head because they change rarely."""

    tenant_id: str
    id: str
    labels: bytes | None
    attributes: bytes | None


class State(msgspec.Struct, frozen=True):
    """An execution's state document; `sequence` is the event that wrote it."""

    tenant_id: str
    execution_id: str
    state: bytes
    sequence: int


class Facet(msgspec.Struct, frozen=True):
    """One label or attribute, in a form that lists can filter by."""

    tenant_id: str
    execution_id: str
    family: str
    name: str
    text_value: str | None
    number_value: int | None


class FirstItem(Enqueue, frozen=True, forbid_unknown_fields=True):
    """The first work item of an execution. Without a `queue` it goes to that of the start node, or to `default`."""

    queue: Name | None = None  # type: ignore[assignment]


class StartExecution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start a run. With `start` the first work item is enqueued too, filled in from the definition's start node.

    With `task_queue` workflow code drives it: `workflow_type` (another word for `workflow_id`) says which, a workflow
    task is made, and `search_attributes` (another word for `attributes`), `memo`, timeouts and retries of the whole
    apply.
    """

    workflow_id: Name | None = None
    version: Version | None = None
    execution_id: Id | None = None
    namespace: Name = "main"
    input: msgspec.Raw = ABSENT
    state: msgspec.Raw = ABSENT
    start: FirstItem | None = None
    pending: bool = False
    parent_id: Id | None = None
    queue: Name | None = None
    labels: Labels = {}
    attributes: Attributes = {}
    workflow_type: Name | None = None
    task_queue: Name | None = None
    search_attributes: Attributes = {}
    memo: msgspec.Raw = ABSENT
    execution_timeout_ms: Span | None = None
    run_timeout_ms: Span | None = None
    task_timeout_ms: Span | None = None
    workflow_retry: Retry | None = None
    workflow_max_attempts: Attempts | None = None
    digest: str = PATH

    @property
    def workflow(self) -> str:
        """The workflow's name, once the start has been put in one word."""
        return self.workflow_id or self.workflow_type or ""


class Started(msgspec.Struct, frozen=True):
    """The execution that a start led to; `created` is false when the same start was made before."""

    execution_id: str
    status: str
    version: str | None
    sequence: int
    created: bool
    work_item_id: str | None = None


class SetStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Move an execution to another status; `result` and `error` go with an ending."""

    status: Status
    result: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    reason: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    expected_sequence: Sequence | None = None
    execution_id: str = PATH


class ReplaceState(msgspec.Struct, frozen=True):
    """Write the whole state document."""

    execution_id: str
    state: bytes
    expected_sequence: int | None = None


class MergeState(msgspec.Struct, frozen=True):
    """Apply a JSON merge patch (RFC 7396) to the state."""

    execution_id: str
    patch: bytes
    expected_sequence: int | None = None


class AppendState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Append a value to the array at a JSON pointer of the state, making the array if it is not there."""

    path: Annotated[str, msgspec.Meta(max_length=1024)]
    value: msgspec.Raw
    expected_sequence: Sequence | None = None
    execution_id: str = PATH


class SetAttributes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Merge attributes and labels; null removes one."""

    attributes: Attributes = {}
    labels: LabelPatch = {}
    expected_sequence: Sequence | None = None
    execution_id: str = PATH


class Changed(msgspec.Struct, frozen=True):
    """Where an execution stands after a change."""

    execution_id: str
    status: str
    sequence: int


class ExecutionStarted(msgspec.Struct, frozen=True):
    """Fact: an execution was added with its first event, as the command says."""

    execution: Execution
    command: StartExecution


class Entered(msgspec.Struct, frozen=True):
    """Fact: something is made in a namespace other than `main`; `opens` says that it is an execution."""

    tenant_id: str
    namespace: str
    opens: bool


class ExecutionEnding(msgspec.Struct, frozen=True):
    """Fact: an execution is about to end; what is still open in it must be closed in the same commit."""

    tenant_id: str
    execution_id: str
    status: str


class ExecutionPaused(msgspec.Struct, frozen=True):
    """Fact: an execution was paused; or goes on, if it has `resumed`."""

    execution: Execution
    resumed: bool = False


class ExecutionFinished(msgspec.Struct, frozen=True):
    """Fact: an execution has ended, its last event is appended."""

    execution: Execution
    status: str
    result: bytes | None
    error: bytes | None
