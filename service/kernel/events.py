"""Append to an execution's log: dense sequences from 1, given out by whoever holds the execution's row."""

from typing import Any, TypeVar

import msgspec

from service.errors import StateError
from service.kernel.view import NewEvent, View

E = TypeVar("E", bound=msgspec.Struct)


class Logged(msgspec.Struct, frozen=True):
    """Fact: a command that appended events is decided. Told once, whatever the number of events and executions."""


def past(before: Any, most: int) -> StateError:
    """409 for the tenant's limit of events, with how many the execution had `before` what is refused, all of it."""
    current = 0 if before is None else before.sequence
    fewer = "append fewer at once, or " if current < most else ""
    return StateError(
        "limit/events-per-execution",
        f"The execution has {current} events and the tenant's limit is {most}; {fewer}continue in a new execution.",
        limit=most,
        current=current,
    )


def append(
    view: View,
    execution: E,
    kind: str,
    body: bytes | None = None,
    *,
    node_id: str | None = None,
    work_item_id: str | None = None,
    causation_id: str | None = None,
    closing: bool = False,
) -> E:
    """Append one event; the execution with its next sequence, already written to the view.

    `execution` is any row with `tenant_id`, `id`, `sequence`, `unfolded_bytes` and `updated_at`. Refuses past the
    tenant's limit of events, except for a `closing` event: an execution at its limit must still be able to end.
    """
    row: Any = execution
    sequence = row.sequence + 1
    most = view.standing.limit("events_per_execution")
    if most is not None and sequence > most and not closing:
        raise past(view.before(row), most)
    view.events.append(
        NewEvent(
            row.tenant_id, row.id, sequence, kind, body, view.now, view.who.actor, node_id, work_item_id, causation_id
        )
    )
    unfolded = row.unfolded_bytes + len(body or b"")
    moved = msgspec.structs.replace(execution, sequence=sequence, unfolded_bytes=unfolded, updated_at=view.now)
    view.put(moved)
    return moved
