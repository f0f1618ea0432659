"""Which queues a caller may use, what a queue is called in its namespace, and how it is paused: pure decisions."""

from collections.abc import Iterable

import msgspec

from service.errors import StateError
from service.executions.model import Entered, Execution
from service.kernel.audit import audit, audit_keys
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import MAIN, Enqueue, PauseQueue, Queue, apart, queue_in


def not_yours(who: Principal, queue: str) -> StateError:
    """403 for a queue outside the token's globs."""
    said = f"The token may not use the queue {queue!r}; it may use {', '.join(who.queues)}."
    return StateError("auth/queue", said, queue=queue, queues=list(who.queues))


def refuse_queue(who: Principal, queue: str) -> None:
    """403 unless the caller may use the queue. Whoever asks for work is held to it; what follows from a fact is not."""
    if not who.may_use(queue):
        raise not_yours(who, queue)


def queue_of(asked: Enqueue, execution: Execution | None) -> str:
    """The queue of an item as work items know it: its name in the namespace of the execution."""
    return asked.queue if execution is None else queue_in(execution.namespace, asked.queue)


def queue_key(command: PauseQueue, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The queue and the audit log."""
    yield Queue, (who.tenant_id, command.name)
    yield from audit_keys(who.tenant_id)


def pause(view: View, command: PauseQueue) -> Queue:
    """Pause or resume a queue."""
    refuse_queue(view.who, command.name)
    before = view.get(Queue, view.tenant_id, command.name)
    paused_at = view.now if command.paused else None
    if before is None:
        namespace, _ = apart(command.name)
        if namespace != MAIN:
            view.tell(Entered(view.tenant_id, namespace, False))
        new = Queue(view.tenant_id, command.name, paused_at, command.note, view.now)
        view.add(new)
    else:
        new = msgspec.structs.replace(before, paused_at=paused_at, note=command.note)
        view.put(new)
    audit(view, "queue.paused" if command.paused else "queue.resumed", command.name, {"note": command.note})
    if not command.paused:
        view.wake(f"work/{view.tenant_id}/*")
    return new
