"""The table of `docs/events.md`: every kind of event that the service writes itself, and the fields of its body."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import fields

from service.activities.rules import ActivityBody
from service.chains.rules import ContinuedBody, ResetBody, RetriedBody
from service.children.rules import ChildBody
from service.executions.rules import AppendBody, AttributesBody, StartedBody, StatusBody
from service.runs.rules import CancelBody, SideEffectBody
from service.signals.rules import SentBody, SignalBody
from service.timers.rules import TimerBody
from service.work.rules_settling import SettledBody

KEPT = ("work.claimed", "work.renewed", "activity.started")
"""Reserved, and written by nobody: names of the interface for what a log could tell one day."""
EVENTS: tuple[tuple[str, Any, str, str], ...] = (
    ("execution.started", StartedBody, "", "The first of all; no `status` is `running`, no `namespace` `main`"),
    ("execution.status_changed", StatusBody, "", "It was begun, paused or resumed, or is `limit_exceeded`"),
    (
        "execution.completed execution.failed execution.cancelled execution.terminated execution.timed_out",
        StatusBody, "", "It ended",
    ),
    ("state.replaced", "the state", "", "The state is another"),
    ("state.merged", "the patch", "", "A merge patch (RFC 7396) was applied to the state"),
    ("state.appended", AppendBody, "", "A value was appended to an array of the state, made if it was not there"),
    ("attributes.set", AttributesBody, "", "Attributes and labels were set; null removed one"),
    ("snapshot.written", "`sequence` `bytes`", "", "The log was folded up to `sequence`"),
    ("work.enqueued", "`queue` `ready_at` `drives`", "", "An item was enqueued, later than with the start"),
    ("work.completed", SettledBody, "attempt result", "An item is done"),
    ("work.retry_scheduled", SettledBody, "attempt error ready_at", "An attempt failed, and another follows"),
    ("work.failed", SettledBody, "attempt error", "An attempt failed, and none follows: the next event tells the end"),
    ("work.lease_expired", SettledBody, "attempt error", "A lease ran out; the next event tells what follows"),
    ("work.dead_lettered", SettledBody, "attempt error", "An item became a dead letter"),
    ("work.requeued", SettledBody, "attempt ready_at", "A dead letter has another life"),
    ("work.released", SettledBody, "attempt ready_at", "An item was handed back unworked"),
    ("work.cancelled", SettledBody, "attempt error", "An item was withdrawn"),
    ("activity.scheduled", ActivityBody, "seq name activity_id task_queue input", "An activity was asked for"),
    (
        "activity.completed activity.failed activity.timed_out activity.cancelled",
        ActivityBody, "seq name activity_id attempt result error", "It ended; attempts before the last are no events",
    ),
    ("timer.scheduled timer.fired timer.cancelled", TimerBody, "", "A timer"),
    ("signal.received", SignalBody, "", "A signal came; `from` is the execution that sent it, if one did"),
    ("signal.sent signal.failed", SentBody, "", "A signal to another execution, and why it did not arrive"),
    ("child.started", ChildBody, "seq execution_id workflow_type", "A child was started"),
    (
        "child.completed child.failed child.cancelled child.terminated child.timed_out child.limit_exceeded",
        ChildBody, "", "It ended, or (`failed`) could not be started",
    ),
    ("side_effect.recorded", SideEffectBody, "", "What `RecordSideEffect` said"),
    ("memo.set", "the memo", "", "The memo is another"),
    ("workflow.cancel_requested", CancelBody, "", "The run was asked to stop"),
    ("workflow.continued_as_new", ContinuedBody, "", "The run goes on in `next_id`; its end follows"),
    ("workflow.retry_scheduled", RetriedBody, "", "The run failed and is tried again as `next_id`; its end follows"),
    ("workflow.reset", ResetBody, "", "The run was reset and goes on in `next_id`; its end follows"),
)  # fmt: skip
"""Kinds, the Struct of their body (or what it is), which fields of it (all), and what has happened."""
HEAD = """\
# Events

What an execution's log holds: the events that callers append, under any other kind, and those below, which the service
writes and nobody else can append. `GET /v1/executions/{id}/events` answers them, `…/events:tail` streams them, and
`GET /v1/events` is all of a tenant's in the order of their commits.

An event has `sequence`, `kind`, `body`, `at` and `actor`, and where they apply `work_item_id`, `node_id` and
`causation_id`. Fields with a `?` are there when there is something to say.

**Read on, and miss nothing.** Of one execution: remember the last `sequence`, ask for what is `after` it. Of a tenant:
remember `next_cursor` of the feed, with what you made of the page in one transaction, and pass it as `after`; an
empty page is the end for now, so wait a moment and ask again with its cursor. Cursors outlive restarts. `kinds`
may change between two pages; what was passed over is not told again. A stream that breaks off is taken up with
`Last-Event-ID`; if the server ends it before the execution does, its last event is a `goodbye` with the reason.
A log that ends before what you have seen of it is another one: the store was put back, or the id used again. A stream
is refused there (409 `sequence/mismatch`), a page has its `last_sequence` below your `after`: begin again at 0.

This page is drawn from the code.

| Kind | Body | What happened |
|---|---|---|
"""
TAIL = """
{} are reserved: nobody can append them, and nobody writes them yet.
Each claim, renewal and attempt as an event would double the log; what is leased, and by whom, is told by the item.
"""


def told() -> Iterator[str]:
    """Every kind that the table tells of."""
    for kinds, *_ in EVENTS:
        yield from kinds.split()


def body(kind: Any, names: str) -> str:
    """The fields of a body, as the table shows them."""
    if isinstance(kind, str):
        return kind
    known = {field.encode_name: f"`{field.encode_name}`{'' if field.required else '?'}" for field in fields(kind)}
    return " ".join(known[name] for name in (names.split() or known))


def events() -> str:
    """The whole of `docs/events.md`."""
    return (
        HEAD
        + "".join(
            f"| {' '.join(f'`{kind}`' for kind in kinds.split())} | {body(kind, names)} | {said} |\n"
            for kinds, kind, names, said in EVENTS
        )
        + TAIL.format(", ".join(f"`{kind}`" for kind in KEPT))
    )
