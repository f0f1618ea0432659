"""How signals are told and recognised: pure decisions over the rows of a batch."""

from collections.abc import Iterable
from functools import partial

import msgspec

from service.errors import StateError, invalid, under
from service.executions import rules as executions
from service.executions.model import ENDED, Execution
from service.history.model import LoggedEvent
from service.history.rules import logged
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.json import digest, fingerprint
from service.kernel.limits import refuse_past
from service.kernel.principal import Principal, Standing
from service.kernel.raw import ABSENT, encoded
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs.model import Ordered, Run, SignalCarried
from service.runs.rules import add_step, ended, head, step_before, wake
from service.signals.model import SendSignal, Signal, SignalExternal, Signalled, SignalWithStart, WaitForSignal


class SignalBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `signal.received`."""

    name: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    signal_id: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)


class SentBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `signal.sent` and `signal.failed`, in the sender's log; `next_id` is the run that an ended one went on
    in."""

    seq: int
    execution_id: str
    name: str
    reason: str | None = None
    next_id: str | None = None


def signal_keys(command: SendSignal, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution, its run, the signal of that id."""
    yield Execution, (who.tenant_id, command.execution_id)
    yield Run, (who.tenant_id, command.execution_id)
    if command.signal_id is not None:
        yield Signal, (who.tenant_id, command.execution_id, command.signal_id)


def send(view: View, command: SendSignal) -> Signalled:
    """The signal in the log, and a task for the workflow to see it."""
    execution = executions.need(view, command.execution_id)
    refuse_past(view, "payload_bytes", len(command.payload))
    if (before := came_before(view, execution, command)) is not None:
        return Signalled(execution.id, before.sequence, False)
    if execution.status in ENDED:
        raise ended(view, execution)
    return Signalled(execution.id, receive(view, execution, command).sequence, True)


def came_before(view: View, execution: Execution, command: SendSignal) -> Signal | None:
    """The same signal, come before; 409 when its id stands for something else."""
    if command.signal_id is None:
        return None
    found = view.get(Signal, execution.tenant_id, execution.id, command.signal_id)
    if found is not None and found.digest != digest_of(command) and not says(view, found, command):
        raise StateError(
            "signal/conflict",
            f"A signal {command.signal_id!r} came with other contents; send this one under another id.",
            sequence=found.sequence,
        )
    return found


def digest_of(command: SendSignal) -> str:
    """What a signal says, byte for byte: so the version before knows it, which may serve the same store."""
    return fingerprint(command.name, bytes(command.payload))


def says(view: View, found: Signal, command: SendSignal) -> bool:
    """Whether the signal that came says the same, its JSON written in another way: its event tells."""
    at = found.tenant_id, found.execution_id
    fresh = [logged(event) for event in view.appended(*at) if event.sequence == found.sequence]
    event = fresh[0] if fresh else view.get(LoggedEvent, *at, found.sequence)
    if event is None:
        return False
    body = msgspec.json.decode(event.body or b"", type=SignalBody)
    both = [bytes(payload) for payload in (body.payload or ABSENT, command.payload)]
    return body.name == command.name and all(both) and digest(both[0]) == digest(both[1])


def receive(view: View, execution: Execution, command: SendSignal, sender: str | None = None) -> Execution:
    """The execution with the signal in its log."""
    body = SignalBody(command.name, command.payload or msgspec.UNSET, command.signal_id, sender)
    execution = append(view, execution, "signal.received", encoded(body))
    if command.signal_id is not None:
        view.add(Signal(execution.tenant_id, execution.id, command.signal_id, digest_of(command), execution.sequence))
    if execution.segment:
        wake(view, execution.tenant_id, execution.id)
    return execution


def start_keys(command: SignalWithStart, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """What the start needs, and what the signal needs."""
    yield from executions.start_keys(command.start, who, standing)
    yield from signal_keys(signal_of(command), who, standing)


def signal_of(command: SignalWithStart) -> SendSignal:
    """The signal as it is sent by itself."""
    told = command.signal
    return SendSignal(told.payload, told.signal_id, told.name, command.start.execution_id or "")


def signal_with_start(view: View, command: SignalWithStart) -> Signalled:
    """The signal to the workflow that is there, or to the one that this starts, in one commit."""
    if command.start.execution_id is None or command.start.task_queue is None:
        raise invalid([("/start", "name the execution_id and the task_queue of the workflow")])
    there = view.get(Execution, view.tenant_id, command.start.execution_id)
    if there is None or not there.sequence:
        try:
            executions.start(view, command.start)
        except StateError as refusal:
            raise under("/start", refusal) from None
    elif there.namespace != command.start.namespace:
        said = f"The execution {there.id!r} is in another namespace; choose another id, or name that namespace."
        raise StateError("execution/conflict", said, current_status=there.status)
    return send(view, signal_of(command))


def awaited(_view: View, _fact: Ordered) -> None:
    """A workflow that waits needs nothing: whatever comes wakes it."""


def external(view: View, fact: Ordered) -> None:
    """A workflow tells another one: both logs say so, in one commit."""
    command: SignalExternal = fact.command
    execution = head(view, fact.tenant_id, fact.execution_id)
    if step_before(view, execution, command) is not None:
        return
    refuse_past(view, "payload_bytes", len(command.payload))
    target = view.get(Execution, fact.tenant_id, command.execution_id)
    if target is not None and (target.namespace != execution.namespace or not target.sequence):
        target = None
    reason = "not found" if target is None else target.status if target.status in ENDED else None
    if target is not None and reason is None:
        done = view.attempt(partial(deliver, view, execution, target, command))
        reason = done.code if isinstance(done, StateError) else None
    add_step(view, execution, command, command.name, status="failed" if reason else "sent", ref=command.execution_id)
    next_id = run.next_id if reason and (run := view.get(Run, fact.tenant_id, command.execution_id)) else None
    body = SentBody(command.seq, command.execution_id, command.name, reason, next_id)
    kind = "signal.failed" if reason else "signal.sent"
    append(view, head(view, fact.tenant_id, fact.execution_id), kind, encoded(body))
    if reason:
        wake(view, fact.tenant_id, fact.execution_id)


def deliver(view: View, execution: Execution, target: Execution, command: SignalExternal) -> Execution:
    """The target with the signal in its log. Its step tells it from every other one, so it comes without an id where
    somebody else's signal has that."""
    id = command.signal_id(execution.id)
    taken = view.get(Signal, target.tenant_id, target.id, id) is not None
    said = SendSignal(command.payload, None if taken else id, command.name, target.id)
    return receive(view, target, said, execution.id)


def carried(view: View, fact: SignalCarried) -> None:
    """A signal that goes on to the next run is recognised there by its id, too."""
    execution, body = fact.execution, msgspec.json.decode(fact.body or b"", type=SignalBody)
    if body.signal_id is not None:
        said = SendSignal(body.payload or ABSENT, body.signal_id, body.name, execution.id)
        view.add(Signal(execution.tenant_id, execution.id, body.signal_id, digest_of(said), execution.sequence))


RULES = [Rule(SendSignal, send, signal_keys), Rule(SignalWithStart, signal_with_start, start_keys)]
LISTENERS = [(WaitForSignal, awaited), (SignalExternal, external), (SignalCarried, carried)]
