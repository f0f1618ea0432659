"""Rows, commands and replies of the log and its snapshots."""

from typing import Annotated, Any

import msgspec

from service.executions.model import Sequence
from service.kernel.command import PATH
from service.kernel.ids import Name
from service.kernel.raw import ABSENT, shown

KIND_PATTERN = r"^[a-z0-9_.-]{1,128}$(?!\n)"
Kind = Annotated[str, msgspec.Meta(pattern=KIND_PATTERN, description="1–128 of a–z 0–9 _ . -")]
OURS = frozenset(
    f"{family}.{name}"
    for family, names in {
        "execution": "started status_changed completed failed cancelled terminated timed_out",
        "state": "replaced merged appended",
        "attributes": "set",
        "snapshot": "written",
        "work": "enqueued claimed renewed completed failed retry_scheduled lease_expired dead_lettered requeued "
        "cancelled released",
        "activity": "scheduled started completed failed timed_out cancelled",
        "timer": "scheduled fired cancelled",
        "signal": "received sent failed",
        "child": "started completed failed cancelled terminated timed_out limit_exceeded",
        "side_effect": "recorded",
        "memo": "set",
        "workflow": "cancel_requested continued_as_new retry_scheduled reset",
    }.items()
    for name in names.split()
)
"""The kinds that the service itself writes, or may once: replay believes them, so no caller may append them."""

TAIL = "events_since_snapshot"
"""The events of an execution after its latest snapshot, asked for by (tenant, execution)."""
WHOLE = "whole_log"
"""All the events of an execution, asked for by (tenant, execution)."""
LATEST = "latest_snapshots"
"""The snapshots of an execution that are kept, asked for by (tenant, execution)."""


class LoggedEvent(msgspec.Struct, frozen=True):
    """An event as the fold, or a reset, reads it."""

    tenant_id: str
    execution_id: str
    sequence: int
    kind: str
    body: bytes | None
    node_id: str | None
    work_item_id: str | None
    causation_id: str | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """The fold of a log at `sequence`; `body` is a `Fold` as JSON."""

    tenant_id: str
    execution_id: str
    sequence: int
    body: bytes
    created_at: int


class Fold(msgspec.Struct):
    """What a log adds up to: status, state, the nodes that completed (with their outputs) and those still active."""

    sequence: int = 0
    status: str = "pending"
    state: Any = {}
    completed_nodes: dict[str, Any] = {}
    active_nodes: dict[str, list[str]] = {}


class Sealed(Fold):
    """A fold whose outputs are not looked into: what is sent stays as it is, from the log to the snapshot."""

    completed_nodes: dict[str, msgspec.Raw] = {}


class AppendedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event to append; the service gives it its sequence and time."""

    kind: Kind
    body: msgspec.Raw = ABSENT
    node_id: Name | None = None
    causation_id: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class AppendEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Append 1–1,000 events at once. To append under a lease, make a transition."""

    events: Annotated[list[AppendedEvent], msgspec.Meta(min_length=1, max_length=1_000)]
    expected_sequence: Sequence | None = None
    execution_id: str = PATH


class Appended(msgspec.Struct, frozen=True):
    """The sequences that were given out, first to last."""

    execution_id: str
    first_sequence: int
    last_sequence: int


class WriteSnapshot(msgspec.Struct, frozen=True):
    """Fold the log up to `sequence` (default: its end) and keep the result."""

    execution_id: str
    sequence: int | None = None


class SnapshotWritten(msgspec.Struct, frozen=True):
    """Where the snapshot stands."""

    execution_id: str
    snapshot_sequence: int
    sequence: int


class ShownEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as it is answered."""

    sequence: int
    kind: str
    body: msgspec.Raw | None
    at: int
    actor: str
    node_id: str | None = None
    work_item_id: str | None = None
    causation_id: str | None = None


def show_event(row: Any) -> ShownEvent:
    """An event as it is stored, as it is answered."""
    return ShownEvent(row[0], row[1], shown(row[2]), row[3], row[4], row[5], row[6], row[7])
