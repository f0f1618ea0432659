"""The one fold: what events add up to. The state column, snapshots and replay all agree with it, by test."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from service.history.model import Fold, LoggedEvent
from service.kernel.json import append_at, merge_patch

Step = Callable[[Fold, LoggedEvent, Any], None]


def fold(events: Iterable[LoggedEvent], start: Fold | None = None) -> Fold:
    """The fold of `events`, in order, over `start` (which is not changed)."""
    found = clone(start) if start is not None else Fold()
    for event in events:
        step = STEPS.get(event.kind)
        if step is not None:
            step(found, event, msgspec.json.decode(event.body) if event.body else {})
        found.sequence = event.sequence
    return found


def clone(found: Fold) -> Fold:
    """A fold that may be folded on without changing the other."""
    active = {node: list(items) for node, items in found.active_nodes.items()}
    return msgspec.structs.replace(found, completed_nodes=dict(found.completed_nodes), active_nodes=active)


def _started(found: Fold, event: LoggedEvent, body: Any) -> None:
    found.status = body.get("status", "running")
    found.state = body.get("state", {})
    if body.get("work_item_id"):
        _activate(found, body.get("node_id"), body["work_item_id"])


def _moved(found: Fold, _event: LoggedEvent, body: Any) -> None:
    found.status = body["to"]


def _replaced(found: Fold, _event: LoggedEvent, body: Any) -> None:
    found.state = body


def _merged(found: Fold, _event: LoggedEvent, body: Any) -> None:
    found.state = merge_patch(found.state, body)


def _appended(found: Fold, _event: LoggedEvent, body: Any) -> None:
    found.state = append_at(found.state, body["path"], body["value"])


def _activate(found: Fold, node: str | None, item: str | None) -> None:
    if node is not None and item is not None:
        found.active_nodes.setdefault(node, []).append(item)


def _enqueued(found: Fold, event: LoggedEvent, _body: Any) -> None:
    _activate(found, event.node_id, event.work_item_id)


def _ended(found: Fold, event: LoggedEvent, _body: Any) -> None:
    items = found.active_nodes.get(event.node_id or "", [])
    if event.work_item_id in items:
        items.remove(event.work_item_id)
        if not items:
            del found.active_nodes[event.node_id or ""]


def _completed(found: Fold, event: LoggedEvent, body: Any) -> None:
    _ended(found, event, body)
    if event.node_id is not None:
        found.completed_nodes[event.node_id] = body.get("result")


STEPS: dict[str, Step] = {
    "execution.started": _started,
    "execution.status_changed": _moved,
    "execution.completed": _moved,
    "execution.failed": _moved,
    "execution.cancelled": _moved,
    "execution.terminated": _moved,
    "execution.timed_out": _moved,
    "state.replaced": _replaced,
    "state.merged": _merged,
    "state.appended": _appended,
    "work.enqueued": _enqueued,
    "work.requeued": _enqueued,
    "work.completed": _completed,
    "work.dead_lettered": _ended,
    "work.cancelled": _ended,
}
