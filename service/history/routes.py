"""The log over HTTP: append, read, tail, the tenant's feed, snapshots."""

import asyncio
import re
from typing import Annotated, Any

import msgspec

from backends.protocol import Row, Tx
from service.errors import StateError, not_found
from service.executions.model import ENDED
from service.history.fold import fold
from service.history.model import (
    KIND_PATTERN,
    Appended,
    AppendEvents,
    Fold,
    LoggedEvent,
    ShownEvent,
    SnapshotWritten,
    WriteSnapshot,
    show_event,
)
from service.http.answer import NOSNIFF, document, encode
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command
from service.http.lists import ALL, Page, listed
from service.http.stream import hung_up
from service.kernel import request_id
from service.kernel.filters import Field, Vocabulary, compile
from service.kernel.wake import Place

After = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
AFTER = Query("after", After, 0, "Only events after this sequence.")
CHECK_SECONDS = 5.0
DRAINING = StateError("server/draining", "The server is going away; connect again with Last-Event-ID.", retry_after=1)
FEED = Vocabulary(fields=(Field("kind", "v.kind", "text"),))


class FedEvent(msgspec.Struct, frozen=True):
    """An event of the tenant's feed."""

    execution_id: str
    event: ShownEvent


class Events(msgspec.Struct, frozen=True):
    """A page of a log; `last_sequence` is where the log ends, `next_after` the way on, null at the end."""

    items: list[ShownEvent]
    last_sequence: int
    next_after: int | None


class Latest(msgspec.Struct, frozen=True):
    """Where a log ends."""

    execution_id: str
    sequence: int
    status: str


class ShownSnapshot(msgspec.Struct, frozen=True):
    """A snapshot: the fold of the log at `sequence`."""

    sequence: int
    created_at: int
    fold: msgspec.Raw


class Verified(msgspec.Struct, frozen=True):
    """Whether replay from the start agrees with the stored state, the status and every snapshot that is kept."""

    execution_id: str
    sequence: int
    matches: bool
    differences: list[str]


async def head(call: Call) -> tuple[int, str]:
    """Where the execution's log ends, and its status; 404 when there is none."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_sequence", tenant_id=call.who.tenant_id, execution_id=call.path["id"])

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("execution", call.path["id"])
    return row[0], row[1]


async def page_of(call: Call, after: int, limit: int) -> list[Row]:
    """Events after a sequence, in order."""

    async def read(tx: Tx) -> list[Row]:
        return await tx.all(
            "read_events", tenant_id=call.who.tenant_id, execution_id=call.path["id"], after=after, limit=limit
        )

    return await call.services.backend.read(read, tenants=call.who.reach)


async def events(call: Call) -> Events:
    """A page of the log. The page is read before the end, so that the end is never behind the page."""
    rows = await page_of(call, call.query["after"], call.query["limit"])
    last, _ = await head(call)
    more = bool(rows) and rows[-1][0] < last
    return Events([show_event(row) for row in rows], last, rows[-1][0] if more else None)


async def latest(call: Call) -> Latest:
    """Where the log ends."""
    sequence, status = await head(call)
    return Latest(call.path["id"], sequence, status)


async def tail(call: Call) -> Any:
    """The log as server-sent events: what is there, then what comes; ends with the execution."""
    await head(call)
    said = call.headers.get(b"last-event-id")
    after = last_event_id(said) if said else call.query["after"]
    topic = f"tail/{call.who.tenant_id}"
    channel = f"{topic}/{call.path['id']}"
    return Tail(call, after, call.services.wakes.park(topic, lambda told: told == channel))


def last_event_id(said: bytes) -> int:
    """The sequence that a client saw last."""
    try:
        return msgspec.convert(said.decode("latin-1"), After, strict=False)
    except msgspec.ValidationError:
        raise StateError("request/malformed", "The Last-Event-ID is a sequence: a whole number.") from None


class Tail:
    """A stream of events. Each has its sequence as id, so a client that comes back misses and repeats nothing."""

    def __init__(self, call: Call, after: int, place: Place) -> None:
        self.call, self.after, self.place = call, after, place

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        traced = (request_id.HEADER, request_id.current())
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), NOSNIFF, traced]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(hung_up(receive))
        try:
            try:
                await self._stream(send, gone)
            except StateError as refusal:  # the execution went away meanwhile
                await self._goodbye(send, encode(document(refusal)))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    async def _stream(self, send: Any, gone: "asyncio.Future[None]") -> None:
        call = self.call
        with self.place as place:
            while not gone.done():
                _, status = await head(call)
                rows = await page_of(call, self.after, 500)
                if rows and rows[0][0] > self.after + 1:
                    await head(call)  # not there: between the two its removal began
                said = await self._refused()  # after the page: what was logged since a revocation is never sent
                if said is None:
                    for row in rows:
                        await send({"type": "http.response.body", "body": frame(row), "more_body": True})
                        self.after = row[0]
                    if rows:
                        continue
                    if status in ENDED:
                        return
                if said is not None or not await place.rest(CHECK_SECONDS):
                    await self._goodbye(send, said or encode(document(DRAINING)))
                    return
                await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})

    @staticmethod
    async def _goodbye(send: Any, said: bytes) -> None:
        """Why the stream ends before the execution does."""
        goodbye = b"event: goodbye\nretry: 1000\ndata: %s\n\n" % said
        await send({"type": "http.response.body", "body": goodbye, "more_body": True})

    async def _refused(self) -> bytes | None:
        """Why the caller may not go on reading, or None: a token that was revoked meanwhile ends the stream."""
        try:
            await self.call.services.tokens.stands(self.call.who)
        except StateError as refusal:
            return encode(document(refusal))
        return None


def frame(row: Row) -> bytes:
    """One server-sent event. A body with line breaks between its parts becomes as many lines of data."""
    data = b"\ndata: ".join(encode(show_event(row)).splitlines())
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (row[0], row[1].encode(), data)


async def feed(call: Call) -> Page:
    """Every event of the tenant in the order of their commits; the cursor never skips one that commits late. At the end
    of a feed that is narrowed to kinds it stands behind the others too: the next page does not walk them again."""
    kinds = call.query["kinds"]
    condition = ALL
    if kinds is not None:
        refuse_kinds(kinds)
        quoted = ", ".join(f"'{kind}'" for kind in kinds.split(","))
        predicate = compile(f"kind IN ({quoted})", FEED)
        condition = (predicate.sql, predicate.params)

    async def horizon(tx: Tx) -> Row | None:
        return await tx.one("feed_horizon")

    found = await call.services.backend.read(horizon, tenants=call.who.reach)
    limit, cursor = call.query["limit"], call.query["after"]
    scope = [call.who.tenant_id, "feed"]
    at = [0, 0] if cursor is None else call.services.cursors.open(scope, cursor)

    async def read(tx: Tx) -> tuple[list[Row], Row | None]:
        bounds: dict[str, Any] = {"tenant_id": call.who.tenant_id, "horizon": found[0] if found else 0}
        rows = await tx.all("read_feed", where=condition, commit_id=at[0], position=at[1], limit=limit, **bounds)
        return rows, await tx.one("feed_end", **bounds) if kinds is not None and len(rows) < limit else None

    rows, end = await call.scan(read)
    items = [FedEvent(row[2], show_event(row[3:])) for row in rows]
    last = max([at, *(list(row[:2]) for row in (*rows[-1:], end) if row)])
    return Page(items, call.services.cursors.seal(scope, last))


def refuse_kinds(kinds: str) -> None:
    """400 for what cannot be the kind of an event."""
    for kind in kinds.split(","):
        if re.fullmatch(KIND_PATTERN, kind) is None:
            raise StateError(
                "request/malformed",
                f"{kind!r} in 'kinds' is no kind of event: a kind is 1–128 of a–z 0–9 _ . -, separated by commas.",
                parameter="kinds",
            )


async def write_snapshot(call: Call) -> SnapshotWritten:
    """Fold the log up to the sequence of the path."""
    said = call.path["sequence"]
    if not (said.isascii() and said.isdigit() and len(said) <= 18):
        raise StateError("request/malformed", f"A sequence is a whole number; the path says {said!r}.")
    return await call.run(WriteSnapshot(call.path["id"], int(said)))  # type: ignore[no-any-return]


async def latest_snapshot(call: Call) -> ShownSnapshot:
    """The newest snapshot."""

    async def read(tx: Tx) -> Row | None:
        of = {"tenant_id": call.who.tenant_id, "execution_id": call.path["id"]}
        if await tx.one("read_sequence", **of) is None:
            return None
        return await tx.one("read_snapshot_latest", **of, sequence=2**62)

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("snapshot of execution", call.path["id"])
    return ShownSnapshot(row[0], row[2], msgspec.Raw(row[1]))


async def snapshots(call: Call) -> Page:
    """The snapshots that are kept."""
    await head(call)
    return await listed(
        call,
        "read_snapshots",
        (0,),
        ("after",),
        lambda row: ShownSnapshot(row[0], row[2], msgspec.Raw(row[1])),
        lambda row: (row[0],),
        tenant_id=call.who.tenant_id,
        execution_id=call.path["id"],
    )


async def verify(call: Call) -> Verified:
    """Replay the whole log and compare with what is stored."""
    tenant, execution = call.who.tenant_id, call.path["id"]

    async def read(tx: Tx) -> tuple[Row | None, list[Row], list[Row]]:
        stored = await tx.one("read_execution", tenant_id=tenant, id=execution)
        log: list[Row] = []
        after = 0
        while page := await tx.all("read_events", tenant_id=tenant, execution_id=execution, after=after, limit=1000):
            log += page
            after = page[-1][0]
        kept = await tx.all("read_snapshots", tenant_id=tenant, execution_id=execution, after=0, limit=1000)
        return stored, log, kept

    stored, log, kept = await call.scan(read)
    if stored is None:
        raise not_found("execution", execution)
    logged = [LoggedEvent(tenant, execution, row[0], row[1], row[2], row[5], row[6]) for row in log]
    return compare(execution, stored, logged, kept)


def compare(execution: str, stored: Row, log: list[LoggedEvent], kept: list[Row]) -> Verified:
    """What replay adds up to against the columns and the snapshots that are kept."""
    replayed, wrong = fold(log), []
    if [event.sequence for event in log] != list(range(1, stored[8] + 1)):
        wrong.append("the log is not dense from 1 to the execution's sequence")
    if replayed.status != stored[4]:
        wrong.append(f"status: replay says {replayed.status!r}, the execution {stored[4]!r}")
    if replayed.state != msgspec.json.decode(stored[18] or b"{}"):
        wrong.append("state: replay and the stored document differ")
    for row in kept:
        at = msgspec.json.decode(row[1], type=Fold)
        if at.sequence != row[0] or fold(log[: at.sequence]) != at:
            wrong.append(f"snapshot at {row[0]}: replay and the snapshot differ")
    return Verified(execution, stored[8], not wrong, wrong)


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions/{id}/events",
        "appendEvents",
        "execution.write",
        "Append events",
        command(AppendEvents, execution_id="id"),
        reply=Appended,
        body=AppendEvents,
        created=True,
        errors=(
            "not-found",
            "execution/terminal",
            "sequence/mismatch",
            "limit/events-per-execution",
            "limit/payload-bytes",
        ),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/events",
        "getEvents",
        "read",
        "Read the log",
        events,
        reply=Events,
        writes=False,
        query=(AFTER, LIMIT),
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/events:latest",
        "latestSequence",
        "read",
        "Where the log ends",
        latest,
        reply=Latest,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/events:tail",
        "tailEvents",
        "read",
        "Follow the log as server-sent events",
        tail,
        reply=ShownEvent,
        writes=False,
        query=(AFTER,),
        media="text/event-stream",
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/events",
        "readFeed",
        "read",
        "Every event of the tenant, in commit order",
        feed,
        reply=Page,
        item=FedEvent,
        writes=False,
        query=(
            LIMIT,
            Query("after", str, None, "`next_cursor` of the page before; it is always given, also at the end."),
            Query("kinds", str, None, "Only these kinds, separated by commas."),
        ),
        errors=("request/cursor", "request/filter"),
    ),
    Endpoint(
        "PUT",
        "/v1/executions/{id}/snapshots/{sequence}",
        "writeSnapshot",
        "execution.write",
        "Fold the log and keep the result",
        write_snapshot,
        reply=SnapshotWritten,
        errors=("not-found", "snapshot/ahead", "execution/terminal", "request/invalid", "limit/events-per-execution"),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/snapshots:latest",
        "latestSnapshot",
        "read",
        "The newest snapshot",
        latest_snapshot,
        reply=ShownSnapshot,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/snapshots",
        "listSnapshots",
        "read",
        "The snapshots that are kept",
        snapshots,
        reply=Page,
        item=ShownSnapshot,
        writes=False,
        query=(LIMIT, CURSOR),
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/snapshots:verify",
        "verifySnapshots",
        "read",
        "Replay the log and compare",
        verify,
        reply=Verified,
        writes=False,
        errors=("not-found",),
    ),
]
