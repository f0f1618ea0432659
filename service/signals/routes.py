"""Signals over HTTP."""

import re
from typing import Any

import msgspec

from service.errors import StateError
from service.executions.prepare import prepared
from service.http.endpoint import Call, Endpoint, decode, fill
from service.kernel.ids import NAME_PATTERN, NAMES
from service.signals.model import SendSignal, Signalled, SignalWithStart

SEND = msgspec.json.Decoder(SendSignal)
START = msgspec.json.Decoder(SignalWithStart)


async def send(call: Call) -> Any:
    """Send a signal; a body is not needed."""
    if re.fullmatch(NAME_PATTERN, call.path["name"]) is None:
        raise StateError("request/malformed", f"A signal's name is {NAMES}.")
    made = decode(SEND, call.body) if call.body else SendSignal()
    fill(made, "execution_id", call.path["id"])
    fill(made, "name", call.path["name"])
    return await call.run(made)


async def with_start(call: Call) -> Any:
    """Send a signal to a workflow, started first if it is not there."""
    made = decode(START, call.body)
    return await call.run(msgspec.structs.replace(made, start=await prepared(call, made.start, "/start")))


ERRORS = ("not-found", "execution/terminal", "signal/conflict", "limit/payload-bytes", "limit/events-per-execution")
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions/{id}/signals/{name}",
        "sendSignal",
        "execution.write",
        "Tell a running workflow something",
        send,
        reply=Signalled,
        body=SendSignal,
        bare=True,
        created=True,
        errors=ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/executions:signal-with-start",
        "signalWithStart",
        "execution.write",
        "Tell a workflow something, started first if it is not there",
        with_start,
        reply=Signalled,
        body=SignalWithStart,
        created=True,
        errors=(
            *ERRORS, "auth/queue", "execution/conflict", "namespace/unknown", "namespace/deleting", "work/conflict",
            "limit/running-executions", "limit/state-bytes", "limit/ready-work-items",
        ),
    ),
]  # fmt: skip
