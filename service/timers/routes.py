"""Timers over HTTP."""

from service.http.endpoint import Endpoint, command
from service.timers.model import NewTimer, Timer

ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions/{id}/timers",
        "scheduleTimer",
        "execution.write",
        "Set a timer of a run",
        command(NewTimer, execution_id="id"),
        reply=Timer,
        body=NewTimer,
        created=True,
        errors=("not-found", "execution/terminal", "workflow/nondeterminism", "limit/events-per-execution"),
    ),
]
