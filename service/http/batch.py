"""Batches over HTTP: an array of commands in, one result each out, in the same order; each is atomic by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec

from backends.protocol import Row, Tx
from service.errors import StateError, invalid
from service.http.answer import JSON, Answer, document, encode
from service.http.endpoint import REPLAYED, Call, Handle, decode, idempotency_key
from service.kernel.command import Origin, Replayed, Request
from service.kernel.idempotency import mismatch

BATCH_MAX = 1_000
OF_BATCH = "\n"
"""Between an Idempotency-Key and the place in its batch: in no key that a caller may choose."""
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


def results(*kinds: type) -> msgspec.Meta:
    """Says of a field that it is a list of results of commands, of the kinds that one may be answered with."""
    return msgspec.Meta(extra={"results": kinds})


def batch(kind: type, prepare: Prepare | None = None, named: str = "") -> Handle:
    """A handler for an array of `kind`. Each must say the field `named`, which elsewhere the path says."""
    decoder = msgspec.json.Decoder(Annotated[list[kind], msgspec.Meta(min_length=1, max_length=BATCH_MAX)])  # type: ignore[valid-type]

    async def handle(call: Call) -> Batch | Answer:
        commands = decode(decoder, call.body)
        if prepare is not None:
            commands = [await tried(prepare, call, one) for one in commands]
        if named:
            commands = [one if getattr(one, named) else unnamed(named) for one in commands]
        return await each(call, commands)

    return handle


async def each(call: Call, commands: list[Any]) -> Batch | Answer:
    """Run the commands, each for itself; in the place of one a `StateError` says why it was refused beforehand."""
    asked = requests(call, commands)
    await refuse_reused(call, asked)
    outcomes = await all_of([place(call, request) for request in asked])
    refuse_ended(asked, outcomes)
    made = Batch([entry(outcome) for outcome in outcomes])
    return Answer(200, encode(made), (JSON, REPLAYED)) if replayed(outcomes) else made


async def all_of(futures: "list[asyncio.Future[Any]]") -> list[Any]:
    """The outcome of each, refusals among them. Most are there when the first is: `gather` would be called back by
    every one of them."""
    outcomes = []
    try:
        for future in futures:
            try:
                outcomes.append(await future)
            except Exception as error:
                outcomes.append(error.with_traceback(None))  # it leads back here: only a collection would find it
    finally:
        for future in futures[len(outcomes) :]:
            future.cancel()  # the caller went away: nobody asks what came of it, or will
    return outcomes


async def tried(prepare: Prepare, call: Call, one: Any) -> Any:
    """The item as it is to be run, or why it cannot be."""
    try:
        return await prepare(call, one)
    except StateError as refusal:
        return refusal


def unnamed(field: str) -> StateError:
    """422 for an item that does not say what it is for."""
    return invalid([(f"/{field}", "in a batch each item names what it is for")])


def place(call: Call, request: Request | StateError) -> "asyncio.Future[Any]":
    """The outcome to come; one refused beforehand leaves its neighbours alone."""
    try:
        if isinstance(request, StateError):
            raise request
        return call.services.kernel.submit(request)
    except StateError as refusal:
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused.set_exception(refusal)
        return refused


def requests(call: Call, commands: Sequence[Any]) -> list[Request | StateError]:
    """The commands as requests; under an Idempotency-Key each has its own, the key and its place."""
    key = call.headers.get(b"idempotency-key")
    text = None if key is None else idempotency_key(key)
    said, origin = "" if text is None else call.fingerprint(), Origin(call.source)
    return [
        one
        if isinstance(one, StateError)
        else Request(call.who, one, text and f"{text}{OF_BATCH}{index}", said, origin=origin)
        for index, one in enumerate(commands)
    ]


async def refuse_reused(call: Call, asked: Sequence[Request | StateError]) -> None:
    """422 for the whole request, before anything of it is run, when its key was used for another one; told to nobody
    whose token has ended."""
    keyed = {one.idempotency_key: one for one in asked if isinstance(one, Request) and one.idempotency_key}
    if not keyed:
        return

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("load_idempotency_keys", rows=[(call.who.tenant_id, key) for key in keyed])

    for row in await call.services.backend.read(read, tenants=call.who.reach):
        if row[2] != keyed[row[1]].fingerprint:
            await call.services.tokens.stands(call.who)
            raise mismatch(row[1].partition(OF_BATCH)[0])


def replayed(outcomes: list[Any]) -> bool:
    """Whether all that was done was done by an earlier request with the same key."""
    done = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    return bool(done) and all(isinstance(outcome, Replayed) for outcome in done)


def refuse_ended(asked: list[Request | StateError], outcomes: list[Any]) -> None:
    """A token that ended before any item was run is refused as it is elsewhere: the whole request, with 401, whatever
    stood in the way of others beforehand."""
    ended = [isinstance(outcome, StateError) and outcome.status == 401 for outcome in outcomes]
    if any(ended) and all(out for one, out in zip(asked, ended, strict=True) if isinstance(one, Request)):
        raise outcomes[ended.index(True)]


def entry(outcome: Any) -> Ok | Failed:
    """One result."""
    if isinstance(outcome, StateError):
        return Failed(document(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    return Ok(msgspec.Raw(outcome.body) if isinstance(outcome, Replayed) else outcome)
