"""Batches over HTTP: an array of commands in, one result each out, in the same order; each is atomic by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from service.errors import StateError
from service.http.answer import document
from service.http.endpoint import Call, Handle, decode, idempotency_key
from service.kernel.command import Replayed, Request
from service.kernel.json import fingerprint

BATCH_MAX = 1_000
Prepare = Callable[[Call, Any], Awaitable[Any]]


class Batch(msgspec.Struct, frozen=True):
    """One entry for each item of the request: `{"ok": reply}` or `{"error": problem}`."""

    results: list[Any]


class Ok(msgspec.Struct, frozen=True):
    """An item that was done."""

    ok: Any


class Failed(msgspec.Struct, frozen=True):
    """An item that was refused."""

    error: Any


def batch(kind: type, prepare: Prepare | None = None) -> Handle:
    """A handler for an array of `kind`."""
    decoder = msgspec.json.Decoder(Annotated[list[kind], msgspec.Meta(min_length=1, max_length=BATCH_MAX)])  # type: ignore[valid-type]

    async def handle(call: Call) -> Batch:
        commands = decode(decoder, call.body)
        if prepare is not None:
            commands = [await prepare(call, one) for one in commands]
        futures = [call.services.kernel.submit(request) for request in requests(call, commands)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        return Batch([entry(outcome) for outcome in outcomes])

    return handle


def requests(call: Call, commands: list[Any]) -> list[Request]:
    """The commands as requests; under an Idempotency-Key each has its own, the key and its place."""
    key = call.headers.get(b"idempotency-key")
    if key is None:
        return [Request(call.who, one) for one in commands]
    text, said = idempotency_key(key), fingerprint(call.endpoint.operation, call.body)
    return [Request(call.who, one, f"{text}#{index}", said) for index, one in enumerate(commands)]


def entry(outcome: Any) -> Ok | Failed:
    """One result."""
    if isinstance(outcome, StateError):
        return Failed(document(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    return Ok(msgspec.Raw(outcome.body) if isinstance(outcome, Replayed) else outcome)
