"""The changes that a transition may hold, and its answer."""

from typing import Annotated, Literal

import msgspec

from service.executions.model import Attributes, LabelPatch, Sequence, Status
from service.history.model import AppendedEvent
from service.kernel.command import PATH
from service.kernel.ids import Id, Name
from service.kernel.raw import ABSENT
from service.work.model import Enqueue, Epoch, WorkError


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lease under which a transition is made."""

    work_item_id: Id
    epoch: Epoch


class Append(AppendedEvent, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="append"):
    """Append an event."""


class MoveStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="set_status"):
    """Move the execution to another status."""

    status: Status
    result: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class Replace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="replace_state"):
    """Write the whole state document."""

    state: msgspec.Raw


class Merge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="merge_state"):
    """Apply a JSON merge patch to the state."""

    patch: msgspec.Raw


class AppendTo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="append_state"):
    """Append a value to an array of the state."""

    path: Annotated[str, msgspec.Meta(max_length=1024)]
    value: msgspec.Raw


class EnqueueNext(Enqueue, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="enqueue"):
    """Enqueue work for the execution."""


class Settle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="settle"):
    """Settle the leased item. `retry: false` makes a failure final."""

    outcome: Literal["completed", "failed", "released"]
    result: msgspec.Raw = ABSENT
    error: WorkError | None = None
    retry: bool = True


class CancelItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="cancel_items"):
    """Cancel open items of the execution: those named, or all that match; the leased item itself is left alone, and so
    are workflow tasks. Of an activity its workflow is told."""

    ids: Annotated[list[Id], msgspec.Meta(max_length=1_000)] | None = None
    queue: Name | None = None
    node_id: Name | None = None


class TakeSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="snapshot"):
    """Fold the log, this transition's events included, and keep the result."""


class PatchAttributes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="set_attributes"):
    """Merge attributes and labels; null removes one."""

    attributes: Attributes = {}
    labels: LabelPatch = {}


Change = (
    Append
    | MoveStatus
    | Replace
    | Merge
    | AppendTo
    | EnqueueNext
    | Settle
    | CancelItems
    | TakeSnapshot
    | PatchAttributes
)


class Transition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes of one execution, in order, all or nothing."""

    changes: Annotated[list[Change], msgspec.Meta(min_length=1, max_length=1_000)]
    expected_sequence: Sequence | None = None
    lease: Lease | None = None
    execution_id: str = PATH


class Made(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one change made: the sequences of its events, the item it enqueued, how the leased item was settled."""

    type: str
    first_sequence: int | None = None
    last_sequence: int | None = None
    work_item_id: str | None = None
    created: bool | None = None
    outcome: str | None = None
    ready_at: int | None = None


class Transitioned(msgspec.Struct, frozen=True):
    """Where the execution stands after the transition, and what each change made."""

    execution_id: str
    status: str
    sequence: int
    changes: list[Made]
