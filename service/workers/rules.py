"""How workers register, are heard of and are forgotten: pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from service.errors import not_found
from service.executions.rules import enter, namespace_keys
from service.kernel.command import Rule
from service.kernel.limits import usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import queue_in
from service.work.rules_queues import refuse_queue
from service.workers.claims import LOST
from service.workers.model import (
    LOST_MS,
    MISSED_MAX,
    QUEUES_OF,
    BeatWorker,
    Heard,
    ReapWorkers,
    RegisterWorker,
    Worker,
    WorkerQueue,
)


def register_keys(command: RegisterWorker, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The worker and its queues as they are, the namespace, and what limits workers."""
    yield Worker, (who.tenant_id, command.id)
    yield QUEUES_OF, (who.tenant_id, command.id)
    yield from namespace_keys(who.tenant_id, command.namespace)
    yield from usage_keys(who.tenant_id, standing, "workers")


def register(view: View, command: RegisterWorker) -> Heard:
    """The worker as it says it is, whatever was said before. A token registers, or replaces, workers of its queues. One
    that is there, lost ones too, takes a place among the tenant's until it is forgotten."""
    before = view.get(Worker, view.tenant_id, command.id)
    wanted = served(command.namespace, command.queues)
    for queue in sorted(wanted | (set() if before is None else queues_of(before))):
        refuse_queue(view.who, queue)
    enter(view, command.namespace)
    alive = before is not None and before.expires_at > view.now
    worker = Worker(
        tenant_id=view.tenant_id,
        id=command.id,
        namespace=command.namespace,
        identity=command.identity or command.id,
        queues=as_json(command.queues),
        types=as_json(command.types),
        activities=as_json(command.activities),
        capacities=encoded(command.capacities).decode(),
        build_id=command.build_id,
        heartbeat_ms=command.heartbeat_ms,
        registered_at=before.registered_at if before is not None and alive else view.now,
        heartbeat_at=view.now,
        expires_at=view.now + MISSED_MAX * command.heartbeat_ms,
    )
    if before is None:
        use(view, "workers")
        view.add(worker)
    else:
        view.put(worker)
    serve(view, worker.id, wanted)
    return Heard(worker.id, worker.heartbeat_ms, worker.expires_at, not alive)


def as_json(names: Iterable[str]) -> str:
    """Names in order, each once."""
    return encoded(sorted(set(names))).decode()


def served(namespace: str, queues: Iterable[str]) -> set[str]:
    """The queues of a namespace, as work items know them."""
    return {queue_in(namespace, queue) for queue in queues}


def queues_of(worker: Worker) -> set[str]:
    """The queues of a worker, as work items know them."""
    return served(worker.namespace, msgspec.json.decode(worker.queues, type=list[str]))


def serve(view: View, worker_id: str, wanted: set[str]) -> None:
    """The rows of a worker's queues: those that are wanted, and no others."""
    there = view.group(WorkerQueue, QUEUES_OF, view.tenant_id, worker_id)
    for row in there:
        if row.queue not in wanted:
            view.remove(row)
    for queue in sorted(wanted - {row.queue for row in there}):
        view.add(WorkerQueue(view.tenant_id, queue, worker_id))


def beat_keys(command: BeatWorker, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The worker."""
    yield Worker, (who.tenant_id, command.id)


def beat(view: View, command: BeatWorker) -> Heard:
    """Heard of; 404 for a worker that is not there, was lost, or works on queues that the token may not use."""
    worker = view.get(Worker, view.tenant_id, command.id)
    usable = worker is not None and all(map(view.who.may_use, queues_of(worker)))
    if worker is None or not usable or worker.expires_at <= view.now:
        error = not_found("worker", command.id)
        error.detail += " Register it (again) with PUT /v1/workers/{id}."
        raise error
    worker = replace(worker, heartbeat_at=view.now, expires_at=view.now + MISSED_MAX * worker.heartbeat_ms)
    view.put(worker)
    return Heard(worker.id, worker.heartbeat_ms, worker.expires_at)


def reap(view: View, _command: ReapWorkers) -> int:
    """Forget every chosen worker that is still lost; how many were."""
    gone = [worker for worker in view.pick(Worker) if worker.expires_at + LOST_MS <= view.now]
    for worker in gone:
        for row in view.group(WorkerQueue, QUEUES_OF, worker.tenant_id, worker.id):
            view.remove(row)
        view.remove(worker)
    return len(gone)


RULES = [
    Rule(RegisterWorker, register, register_keys),
    Rule(BeatWorker, beat, beat_keys),
    Rule(ReapWorkers, reap, chooser=LOST, while_suspended=True),
]
