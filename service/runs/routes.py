"""Workflow tasks over HTTP, and the ends that a caller can give an execution."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from backends.protocol import Row
from service.errors import StateError, invalid
from service.executions.model import Changed
from service.history.model import ShownEvent
from service.http.answer import Answer
from service.http.batch import Batch, each, results, unnamed
from service.http.endpoint import Call, Endpoint, command, decode, fill
from service.kernel.raw import shown
from service.runs.commands import CLAIM, MANY, SUBMISSION, ClaimTasks, Submission, submission
from service.runs.histories import Asked, histories
from service.runs.model import (
    TOGETHER_MAX,
    CancelRun,
    CompleteRun,
    FailRun,
    SubmitCommands,
    Submitted,
    TerminateRun,
)
from service.work.model import TASKS_ALONE, Claimed, Claims, ClaimWork, Renewed, RenewLease
from service.work.waiting import claimed


class ClaimedTask(msgspec.Struct, frozen=True):
    """A workflow task as its holder sees it: the run, and its log after what the worker has in memory.

    `history` begins after the sequence `history_after`: the worker's `since`, or 0 if the log ends before that or its
    event there was not written at `since_at`. Then what the worker has in memory is not this log, and is to be
    forgotten. `history_sequence` is where `history` ends, or `history_after` if it brings nothing; `history_complete`
    is false when more of the log must be read from `GET /v1/executions/{id}/events?after=…`: one answer holds ten
    thousand events, and no more once these come to 8 MiB.
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
    history_after: int
    history_sequence: int
    history_complete: bool


class ClaimedTasks(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a claim of workflow tasks got, empty when there is nothing; and what came of what it settled, in that
    order."""

    items: list[ClaimedTask]
    settled: Annotated[list[Any], results(Submitted)] = []


async def claim(call: Call) -> Any:
    """Settle tasks, and claim others of workflow types that the worker declares, with the history that it needs."""
    made = decode(CLAIM, call.body)
    refuse_many(made.settle)
    if stray := made.since_at.keys() - made.since.keys():
        raise invalid([(f"/since_at/{id}", "`since` does not say which event that is") for id in sorted(stray)])
    asked = ClaimWork(
        made.worker_id,
        made.queues,
        made.max_items,
        made.lease_ms,
        [TASKS_ALONE, *(f"workflow:{name}" for name in made.types)],
        made.wait_ms,
        made.namespace,
    )

    async def show(found: Claims, settled: list[Any]) -> ClaimedTasks:
        items = [item for item in found.items if item.drives == "decision" and item.execution_id is not None]
        ids = [item.execution_id or "" for item in items]
        runs = [Asked(call.who.tenant_id, id, made.since.get(id, 0), made.since_at.get(id)) for id in ids]
        found_of = await histories(call.services, runs)
        return ClaimedTasks(
            [
                handed(item, history.head, history.events, history.after)
                for item, history in zip(items, found_of, strict=True)
                if history.head is not None  # else the run went away since the claim
            ],
            settled,
        )

    return await claimed(call, asked, show, [tried(one) for one in made.settle])


def handed(item: Claimed, head: Row, events: Sequence[ShownEvent], after: int) -> ClaimedTask:
    """A claimed item as a workflow task, with its run and log."""
    type_, namespace, queue, status, sequence, cancel_requested_at, attempt, first_id, previous_id, memo = head
    last = events[-1].sequence if events else after
    return ClaimedTask(
        task_id=item.id,
        epoch=item.epoch,
        attempt=item.attempt,
        expires_at=item.expires_at,
        execution_id=item.execution_id or "",
        workflow_type=type_,
        namespace=namespace,
        task_queue=queue,
        status=status,
        run_attempt=attempt,
        first_id=first_id,
        previous_id=previous_id,
        cancel_requested_at=cancel_requested_at,
        memo=shown(memo),
        history=list(events),
        history_after=after,
        history_sequence=last,
        history_complete=last >= sequence,
    )


async def submit(call: Call) -> Submitted:
    """Settle a task by its commands."""
    made = submission(decode(SUBMISSION, call.body))
    fill(made, "id", call.path["id"])
    return await call.run(made)  # type: ignore[no-any-return]


async def submit_many(call: Call) -> Batch | Answer:
    """Settle tasks, each by its commands; all of them together have a bound, too."""
    said = decode(MANY, call.body)
    refuse_many(said)
    return await each(call, [tried(one) for one in said])


def refuse_many(said: Sequence[Submission]) -> None:
    """422 for more commands than a request may have."""
    if (count := sum(len(one.commands) for one in said)) > TOGETHER_MAX:
        raise invalid([("", f"{count} commands; a request has at most {TOGETHER_MAX}, send the rest in another one")])


def tried(said: Submission) -> SubmitCommands | StateError:
    """A submission as it is to be run, or why it cannot be."""
    try:
        return submission(said) if said.id else unnamed("id")
    except StateError as refusal:
        return refusal


LEASE_ERRORS = ("not-found", "lease/stale", "lease/not-held", "lease/settled")
END_ERRORS = ("not-found", "execution/terminal", "execution/transition")
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/workflow-tasks:claim",
        "claimWorkflowTasks",
        "work.claim",
        "Claim workflow tasks with their history, having settled others",
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
            *LEASE_ERRORS, "auth/queue", "execution/terminal", "execution/transition", "workflow/nondeterminism",
            "workflow/unseen", "limit/running-executions", "limit/payload-bytes", "limit/state-bytes",
            "limit/events-per-execution",
        ),
    ),
    Endpoint(
        "POST",
        "/v1/workflow-tasks:submit",
        "submitWorkflowTasks",
        "work.claim",
        "Settle up to 1,000 workflow tasks, each by its commands, all or nothing of each",
        submit_many,
        reply=Batch,
        item=Submitted,
        body=list[Submission],
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
        bare=True,
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
        bare=True,
        errors=END_ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/complete",
        "completeExecution",
        "execution.write",
        "End an execution well",
        command(CompleteRun, execution_id="id"),
        reply=Changed,
        body=CompleteRun,
        bare=True,
        errors=(*END_ERRORS, "limit/payload-bytes"),
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/fail",
        "failExecution",
        "execution.write",
        "End an execution badly, or try its workflow again",
        command(FailRun, execution_id="id"),
        reply=Changed,
        body=FailRun,
        errors=(*END_ERRORS, "workflow/unseen", "limit/payload-bytes", "limit/running-executions"),
    ),
]  # fmt: skip
