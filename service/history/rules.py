"""How events are appended and snapshots written: pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec

from service.errors import StateError
from service.executions.model import Execution
from service.executions.rules import need, need_open
from service.history.fold import fold
from service.history.model import (
    LATEST,
    SNAPSHOTS_KEPT,
    TAIL,
    Appended,
    AppendedEvent,
    AppendEvents,
    Fold,
    LoggedEvent,
    Snapshot,
    SnapshotWritten,
    WriteSnapshot,
)
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.limits import refuse_past
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, stored
from service.kernel.tables import Wanted
from service.kernel.view import NewEvent, View


def append_keys(command: AppendEvents | WriteSnapshot, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution."""
    yield Execution, (who.tenant_id, command.execution_id)


def append_events(view: View, command: AppendEvents) -> Appended:
    """Append in order, all or none."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    before = execution.sequence
    for event in command.events:
        execution = append_one(view, execution, event)
    return Appended(execution.id, before + 1, execution.sequence)


def append_one(view: View, execution: Execution, event: AppendedEvent, node_id: str | None = None) -> Execution:
    """Append one event of the caller's; a snapshot follows when the log has grown enough since the last."""
    refuse_past(view, "payload_bytes", len(event.body))
    return append(
        view,
        execution,
        event.kind,
        stored(event.body),
        node_id=event.node_id or node_id,
        causation_id=event.causation_id,
    )


def due_snapshot(view: View, execution: Execution) -> Execution:
    """Write a snapshot if the definition's policy says that it is time (0 events: never)."""
    every = execution.snapshot_events
    if not every or execution.sequence - execution.snapshot_sequence < every:
        return execution
    return snapshot(view, execution)


def write_snapshot(view: View, command: WriteSnapshot) -> SnapshotWritten:
    """Fold now and keep it; only the end of the log can be folded inside a transaction."""
    execution = need_open(view, command.execution_id)
    if command.sequence is not None and command.sequence > execution.sequence:
        raise StateError(
            "snapshot/ahead",
            f"The log ends at {execution.sequence}; a snapshot at {command.sequence} would be ahead of it.",
            current_sequence=execution.sequence,
        )
    at = command.sequence if command.sequence is not None else execution.sequence
    execution = snapshot(view, execution, at)
    return SnapshotWritten(execution.id, at, execution.sequence)


def snapshot(view: View, execution: Execution, at: int | None = None) -> Execution:
    """The fold up to `at` (default: everything so far, this transaction's events included), stored, the oldest dropped."""
    at = execution.sequence if at is None else at
    kept = view.group(Snapshot, LATEST, execution.tenant_id, execution.id)
    below = [one for one in kept if one.sequence <= at]
    start = msgspec.json.decode(below[-1].body, type=Fold) if below else Fold()
    if start.sequence < at:
        events = log_since(view, execution, start.sequence, at)
        start = fold(events, start)
    body = encoded(start)
    if not any(one.sequence == at for one in kept):
        view.add(Snapshot(execution.tenant_id, execution.id, at, body, view.now))
        for old in kept[: max(0, len(kept) + 1 - SNAPSHOTS_KEPT)]:
            view.remove(old)
    execution = msgspec.structs.replace(execution, snapshot_sequence=max(execution.snapshot_sequence, at))
    return append(view, execution, "snapshot.written", encoded({"sequence": at, "bytes": len(body)}))


def log_since(view: View, execution: Execution, after: int, upto: int) -> list[LoggedEvent]:
    """The events after `after`: those that are stored, then those that this batch has appended."""
    stored_ones = view.group(LoggedEvent, TAIL, execution.tenant_id, execution.id)
    fresh = [logged(event) for event in view.appended(execution.tenant_id, execution.id)]
    both = {event.sequence: event for event in (*stored_ones, *fresh)}
    return [both[sequence] for sequence in range(after + 1, upto + 1)]


def logged(event: NewEvent) -> LoggedEvent:
    """An event about to be written, as the fold reads it."""
    return LoggedEvent(
        event.tenant_id, event.execution_id, event.sequence, event.kind, event.body, event.node_id, event.work_item_id
    )


__all__ = ["RULES", "append_one", "due_snapshot", "need", "snapshot"]
RULES = [Rule(AppendEvents, append_events, append_keys), Rule(WriteSnapshot, write_snapshot, append_keys)]
