"""How events are appended and snapshots written: pure decisions over the rows of a batch."""

from collections.abc import Iterable, Sequence

import msgspec

from service.errors import StateError, invalid
from service.executions.model import Execution, State
from service.executions.rules import need_open, state_of, weight
from service.history.fold import OF_STATE, folded_on
from service.history.model import (
    LATEST,
    OURS,
    TAIL,
    WHOLE,
    Appended,
    AppendedEvent,
    AppendEvents,
    LoggedEvent,
    Sealed,
    Snapshot,
    SnapshotWritten,
    WriteSnapshot,
)
from service.kernel.command import Rule
from service.kernel.events import Logged, append
from service.kernel.limits import refuse_past
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, stored
from service.kernel.tables import Wanted
from service.kernel.view import NewEvent, View

FOLDED_MAX = 16_777_216
"""How much a fold of what is not the end of a log goes through: bytes of state, as `weight` counts them."""


def append_keys(command: AppendEvents | WriteSnapshot, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution."""
    yield Execution, (who.tenant_id, command.execution_id)


def append_events(view: View, command: AppendEvents) -> Appended:
    """Append in order, all or none."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    refuse_ours(command.events)
    before = execution.sequence
    for event in command.events:
        execution = append_one(view, execution, event, event.node_id)
    return Appended(execution.id, before + 1, execution.sequence)


def refuse_ours(events: Iterable[AppendedEvent]) -> None:
    """422 for kinds that are the service's: a caller who could forge them could make replay disagree."""
    wrong = [(f"/events/{index}/kind", ours(event.kind)) for index, event in enumerate(events) if event.kind in OURS]
    if wrong:
        raise invalid(wrong)


def ours(kind: str) -> str:
    """What is said of such a kind."""
    return f"{kind!r} is reserved for the service; choose another kind"


def append_one(
    view: View, execution: Execution, event: AppendedEvent, node_id: str | None, work_item_id: str | None = None
) -> Execution:
    """Append one event of the caller's."""
    refuse_past(view, "payload_bytes", len(event.body))
    return append(
        view, execution, event.kind, stored(event.body), node_id=node_id, work_item_id=work_item_id,
        causation_id=event.causation_id,
    )  # fmt: skip


def write_due_snapshots(view: View, _fact: Logged) -> None:
    """Keep the fold of every log that this command made grow by the definition's number of events, or of bytes.

    The log itself does not grow by it: a snapshot that nobody asked for must not move a sequence that somebody expects.
    """
    grown = {(event.tenant_id, event.execution_id) for event in view.events}
    due = [one for key in grown if (one := view.get(Execution, *key)) is not None and is_due(one)]
    if due:
        view.expect(*((group, (one.tenant_id, one.id)) for one in due for group in (LATEST, TAIL, State)))
    for execution in due:
        keep_fold(view, execution, execution.sequence)
        view.put(folded(view, execution, execution.sequence))


def is_due(execution: Execution) -> bool:
    """Whether the log has grown enough since the newest snapshot; a policy of 0 events, or of 0 bytes, is never due."""
    by_events = 0 < execution.snapshot_events <= execution.sequence - execution.snapshot_sequence
    return by_events or 0 < execution.snapshot_bytes <= execution.unfolded_bytes


def write_snapshot(view: View, command: WriteSnapshot) -> SnapshotWritten:
    """Fold the log up to a sequence and keep the result; one that is kept already stays, and nothing is written."""
    execution = need_open(view, command.execution_id)
    at = execution.sequence if command.sequence is None else command.sequence
    if at > execution.sequence:
        raise StateError(
            "snapshot/ahead",
            f"The log ends at {execution.sequence}; a snapshot at {at} would be ahead of it.",
            current_sequence=execution.sequence,
        )
    if at < 1:
        raise invalid([("/sequence", "a log begins at sequence 1; there is nothing to fold before it")])
    execution = snapshot(view, execution, at)
    return SnapshotWritten(execution.id, at, execution.sequence)


def snapshot(view: View, execution: Execution, at: int | None = None) -> Execution:
    """The fold up to `at` (default: everything so far, this transaction's events included), kept, and told of."""
    at = execution.sequence if at is None else at
    size = keep_fold(view, execution, at)
    if size is None:
        return execution
    execution = folded(view, execution, at)
    return append(view, execution, "snapshot.written", encoded({"sequence": at, "bytes": size}))


def folded(view: View, execution: Execution, at: int) -> Execution:
    """The execution after a snapshot at `at`: what the next one is counted from. One below the newest moves nothing."""
    if at <= execution.snapshot_sequence:
        return execution
    rest = log_between(view, execution, at, execution.sequence) if at < execution.sequence else ()
    left = sum(len(event.body or b"") for event in rest)
    return msgspec.structs.replace(execution, snapshot_sequence=at, unfolded_bytes=left)


def keep_fold(view: View, execution: Execution, at: int) -> int | None:
    """Store the fold up to `at`; its size, or None when it was kept already. The newest stay, as many as the policy
    says; one that is written below them takes nobody's place, and stays until the next is written."""
    kept = view.group(Snapshot, LATEST, execution.tenant_id, execution.id)
    if any(one.sequence == at for one in kept):
        return None
    below = [one for one in kept if one.sequence < at]
    start = msgspec.json.decode(below[-1].body, type=Sealed) if below else Sealed()
    log = log_between(view, execution, start.sequence, at)
    if at == execution.sequence:  # what it comes to is the state that is kept: no need to go through all that made it
        found = folded_on(start, log, OF_STATE, sealed=True)
        found.state = msgspec.Raw(state_of(view, execution))
    else:
        found = folded_on(start, affordable(log), sealed=True)
    body = encoded(found)
    view.add(Snapshot(execution.tenant_id, execution.id, at, body, view.now))
    newest = sum(one.sequence > at for one in kept) < execution.snapshot_keep
    for old in kept[: max(0, len(kept) + newest - execution.snapshot_keep)]:
        view.remove(old)
    return len(body)


def affordable(log: Sequence[LoggedEvent]) -> list[LoggedEvent]:
    """The log without the states that a later one replaced; 422 if to go through what is left takes too long."""
    last = max((at for at, event in enumerate(log) if event.kind == "state.replaced"), default=0)
    needed = [event for at, event in enumerate(log) if at >= last or event.kind not in OF_STATE]
    if sum(weight(event.body or b"") for event in needed if event.kind in OF_STATE) > FOLDED_MAX:
        said = f"up to there the log changes more than {FOLDED_MAX} bytes of state since the snapshot before"
        raise invalid([("/sequence", f"{said}; keep one of the log as it is now")])
    return needed


def log_between(view: View, execution: Execution, after: int, upto: int) -> Sequence[LoggedEvent]:
    """The events after `after` up to `upto`: those that are stored, and those that this batch has appended."""
    own = last_of(view, execution, after, upto)
    if len(own) == upto - after:
        return own
    fresh = {event.sequence: logged(event) for event in view.appended(execution.tenant_id, execution.id)}
    found: dict[int, LoggedEvent] = {}
    for group in (TAIL, WHOLE):
        stored_ones = view.group(LoggedEvent, group, execution.tenant_id, execution.id)
        found = {event.sequence: event for event in stored_ones} | fresh
        if all(sequence in found for sequence in range(after + 1, upto + 1)):
            break
    return [found[sequence] for sequence in range(after + 1, upto + 1)]


def last_of(view: View, execution: Execution, after: int, upto: int) -> list[LoggedEvent]:
    """Those events between that this decision itself has appended; what it appended before is not gone through."""
    at, found = (execution.tenant_id, execution.id), list[LoggedEvent]()
    for event in reversed(view.events):
        if (event.tenant_id, event.execution_id) == at:
            if event.sequence <= after:
                break
            if event.sequence <= upto:
                found.append(logged(event))
    return found[::-1]


def logged(event: NewEvent) -> LoggedEvent:
    """An event about to be written, as the fold reads it."""
    return LoggedEvent(
        event.tenant_id, event.execution_id, event.sequence, event.kind, event.body, event.node_id, event.work_item_id,
        event.causation_id,
    )  # fmt: skip


RULES = [Rule(AppendEvents, append_events, append_keys), Rule(WriteSnapshot, write_snapshot, append_keys)]
LISTENERS = [(Logged, write_due_snapshots)]
