"""The log over HTTP: append, read, tail, the tenant's feed, snapshots."""

import asyncio
import re
from typing import Annotated, Any

import msgspec

from backends.errors import StoreError
from backends.protocol import Row, Tx
from service.errors import StateError, not_found
from service.executions.model import ENDED
from service.history.fold import folded_on
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
from service.http.answer import NO_STORE, NOSNIFF, document, encode
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command
from service.http.lists import ALL, Page, Rows, listed, that_fit
from service.http.stream import hung_up
from service.http.texts import of_text
from service.kernel import request_id
from service.kernel.filters import Field, Vocabulary, compile
from service.kernel.run import away
from service.kernel.wake import Place, of_channel

After = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
AFTER = Query("after", After, 0, "Only events after this sequence.")
CHECK_SECONDS = 5.0
PAGE, MUCH = 1_000, 65_536
"""Events that a verification reads at a time."""
TAIL_EVENTS, TAIL_PART = 500, 1 / 32
"""Events that a tail reads at a time, and what part of a page's bytes: it has them in hand until its caller takes
them."""
UNBUFFERED = (b"x-accel-buffering", b"no")
"""A proxy such as nginx passes events on as they come, also where it is not told to in its own settings."""
DRAINING = StateError("server/draining", "The server is going away; connect again with Last-Event-ID.", retry_after=1)
FEED = Vocabulary(fields=(Field("kind", "v.kind", "text"),))


class FedEvent(msgspec.Struct, frozen=True):
    """An event of the tenant's feed."""

    execution_id: str
    event: ShownEvent


class Feed(msgspec.Struct, frozen=True):
    """Events of the feed. `next_cursor` is the `after` of the next page and always there: where there are no items, the
    same call, later, answers what has come by then."""

    items: list[FedEvent]
    next_cursor: str


class Events(msgspec.Struct, frozen=True):
    """A page of a log; `last_sequence` is where the log ends, `next_after` the way on, null at the end. A page of large
    events may be shorter than asked for. Where `last_sequence` is below `after`, what was seen is of another log."""

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
    fold: Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": Fold})]


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


async def page_of(call: Call, after: int, limit: int, part: float = 1) -> list[Row]:
    """Events after a sequence, in order, up to a part of a page's bytes."""

    of: dict[str, Any] = {"tenant_id": call.who.tenant_id, "execution_id": call.path["id"]}

    async def read(tx: Tx) -> list[Row]:
        async def behind(last: Row | None, most: int) -> list[Row]:
            return await tx.all("read_events", **of, after=after if last is None else last[0], limit=most)

        return await that_fit(behind, limit, part)

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
    """The log as server-sent events: what is there, then what comes; ends with the execution. If it must end before,
    its last event is a `goodbye`, whose data is a problem document. 409 for who has seen more than the log holds."""
    last, _ = await head(call)
    said = call.headers.get(b"last-event-id")
    after = last_event_id(said) if said else call.query["after"]
    refuse_ahead(after, last)
    return Tail(call, after, call.services.wakes.park(*of_channel(f"tail/{call.who.tenant_id}/{call.path['id']}")))


def last_event_id(said: bytes) -> int:
    """The sequence that a client saw last."""
    try:
        return of_text(said.decode("latin-1"), After)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        raise StateError("request/malformed", "The Last-Event-ID is a sequence: a whole number.") from None


def refuse_ahead(after: int, last: int) -> None:
    """409 for a log that ends before what its reader has seen: it would be waited for until other events have those
    sequences, and never told."""
    if after > last:
        raise StateError(
            "sequence/mismatch",
            f"The log ends at {last}, before {after}: what was seen is of another log, from before the store was put "
            "back or the execution was removed. Read this one from its beginning.",
            current_sequence=last,
        )


class Tail:
    """A stream of events. Each has its sequence as id, so a client that comes back misses and repeats nothing."""

    def __init__(self, call: Call, after: int, place: Place) -> None:
        self.call, self.after, self.place = call, after, place

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        traced = (request_id.HEADER, request_id.current())
        headers = [(b"content-type", b"text/event-stream"), NO_STORE, UNBUFFERED, NOSNIFF, traced]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(hung_up(receive))
        try:
            try:
                await self._stream(send, gone)
            except (StateError, StoreError) as error:  # the execution, or the store, went away meanwhile
                refusal = error if isinstance(error, StateError) else away(error)
                await self._goodbye(send, encode(document(refusal)))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    async def _stream(self, send: Any, gone: "asyncio.Future[None]") -> None:
        call = self.call
        with self.place as place:
            while not gone.done():
                last, status = await head(call)
                refuse_ahead(self.after, last)
                rows = await page_of(call, self.after, TAIL_EVENTS, TAIL_PART)
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


async def feed(call: Call) -> Feed:
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

    async def read(tx: Tx) -> tuple[Rows, Row | None]:
        bounds: dict[str, Any] = {"tenant_id": call.who.tenant_id, "horizon": found[0] if found else 0}

        async def behind(last: Row | None, most: int) -> list[Row]:
            commit_id, position = at if last is None else last[:2]
            place = {"commit_id": commit_id, "position": position, **bounds}
            return await tx.all("read_feed", where=condition, limit=most, **place)

        rows = await that_fit(behind, limit)
        ended = kinds is not None and not rows.cut and len(rows) < limit
        return rows, await tx.one("feed_end", **bounds) if ended else None

    rows, end = await call.scan(read)
    items = [FedEvent(row[2], show_event(row[3:])) for row in rows]
    last = max([at, *(list(row[:2]) for row in (*rows[-1:], end) if row)])
    return Feed(items, call.services.cursors.seal(scope, last))


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
        said = f"A sequence is a whole number of at most 18 digits; the path says {said!r}."
        raise StateError("request/malformed", said)
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
        bulky=True,
        tenant_id=call.who.tenant_id,
        execution_id=call.path["id"],
    )


async def verify(call: Call) -> Verified:
    """Replay the whole log, a page at a time, and compare with what is stored."""
    of = {"tenant_id": call.who.tenant_id, "execution_id": call.path["id"]}

    async def read(tx: Tx) -> tuple[Row | None, Replay]:
        replay = Replay(call)
        stored = await tx.one("read_execution", tenant_id=call.who.tenant_id, id=call.path["id"])
        while kept := await tx.one("read_snapshots", **of, after=replay.kept, limit=1):
            await replay.up_to(tx, kept[0])
            replay.compare_with(kept)
        await replay.up_to(tx, None)
        return stored, replay

    stored, replay = await call.scan(read)
    if stored is None:
        raise not_found("execution", call.path["id"])
    wrong = replay.told(stored)
    return Verified(call.path["id"], stored[8], not wrong, wrong)


class Replay:
    """A log, folded as it is read. `kept` is the sequence of the snapshot that it was compared with last."""

    def __init__(self, call: Call) -> None:
        self._of = call.who.tenant_id, call.path["id"]
        self._fold, self._dense, self._wrong = Fold(), True, list[str]()
        self.kept = 0

    async def up_to(self, tx: Tx, until: int | None) -> None:
        """Fold what follows, until a sequence or to the end."""
        tenant, execution = self._of

        async def behind(last: Row | None, most: int) -> list[Row]:
            after = self._fold.sequence if last is None else last[0]
            return await tx.all("read_events", tenant_id=tenant, execution_id=execution, after=after, limit=most)

        while until is None or self._fold.sequence < until:
            page = await that_fit(behind, PAGE if until is None else min(PAGE, until - self._fold.sequence))
            if not page:
                return
            expected = range(self._fold.sequence + 1, self._fold.sequence + 1 + len(page))
            self._dense = self._dense and [row[0] for row in page] == [*expected]
            for row in page:
                folded_on(self._fold, [LoggedEvent(tenant, execution, *row[:3], *row[5:7])])
                if len(row[2] or b"") > MUCH:  # it took a while; others have their turn
                    await asyncio.sleep(0)

    def compare_with(self, snapshot: Row) -> None:
        """A snapshot that is kept against the replay up to it."""
        self.kept, at = snapshot[0], msgspec.json.decode(snapshot[1], type=Fold)
        if at != self._fold:
            self._wrong.append(f"snapshot at {snapshot[0]}: replay and the snapshot differ")

    def told(self, stored: Row) -> list[str]:
        """What differs, the columns of the execution first."""
        wrong = []
        if not self._dense or self._fold.sequence != stored[8]:
            wrong.append("the log is not dense from 1 to the execution's sequence")
        if self._fold.status != stored[4]:
            wrong.append(f"status: replay says {self._fold.status!r}, the execution {stored[4]!r}")
        if self._fold.state != msgspec.json.decode(stored[18] or b"{}"):
            wrong.append("state: replay and the stored document differ")
        return wrong + self._wrong


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
        errors=("not-found", "sequence/mismatch"),
    ),
    Endpoint(
        "GET",
        "/v1/events",
        "readFeed",
        "read",
        "Every event of the tenant, in commit order",
        feed,
        reply=Feed,
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
