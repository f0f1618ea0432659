"""How executions start, move and end: pure decisions over the rows of a batch."""

from collections.abc import Iterable, Mapping

import msgspec

from service.definitions.model import (
    SNAPSHOT_BYTES,
    SNAPSHOT_EVENTS,
    SNAPSHOT_KEEP,
    Definition,
    InUse,
    start_node_of,
)
from service.errors import StateError, invalid, not_found, under
from service.executions.model import (
    ENDED,
    EVENT_OF,
    FACETS,
    NAMES_MAX,
    NAMESPACE,
    STATUS,
    AppendState,
    Attributed,
    Changed,
    Entered,
    Execution,
    ExecutionEnding,
    ExecutionFinished,
    ExecutionPaused,
    ExecutionStarted,
    Facet,
    FirstItem,
    Labels,
    MergeState,
    NewExecution,
    ReplaceState,
    SetAttributes,
    SetStatus,
    Started,
    StartExecution,
    State,
    Value,
    channel_of_end,
)
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.json import append_at, check, fingerprint, merge_patch, parts
from service.kernel.limits import came_back, refuse_past, usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, shown, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import MAIN, Enqueue, WorkSettled
from service.work.rules_placing import enqueue, enqueue_keys
from service.work.rules_queues import queue_of, refuse_queue

EMPTY_STATE = b"{}"
STATE_BYTES, STATE_PARTS, PART_BYTES = 8_388_608, 262_144, 32
"""How large a state may grow by merges and appends, each of which reads and writes the whole of it, whatever a tenant's
limit says: in bytes, and in objects and lists, for one of these takes as long as so many bytes. One that is larger,
because it was sent so, may only shrink."""
OPERATED = frozenset({"cancelled", "terminated", "paused"})
"""The statuses that only an operator gives."""


def need(view: View, execution_id: str) -> Execution:
    """The execution, or 404, also for one that is being removed: its sequence is 0."""
    found = view.get(Execution, view.tenant_id, execution_id)
    if found is None or not found.sequence:
        raise not_found("execution", execution_id)
    return found


def need_open(view: View, execution_id: str, expected_sequence: int | None = None) -> Execution:
    """The execution, refused if it has ended or moved past the expected sequence."""
    execution = need(view, execution_id)
    if execution.status in ENDED:
        raise ended(execution)
    if expected_sequence is not None and expected_sequence != execution.sequence:
        raise StateError(
            "sequence/mismatch",
            f"The execution is at sequence {execution.sequence}; {expected_sequence} was expected. Read what happened "
            "since, decide again, and send the new sequence.",
            current_sequence=execution.sequence,
            current_status=execution.status,
        )
    return execution


def ended(execution: Execution) -> StateError:
    """409 for a write to an execution that has ended, with its outcome."""
    return StateError(
        "execution/terminal",
        f"The execution is {execution.status}; it can be read, not changed.",
        current_status=execution.status,
        outcome=execution.status,
        current_sequence=execution.sequence,
    )


def refused_at(view: View, execution_id: str, place: str, refusal: StateError) -> StateError:
    """A refusal of the part of a body at `place`; the execution was open before the first part. If a part before this
    one ended it, that is undone with all the others: whoever asked must not hear that the execution has ended."""
    if refusal.code == "execution/terminal" and need(view, execution_id).status in ENDED:
        said = "what stands before it ends the execution, and nothing follows an end; put it first, or leave it out"
        return invalid([(place, said)])
    return under(place, refusal)


def changed(execution: Execution) -> Changed:
    """Where the execution stands."""
    return Changed(execution.id, execution.status, execution.sequence)


# ── start ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def start_keys(command: StartExecution, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The execution of that id, the definition, the shelf of the first item, what the limits count."""
    tenant = who.tenant_id
    yield from usage_keys(tenant, standing, "running_executions")
    yield from namespace_keys(tenant, command.namespace)
    if command.execution_id is not None:
        yield Execution, (tenant, command.execution_id)
    if command.parent_id is not None:
        yield Execution, (tenant, command.parent_id)
    if command.version is not None:
        yield Definition, (tenant, command.workflow, command.version)
    if command.start is not None:
        yield from enqueue_keys(first_item(command.start, None), who, standing)


def namespace_keys(tenant_id: str, namespace: str) -> Iterable[Wanted]:
    """What must be loaded to make something in a namespace; nothing for `main`, which is always there."""
    if namespace != MAIN:
        yield NAMESPACE, (tenant_id, namespace)


def enter(view: View, namespace: str, *, opens: bool = False) -> None:
    """Refuse to make something in a namespace that is not there."""
    if namespace != MAIN:
        view.tell(Entered(view.tenant_id, namespace, opens))


def start(view: View, command: StartExecution, *, succeeds: bool = False) -> Started:
    """Execution, `execution.started` and, if asked for, the first work item: one commit. The same again is a no-op. One
    that `succeeds` a run which ends in this commit has that one's place and what was accepted for it, whatever the
    tenant's limits are by now."""
    if command.execution_id is not None:
        before = view.get(Execution, view.tenant_id, command.execution_id)
        if before is not None:
            return same_start(before, command)
    enter(view, command.namespace, opens=True)
    definition = pinned(view, command)
    if succeeds:
        came_back(view, "running_executions")
    else:
        refuse_past(view, "payload_bytes", len(command.input))
        refuse_past(view, "state_bytes", len(command.state))
        use(view, "running_executions")
    attributes = {name: value for name, value in command.attributes.items() if value is not None}
    if command.parent_id is not None and need(view, command.parent_id).namespace != command.namespace:
        raise not_found("execution", command.parent_id)
    events, size, keep = snapshot_policy(definition)
    execution = NewExecution(
        tenant_id=view.tenant_id,
        id=command.execution_id or view.new_id(),
        namespace=command.namespace,
        workflow_id=command.workflow,
        version=definition.version if definition else None,
        status="pending" if command.pending else "running",
        queue=command.task_queue or command.queue,
        parent_id=command.parent_id,
        segment=1 if command.task_queue else 0,
        sequence=0,
        snapshot_sequence=0,
        snapshot_events=events,
        snapshot_bytes=size,
        snapshot_keep=keep,
        unfolded_bytes=0,
        open_items=0,
        digest=command.digest,
        created_at=view.now,
        started_at=None if command.pending else view.now,
        updated_at=view.now,
        completed_at=None,
        labels=encoded(command.labels) if command.labels else None,
        attributes=encoded(attributes) if attributes else None,
    )
    if command.state:
        view.add(State(view.tenant_id, execution.id, bytes(command.state), 1))
    add_facets(view, execution.id, command.labels, attributes)
    first = None if command.start is None else first_item(command.start, definition)
    item_id = None if first is None else first_item_id(command) or view.new_id()
    view.add(execution)
    execution = append(view, execution, "execution.started", started_body(command, execution, first, item_id))
    if first is not None:
        enqueue_first(view, first, execution, item_id)
    if execution.segment:
        view.tell(ExecutionStarted(view.get(Execution, execution.tenant_id, execution.id) or execution, command))
    return Started(execution.id, execution.status, execution.version, 1, True, item_id)


def enqueue_first(view: View, first: Enqueue, execution: Execution, item_id: str | None) -> None:
    """The first item, which `execution.started` has told of; no item of another's may stand for it."""
    refuse_queue(view.who, queue_of(first, execution))
    try:
        made = enqueue(view, first, execution, item_id)
    except StateError as refusal:
        raise under("/start", refusal) from None
    if not made.created:
        raise StateError(
            "work/conflict",
            f"An open work item has the dedup key {first.dedup_key!r} already; start without it, or with another.",
        )


def same_start(before: Execution, command: StartExecution) -> Started:
    """The answer to a start whose id is taken: the same one again, another's, or that of one that is being removed."""
    if not before.sequence:
        raise StateError(
            "execution/conflict",
            f"The execution {before.id!r} is past its retention and being removed; its id is free again in a moment. "
            "Choose another id, or send the same request a little later.",
            current_status=before.status,
            current_sequence=before.sequence,
        )
    if before.digest != command.digest:
        raise StateError(
            "execution/conflict",
            f"The execution {before.id!r} was started with other arguments; choose another id, or send the same "
            "request.",
            current_status=before.status,
            current_sequence=before.sequence,
        )
    return Started(before.id, before.status, before.version, before.sequence, False, first_item_id(command))


def first_item_id(command: StartExecution) -> str | None:
    """The first item's id as far as the start says: chosen, or following from a chosen execution id, so that a repeated
    start can name it."""
    if command.start is None:
        return None
    return command.start.id or (command.execution_id and fingerprint(command.execution_id, "first"))


def first_item(asked: FirstItem, definition: Definition | None) -> Enqueue:
    """What to enqueue first: what was asked for, filled in from the definition's start node."""
    node = start_node_of(definition) if definition is not None and asked.node_id is None else None
    if node is None:
        return asked if asked.queue else msgspec.structs.replace(asked, queue="default")
    return msgspec.structs.replace(
        asked,
        node_id=node.id,
        queue=asked.queue or node.kind,
        max_attempts=asked.max_attempts or node.max_attempts,
        retry=asked.retry or node.retry,
    )


class StartedBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `execution.started`: everything that replay needs, and what the first item is, if there is one."""

    workflow_id: str
    version: str | None = None
    status: str = "running"
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    state: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parent_id: str | None = None
    work_item_id: str | None = None
    node_id: str | None = None
    queue: str | None = None
    namespace: str = "main"
    labels: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attributes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    memo: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def started_body(command: StartExecution, execution: NewExecution, first: Enqueue | None, item_id: str | None) -> bytes:
    """The input lives here and nowhere else; the execution's row does not repeat it."""
    return encoded(
        StartedBody(
            execution.workflow_id,
            execution.version,
            execution.status,
            command.input if command.input else msgspec.UNSET,
            command.state if command.state else msgspec.UNSET,
            command.parent_id,
            item_id,
            first.node_id if first else None,
            first.queue if first else None,
            execution.namespace,
            shown(execution.labels) or msgspec.UNSET,
            shown(execution.attributes) or msgspec.UNSET,
            command.memo if command.memo else msgspec.UNSET,
        )
    )


def pinned(view: View, command: StartExecution) -> Definition | None:
    """The definition that a start is pinned to; None for a workflow that lives in code."""
    if command.version is None:
        return None
    key = (view.tenant_id, command.workflow, command.version)
    definition = view.get(Definition, *key)
    if definition is None:
        raise not_found("definition", f"{command.workflow}/{command.version}")
    if view.has(InUse, *key):  # somebody deletes it in the same batch
        used = view.get(InUse, *key) or InUse(*key, 0)
        view.put(msgspec.structs.replace(used, count=used.count + 1))
    return definition


def snapshot_policy(definition: Definition | None) -> tuple[int, int, int]:
    """How many events and how many bytes make a snapshot due, and how many are kept; of code, the defaults."""
    if definition is None:
        return SNAPSHOT_EVENTS, SNAPSHOT_BYTES, SNAPSHOT_KEEP
    return definition.snapshot_events, definition.snapshot_bytes, definition.snapshot_keep


# ── status ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class StatusBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of the events that move or end an execution."""

    from_: str = msgspec.field(name="from")
    to: str
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reason: str | None = None


def by_execution(command: SetStatus | ReplaceState, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution that the command names; what an operator does is audited."""
    yield Execution, (who.tenant_id, command.execution_id)
    if isinstance(command, SetStatus) and command.status in OPERATED:
        yield from audit_keys(who.tenant_id)


def set_status(view: View, command: SetStatus) -> Changed:
    """Move to another status, by the table; an ending closes what is open."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    operate(view, execution, command.status, command.reason)
    return changed(move(view, execution, command.status, stored(command.result), stored(command.error), command.reason))


def operate(view: View, execution: Execution, status: str, reason: str | None = None) -> None:
    """Cancel, terminate, pause and resume are an operator's, and audited; every other move belongs to whoever runs the
    execution."""
    if status not in OPERATED and execution.status != "paused":
        return
    if not view.who.may("execution.operate"):
        raise StateError(
            "auth/forbidden",
            f"The role {view.who.role!r} may not make an execution {status!r}; an operator's or owner's may.",
            permission="execution.operate",
            role=view.who.role,
        )
    action = "execution.resumed" if status == "running" else f"execution.{status}"
    audit(view, action, execution.id, {"from": execution.status, "reason": reason})


def move(
    view: View,
    execution: Execution,
    status: str,
    result: bytes | None = None,
    error: bytes | None = None,
    reason: str | None = None,
    *,
    closing: bool = False,
) -> Execution:
    """The execution in its new status, with the event that says so. When it is `closing`, a step to its end that an
    item or its time brings, no limit of the tenant's refuses it: what an item says was held to them before."""
    old = execution.status
    STATUS.step(old, status)
    if not closing:
        refuse_outcome(view, status, result, error)
    if status in ENDED:
        if execution.open_items:
            view.tell(ExecutionEnding(execution.tenant_id, execution.id, status))
            execution = view.get(Execution, execution.tenant_id, execution.id) or execution
        use(view, "running_executions", -1)
    body = StatusBody(old, status, shown(result) or msgspec.UNSET, shown(error) or msgspec.UNSET, reason)
    execution = msgspec.structs.replace(
        execution,
        status=status,
        started_at=execution.started_at or (view.now if status == "running" else None),
        completed_at=view.now if status in ENDED else None,
        result=result,
        error=error,
    )
    kind = EVENT_OF.get(status, "execution.status_changed")
    closing = closing or status in ENDED or old == "paused"  # who paused one may let it go on
    execution = append(view, execution, kind, encoded(body), closing=closing)
    if status in ENDED:
        view.wake(channel_of_end(execution.tenant_id, execution.id))
        view.tell(ExecutionFinished(execution, status, result, error))
    elif "paused" in (old, status):
        view.tell(ExecutionPaused(execution, status == "running"))
        execution = view.get(Execution, execution.tenant_id, execution.id) or execution
    return execution


def refuse_outcome(view: View, status: str, result: bytes | None, error: bytes | None) -> None:
    """A result and an error belong to an ending, and are held to the limit of payloads."""
    for name, value in (("result", result), ("error", error)):
        if value is not None and status not in ENDED:
            raise invalid([(f"/{name}", f"an execution has one only once it has ended; {status!r} is no end")])
        refuse_past(view, "payload_bytes", len(value or b""))


def settle_with_item(view: View, fact: WorkSettled) -> None:
    """An item that drives its execution ends it; a pending or paused one runs again for that moment, if it must."""
    item = fact.item
    execution = view.get(Execution, item.tenant_id, item.execution_id) if item.drives == "execution" else None
    if execution is None:
        return
    if fact.outcome not in STATUS.table[execution.status]:
        execution = move(view, execution, "running", closing=True)
    move(view, execution, fact.outcome, fact.result, fact.error, closing=True)


# ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def state_keys(command: MergeState, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution and its state."""
    yield Execution, (who.tenant_id, command.execution_id)
    yield State, (who.tenant_id, command.execution_id)


def state_of(view: View, execution: Execution) -> bytes:
    """The execution's state document; `{}` until it was written."""
    found = view.get(State, execution.tenant_id, execution.id)
    return EMPTY_STATE if found is None else found.state


def write_state(view: View, execution: Execution, kind: str, body: bytes, state: bytes) -> Execution:
    """Store the new document and the event that made it."""
    refuse_past(view, "state_bytes", len(state))
    new = State(execution.tenant_id, execution.id, state, execution.sequence + 1)
    if view.get(State, execution.tenant_id, execution.id) is None:
        view.add(new)
    else:
        view.put(new)
    return append(view, execution, kind, body)


def replace_state(view: View, command: ReplaceState) -> Changed:
    """The document as given."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    return changed(write_state(view, execution, "state.replaced", command.state, command.state))


def merge_state(view: View, command: MergeState) -> Changed:
    """The document with a merge patch applied."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    return changed(merged_state(view, execution, command.patch))


def merged_state(view: View, execution: Execution, patch: bytes) -> Execution:
    """The execution with a merge patch (RFC 7396) applied to its state."""
    before = state_of(view, execution)
    state = encoded(merge_patch(msgspec.json.decode(before), msgspec.json.decode(patch)))
    refuse_growth(before, state)
    return write_state(view, execution, "state.merged", patch, state)


class AppendBody(msgspec.Struct, frozen=True):
    """Body of `state.appended`."""

    path: str
    value: msgspec.Raw


def append_state(view: View, command: AppendState) -> Changed:
    """The document with a value appended to one of its arrays; two at once both survive."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    return changed(appended_state(view, execution, command.path, command.value))


def appended_state(view: View, execution: Execution, path: str, value: msgspec.Raw) -> Execution:
    """The execution with `value` appended at `path` of its state."""
    before = state_of(view, execution)
    state = encoded(append_at(msgspec.json.decode(before), path, msgspec.json.decode(value)))
    check(state)
    refuse_growth(before, state)
    return write_state(view, execution, "state.appended", encoded(AppendBody(path, value)), state)


def weight(state: bytes) -> int:
    """What it costs to write a document anew, in bytes of one that is all text."""
    return len(state) + PART_BYTES * parts(state)


def refuse_growth(before: bytes, after: bytes) -> None:
    """409 for a document that has grown too large, or of too many parts, to be written anew for each change."""
    if len(after) > max(STATE_BYTES, len(before)):
        said = f"A state grows to {STATE_BYTES} bytes by merges and appends, in every tenant; it has {len(before)} now."
        raise StateError("limit/state-bytes", said, limit=STATE_BYTES, current=len(before))
    if len(after) > STATE_PARTS and (now := parts(after)) > STATE_PARTS and now > (had := parts(before)):
        said = f"A state grows to {STATE_PARTS} objects and lists by merges and appends, in every tenant"
        raise StateError("limit/state-bytes", f"{said}; it has {had} now.", limit=STATE_PARTS, current=had)


# ── attributes ─────────────────────────────────────────────────────────────────────────────────────────────────────


def facet(tenant: str, execution: str, family: str, name: str, value: Value) -> Facet:
    """One label or attribute as lists filter by it: a number as a number alone, a truth value as a word."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Facet(tenant, execution, family, name, None, value)
    return Facet(tenant, execution, family, name, str(value).lower() if isinstance(value, bool) else value, None)


def add_facets(view: View, execution_id: str, labels: Labels, attributes: Mapping[str, Value]) -> None:
    """Rows for a new execution's labels and attributes."""
    families: tuple[tuple[str, Mapping[str, Value]], ...] = (("label", labels), ("attr", attributes))
    for family, values in families:
        for name, value in values.items():
            if value is not None:
                view.add(facet(view.tenant_id, execution_id, family, name, value))


def attribute_keys(command: SetAttributes, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution, its attributes, and a row for each of them."""
    for what in (Execution, Attributed, FACETS):
        yield what, (who.tenant_id, command.execution_id)


class AttributesBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `attributes.set`."""

    attributes: dict[str, Value] = {}
    labels: dict[str, str | None] = {}


def set_attributes(view: View, command: SetAttributes, place: str = "/attributes") -> Changed:
    """Merge attributes and labels; null removes. `place` is where the body has the attributes."""
    execution = need_open(view, command.execution_id, command.expected_sequence)
    before = view.get(Attributed, execution.tenant_id, execution.id)
    if before is None:
        raise not_found("execution", execution.id)
    view.expect((FACETS, (execution.tenant_id, execution.id)))
    for family, values in (("label", command.labels), ("attr", command.attributes)):
        for name, value in values.items():
            write_facet(view, execution, family, name, value)
    labels = merged(before.labels, command.labels, "/labels")
    attributes = merged(before.attributes, command.attributes, place)
    view.put(msgspec.structs.replace(before, labels=labels, attributes=attributes))
    body = encoded(AttributesBody(command.attributes, command.labels))
    return changed(append(view, execution, "attributes.set", body))


def merged(before: bytes | None, patch: object, pointer: str) -> bytes:
    """A flat JSON object with a patch of names applied. It may have 64 of them; one that has more may only shrink."""
    names = msgspec.json.decode(before or b"{}")
    found = merge_patch(names, patch)
    if len(found) > max(NAMES_MAX, len(names)):
        raise invalid([(pointer, f"an execution may have {NAMES_MAX} of them; with these it would have {len(found)}")])
    return encoded(found)


def write_facet(view: View, execution: Execution, family: str, name: str, value: Value) -> None:
    """Add, change or remove one facet row."""
    key = (execution.tenant_id, execution.id, family, name)
    before = view.get(Facet, *key) if view.has(Facet, *key) else None
    if value is None:
        if before is not None:
            view.remove(before)
        return
    new = facet(execution.tenant_id, execution.id, family, name, value)
    if before is None:
        view.add(new)
    else:
        view.put(new)


RULES = [
    Rule(StartExecution, start, start_keys),
    Rule(SetStatus, set_status, by_execution),
    Rule(ReplaceState, replace_state, state_keys),
    Rule(MergeState, merge_state, state_keys),
    Rule(AppendState, append_state, state_keys),
    Rule(SetAttributes, set_attributes, attribute_keys),
]
LISTENERS = [(WorkSettled, settle_with_item)]
