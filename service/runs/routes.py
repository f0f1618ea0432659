"""Workflow tasks over HTTP, and the ends that a caller can give an execution."""

from typing import Any

import msgspec

from backends.protocol import Row, Tx
from service.executions.model import Changed
from service.history.model import ShownEvent, show_event
from service.http.endpoint import Call, Endpoint, command, decode, fill
from service.kernel.raw import shown
from service.runs.commands import ENVELOPE, Command, decoded
from service.runs.model import CancelRun, ClaimTasks, SubmitCommands, Submitted, TerminateRun
from service.runs.rules import shelf
from service.work.model import Claimed, ClaimWork, Renewed, RenewLease
from service.work.waiting import claimed

HISTORY_MAX = 10_000
CLAIM = msgspec.json.Decoder(ClaimTasks)


class ClaimedTask(msgspec.Struct, frozen=True):
    """A workflow task as its holder sees it: the run, and its log after what the worker has in memory.

    `history_sequence` is where the log ends; `history_complete` is false when more of it must be read from
    `GET /v1/executions/{id}/events?after=…`.
    """

    task_id: str
    epoch: int
    attempt: int
    expires_at: int
    execution_id: str
    workflow_type: str
    namespace: str
    task_queue: str | None
    status: str
    run_attempt: int
    first_id: str
    previous_id: str | None
    cancel_requested_at: int | None
    memo: msgspec.Raw | None
    history: list[ShownEvent]
    history_sequence: int
    history_complete: bool


class ClaimedTasks(msgspec.Struct, frozen=True):
    """What a claim of workflow tasks got; empty when there is nothing."""

    items: list[ClaimedTask]


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a workflow asks for, having seen the log up to `history_sequence`."""

    epoch: int
    history_sequence: int
    commands: list[Command] = []


async def claim(call: Call) -> Any:
    """Claim tasks of workflow types that the worker declares, with the history that it needs."""
    made = decode(CLAIM, call.body)
    asked = ClaimWork(
        made.worker_id,
        [shelf(made.namespace, queue) for queue in made.queues],
        made.max_items,
        made.lease_ms,
        [f"workflow:{name}" for name in made.types],
        made.wait_ms,
    )
    found = await claimed(call, asked)
    tasks = [await with_history(call, item, made.since) for item in found.items if item.drives == "decision"]
    return ClaimedTasks([task for task in tasks if task is not None])


async def with_history(call: Call, item: Claimed, since: dict[str, int]) -> ClaimedTask | None:
    """The task with its run and log; None if the run went away since the claim."""
    tenant, execution, after = call.who.tenant_id, item.execution_id or "", since.get(item.execution_id or "", 0)

    async def read(tx: Tx) -> tuple[Row | None, list[Row]]:
        head = await tx.one("read_task_head", tenant_id=tenant, execution_id=execution)
        rows = await tx.all("read_events", tenant_id=tenant, execution_id=execution, after=after, limit=HISTORY_MAX)
        return head, rows

    head, rows = await call.services.backend.read(read, tenants=call.who.reach)
    if head is None:
        return None
    history = [show_event(row) for row in rows]
    last = history[-1].sequence if history else after
    return ClaimedTask(
        task_id=item.id,
        epoch=item.epoch,
        attempt=item.attempt,
        expires_at=item.expires_at,
        execution_id=head[0],
        workflow_type=head[1],
        namespace=head[2],
        task_queue=head[3],
        status=head[4],
        run_attempt=head[8],
        first_id=head[9],
        previous_id=head[10],
        cancel_requested_at=head[7],
        memo=shown(head[11]),
        history=history,
        history_sequence=last,
        history_complete=last >= head[5],
    )


async def submit(call: Call) -> Submitted:
    """Settle a task by its commands."""
    said = decode(ENVELOPE, call.body)
    made = SubmitCommands(said.epoch, said.history_sequence, decoded(said.commands))
    fill(made, "id", call.path["id"])
    return await call.run(made)  # type: ignore[no-any-return]


LEASE_ERRORS = ("not-found", "lease/stale", "lease/not-held", "lease/settled")
END_ERRORS = ("not-found", "execution/terminal", "execution/transition")
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/workflow-tasks:claim",
        "claimWorkflowTasks",
        "work.claim",
        "Claim workflow tasks with their history",
        claim,
        reply=ClaimedTasks,
        body=ClaimTasks,
        errors=("auth/queue",),
    ),
    Endpoint(
        "POST",
        "/v1/workflow-tasks/{id}/commands",
        "submitCommands",
        "work.claim",
        "Settle a workflow task by its commands, all or nothing",
        submit,
        reply=Submitted,
        body=Submission,
        errors=(
            *LEASE_ERRORS, "execution/terminal", "execution/transition", "workflow/nondeterminism",
            "limit/payload-bytes", "limit/state-bytes", "limit/events-per-execution",
        ),
    ),
    Endpoint(
        "POST",
        "/v1/workflow-tasks/{id}/renew",
        "renewWorkflowTask",
        "work.claim",
        "Keep the lease of a workflow task",
        command(RenewLease, id="id"),
        reply=Renewed,
        body=RenewLease,
        errors=LEASE_ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/cancel",
        "cancelExecution",
        "execution.operate",
        "Ask an execution to stop",
        command(CancelRun, execution_id="id"),
        reply=Changed,
        body=CancelRun,
        errors=END_ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/terminate",
        "terminateExecution",
        "execution.operate",
        "End an execution at once",
        command(TerminateRun, execution_id="id"),
        reply=Changed,
        body=TerminateRun,
        errors=END_ERRORS,
    ),
]  # fmt: skip
