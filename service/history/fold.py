"""The one fold: what events add up to. The state column, snapshots and replay all agree with it, by test.

The state is changed in place: to copy what an event leaves alone would cost as much for each event as the state is
large.
"""

from collections.abc import Callable, Container, Iterable
from typing import Any

import msgspec

from service.history.model import Fold, LoggedEvent
from service.kernel.json import merge_patch

Step = Callable[[Fold, LoggedEvent, Any], None]
OF_STATE = frozenset({"state.replaced", "state.merged", "state.appended"})
"""The kinds that change nothing but the state."""


def fold(events: Iterable[LoggedEvent], start: Fold | None = None) -> Fold:
    """The fold of `events`, in order, over `start` (which is not changed)."""
    return folded_on(clone(start) if start is not None else Fold(), events)


def folded_on(
    found: Fold, events: Iterable[LoggedEvent], leave_out: Container[str] = (), *, sealed: bool = False
) -> Fold:
    """`found` itself, with `events` folded on to it in order, but for some kinds. Where it is `sealed`, what nodes
    gave back stays as it was sent: `found` is a `Sealed`, and all the outputs of a log may be very much."""
    for event in events:
        step = STEPS.get(event.kind)
        if step is not None and event.kind not in leave_out:
            kind: Any = dict[str, msgspec.Raw] if sealed and step is _completed else Any
            step(found, event, msgspec.json.decode(event.body, type=kind) if event.body else {})
        found.sequence = event.sequence
    return found


def clone(found: Fold) -> Fold:
    """A fold that may be folded on without changing the other."""
    return msgspec.json.decode(msgspec.json.encode(found), type=Fold)


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
    found.state = merge_patch(found.state, body, in_place=True)


def _appended(found: Fold, _event: LoggedEvent, body: Any) -> None:
    here, steps = found.state, body["path"].split("/")[1:]
    for left, step in zip(range(len(steps), 0, -1), steps, strict=True):
        if isinstance(here, list):
            here = here[int(step)]
        else:
            here = here.setdefault(step.replace("~1", "/").replace("~0", "~"), [] if left == 1 else {})
    here.append(body["value"])


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
