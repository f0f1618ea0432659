"""Transitions over HTTP."""

from service.http.batch import Batch, batch
from service.http.endpoint import Endpoint, command
from service.transitions.model import Transition, Transitioned

ERRORS = (
    "not-found",
    "auth/queue",
    "execution/terminal",
    "sequence/mismatch",
    "execution/transition",
    "lease/stale",
    "lease/not-held",
    "lease/settled",
    "state/not-an-array",
    "state/path",
    "work/conflict",
    "limit/state-bytes",
    "limit/payload-bytes",
    "limit/events-per-execution",
    "limit/ready-work-items",
)


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions/{id}/transitions",
        "transition",
        "execution.transition",
        "Change an execution, all or nothing",
        command(Transition, execution_id="id"),
        reply=Transitioned,
        body=Transition,
        errors=ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/transitions:batch",
        "transitionBatch",
        "execution.transition",
        "Up to 1,000 transitions, each atomic by itself",
        batch(Transition),
        reply=Batch,
        item=Transitioned,
        body=list[Transition],
    ),
]
