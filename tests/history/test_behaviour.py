"""What callers may rely on of the log: appending, reading, following it live, the tenant's feed, snapshots."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from backends.errors import Unavailable
from backends.protocol import Tx
from service.executions.model import Execution
from service.history.routes import TAIL_PART, head, page_of
from service.http.lists import PAGE_BYTES
from tests.conftest import Api

JSON = {"content-type": "application/json"}


def at(made: Any, path: str = "") -> str:
    """A route of an execution."""
    return f"/v1/executions/{made['execution_id']}{path}"


async def append(api: Api, made: Any, *kinds: str, **body: Any) -> Any:
    return await api.ok("POST", at(made, "/events"), json={"events": [{"kind": kind} for kind in kinds]} | body)


async def verified(api: Api, made: Any) -> None:
    """Replay agrees with what is stored."""
    found = await api.ok("POST", at(made, "/snapshots:verify"))
    assert found["matches"], found["differences"]


async def kept(api: Api, made: Any) -> list[int]:
    """The sequences of the snapshots that are kept."""
    return [one["sequence"] for one in (await api.ok("GET", at(made, "/snapshots")))["items"]]


async def limit(api: Api, **limits: int) -> None:
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text


# ── append ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_sequences_are_dense_from_one_and_given_by_the_service(api: Api) -> None:
    made = await api.start()
    first = await append(api, made, "a", "b")
    api.clock.advance(7)
    second = await append(api, made, "c")
    assert (first["first_sequence"], first["last_sequence"]) == (2, 3)
    assert (second["first_sequence"], second["last_sequence"]) == (4, 4)
    log = await api.events(made["execution_id"])
    assert [event["sequence"] for event in log] == [1, 2, 3, 4]
    assert [event["kind"] for event in log] == ["execution.started", "a", "b", "c"]
    assert log[3]["at"] == log[2]["at"] + 7 == api.clock.now


async def test_sequences_of_two_executions_are_their_own(api: Api) -> None:
    one, two = await api.start(), await api.start()
    await append(api, one, "a", "b")
    assert (await append(api, two, "c"))["first_sequence"] == 2


async def test_appends_at_once_leave_no_gap_and_share_no_sequence(api: Api) -> None:
    made = await api.start()
    told = await asyncio.gather(*(append(api, made, f"k{n}", f"k{n}.b") for n in range(25)))
    log = await api.events(made["execution_id"])
    assert [event["sequence"] for event in log] == list(range(1, 52))
    for n, reply in enumerate(told):
        pair = log[reply["first_sequence"] - 1 : reply["last_sequence"]]
        assert [event["kind"] for event in pair] == [f"k{n}", f"k{n}.b"]


async def test_an_event_keeps_what_was_said_of_it(api: Api) -> None:
    made = await api.start()
    told = {"kind": "my.kind-1_x", "body": {"x": [1, None]}, "node_id": "n1", "causation_id": "because"}
    await api.ok("POST", at(made, "/events"), json={"events": [told]})
    event = (await api.events(made["execution_id"]))[-1]
    assert {name: event[name] for name in told} == told
    assert event["actor"]


async def test_bodies_of_unknown_kinds_come_back_byte_for_byte(api: Api) -> None:
    made = await api.start()
    odd = b'{"b": 1.50,\n "a":\t[null, "\\u00e9"], "n": 9007199254740993, "b": 2}'
    body = b'{"events": [{"kind": "future.kind", "body": %s}, {"kind": "none"}, {"kind": "nil", "body": null}]}' % odd
    answer = await api.http.post(at(made, "/events"), content=body, headers=JSON)
    assert answer.status_code == 201, answer.text
    assert b'"body":' + odd in (await api.http.get(at(made, "/events"))).content
    assert [event["body"] for event in (await api.events(made["execution_id"]))[2:]] == [None, None]


async def test_a_thousand_events_are_appended_at_once(api: Api) -> None:
    made = await api.start()
    reply = await api.ok("POST", at(made, "/events"), json={"events": [{"kind": "x", "body": n} for n in range(1000)]})
    assert (reply["first_sequence"], reply["last_sequence"]) == (2, 1001)
    log = await api.ok("GET", at(made, "/events"), params={"after": 1, "limit": 1000})
    assert [event["body"] for event in log["items"]] == list(range(1000))
    await verified(api, made)


@pytest.mark.parametrize("count", [0, 1001])
async def test_an_append_has_one_to_a_thousand_events(api: Api, count: int) -> None:
    made = await api.start()
    await api.refused("POST", at(made, "/events"), "request/invalid", json={"events": [{"kind": "x"}] * count})


@pytest.mark.parametrize("kind", ["", "Upper", "with space", "x" * 129, "semi;colon", None])
async def test_a_kind_is_a_short_lower_case_name(api: Api, kind: Any) -> None:
    made = await api.start()
    await api.refused("POST", at(made, "/events"), "request/invalid", json={"events": [{"kind": kind}]})


@pytest.mark.parametrize("kind", ["state.replaced", "execution.completed", "work.completed", "snapshot.written"])
async def test_nobody_forges_a_kind_that_replay_believes(api: Api, kind: str) -> None:
    made = await api.start(state={"a": 1})
    body = {"events": [{"kind": "fine"}, {"kind": kind, "body": {"to": "failed"}}]}
    problem = await api.refused("POST", at(made, "/events"), "request/invalid", json=body)
    assert [error["pointer"] for error in problem["errors"]] == ["/events/1/kind"]
    change = {"type": "append", "kind": kind}
    await api.refused("POST", at(made, "/transitions"), "request/invalid", json={"changes": [change]})
    assert len(await api.events(made["execution_id"])) == 1
    await verified(api, made)


async def test_a_batch_with_one_event_past_a_limit_appends_nothing(api: Api) -> None:
    made = await api.start()
    await limit(api, payload_bytes=10, events_per_execution=4)
    body = {"events": [{"kind": "fine"}, {"kind": "long", "body": "x" * 20}]}
    await api.refused("POST", at(made, "/events"), "limit/payload-bytes", json=body)
    problem = await api.refused(
        "POST", at(made, "/events"), "limit/events-per-execution", json={"events": [{"kind": "x"}] * 4}
    )
    assert (problem["limit"], problem["current"]) == (4, 1)
    assert (await api.ok("GET", at(made, "/events:latest")))["sequence"] == 1
    assert (await append(api, made, "a", "b", "c"))["last_sequence"] == 4


async def test_an_append_whose_answer_was_lost_is_not_doubled_under_its_key(api: Api) -> None:
    made = await api.start()
    asked: dict[str, Any] = {"json": {"events": [{"kind": "x"}]}, "headers": {"idempotency-key": "k"}}
    first, again = await api.http.post(at(made, "/events"), **asked), await api.http.post(at(made, "/events"), **asked)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await api.events(made["execution_id"])) == 2


async def test_an_append_whose_answer_was_lost_is_not_doubled_under_its_expected_sequence(api: Api) -> None:
    made = await api.start()
    await append(api, made, "x", expected_sequence=1)
    problem = await api.refused(
        "POST", at(made, "/events"), "sequence/mismatch", json={"events": [{"kind": "x"}], "expected_sequence": 1}
    )
    assert problem["current_sequence"] == 2


# ── read ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_log_is_read_in_pages_after_a_sequence(api: Api) -> None:
    made = await api.start()
    await append(api, made, *(f"k{n}" for n in range(9)))
    seen, after = [], 0
    while after is not None:
        page = await api.ok("GET", at(made, "/events"), params={"after": after, "limit": 4})
        assert page["last_sequence"] == 10
        seen += [event["sequence"] for event in page["items"]]
        after = page["next_after"]
    assert seen == list(range(1, 11))


async def test_after_is_exclusive_and_may_be_past_the_end(api: Api) -> None:
    made = await api.start()
    await append(api, made, "a", "b")
    page = await api.ok("GET", at(made, "/events"), params={"after": 2})
    assert [event["sequence"] for event in page["items"]] == [3]
    past = await api.ok("GET", at(made, "/events"), params={"after": 99})
    assert (past["items"], past["last_sequence"], past["next_after"]) == ([], 3, None)


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=1001", "before=3"])
async def test_a_page_that_cannot_be_is_refused(api: Api, query: str) -> None:
    made = await api.start()
    await api.refused("GET", at(made, f"/events?{query}"), "request/malformed")


async def test_the_latest_sequence_is_the_last_event(api: Api) -> None:
    made = await api.start()
    await append(api, made, "a")
    found = await api.ok("GET", at(made, "/events:latest"))
    assert found == {"execution_id": made["execution_id"], "sequence": 2, "status": "running"}


@pytest.mark.parametrize("path", ["/events", "/events:latest", "/events:tail", "/snapshots", "/snapshots:latest"])
async def test_the_log_of_what_is_not_there_or_anothers_is_the_same_404(api: Api, other: Api, path: str) -> None:
    await other.start(execution_id="nobody-a")
    theirs = await api.refused("GET", f"/v1/executions/nobody-a{path}", "not-found")
    missing = await api.refused("GET", f"/v1/executions/nobody-b{path}", "not-found")
    assert theirs["detail"].replace("nobody-a", "") == missing["detail"].replace("nobody-b", "")


# ── tail ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Stream:
    """Server-sent events as they come, read through the application itself."""

    def __init__(self) -> None:
        self.status = 0
        self.gone = asyncio.Event()
        self._frames: asyncio.Queue[dict[str, str] | None] = asyncio.Queue()
        self._text = ""

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self._text += message.get("body", b"").decode()
        *whole, self._text = self._text.split("\n\n")
        for frame in whole:
            if not frame.startswith(":"):
                self._frames.put_nowait(parsed(frame))
        if not message.get("more_body"):
            self._frames.put_nowait(None)

    async def next(self) -> dict[str, str] | None:
        """The next event; None once the stream has ended."""
        return await asyncio.wait_for(self._frames.get(), 20)

    async def take(self, count: int) -> list[int]:
        """The sequences of the next events."""
        frames = [await self.next() for _ in range(count)]
        return [int(frame["id"]) for frame in frames if frame is not None]

    async def rest(self) -> list[int]:
        """The sequences of all that comes until the stream ends."""
        found = []
        while (frame := await self.next()) is not None:
            found.append(int(frame["id"]))
        return found


def parsed(frame: str) -> dict[str, str]:
    """A frame's fields, lines of data joined as a client joins them."""
    fields: dict[str, str] = {}
    for line in frame.split("\n"):
        name, _, value = line.partition(": ")
        fields[name] = fields[name] + "\n" + value if name in fields else value
    return fields


@contextlib.asynccontextmanager
async def tailing(
    api: Api, made: Any, query: str = "", token: str | None = None, **headers: str
) -> AsyncIterator[Stream]:
    """A tail of the execution's log, hung up at the end."""
    stream = Stream()
    sent = {"host": "holdfast", "authorization": f"Bearer {token or api.owner_token}"} | headers
    path = at(made, "/events:tail")
    scope: Any = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1), "server": ("holdfast", 80),
    }  # fmt: skip
    running = asyncio.ensure_future(api.service.app(scope, stream.receive, stream.send))  # type: ignore[arg-type]
    try:
        yield stream
    finally:
        stream.gone.set()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def end(api: Api, made: Any) -> None:
    await api.ok("POST", at(made, "/status"), json={"status": "completed"})


async def test_a_tail_tells_what_was_then_what_comes_and_ends_with_the_execution(api: Api) -> None:
    made = await api.start()
    await append(api, made, "a")
    async with tailing(api, made) as stream:
        assert await stream.take(2) == [1, 2]
        await append(api, made, "b", "c")
        assert await stream.take(2) == [3, 4]
        await end(api, made)
        assert await stream.rest() == [5]
    assert stream.status == 200


async def test_a_tail_of_what_has_ended_is_the_whole_log(api: Api) -> None:
    made = await api.start()
    await end(api, made)
    async with tailing(api, made) as stream:
        assert await stream.rest() == [1, 2]


async def test_a_frame_is_the_event_as_it_is_read(api: Api) -> None:
    made = await api.start()
    text = b'{"events": [{"kind": "my.kind", "body": {"a":\n  1,\r\n "b": "\xe2\x80\xa8"}}]}'
    await api.http.post(at(made, "/events"), content=text, headers=JSON)
    await end(api, made)
    async with tailing(api, made, "after=1") as stream:
        frame = await stream.next()
    assert frame is not None
    assert (frame["id"], frame["event"]) == ("2", "my.kind")
    assert msgspec.json.decode(frame["data"]) == (await api.events(made["execution_id"]))[1]


@pytest.mark.parametrize("seen", range(5))
async def test_a_client_that_comes_back_misses_and_repeats_nothing(api: Api, seen: int) -> None:
    made = await api.start()
    await append(api, made, "a", "b")
    await end(api, made)
    async with tailing(api, made, last_event_id=str(seen)) as stream:
        assert await stream.rest() == list(range(seen + 1, 5))


async def test_the_last_event_id_goes_before_the_query(api: Api) -> None:
    made = await api.start()
    await end(api, made)
    async with tailing(api, made, "after=0", last_event_id="1") as stream:
        assert await stream.rest() == [2]


async def test_nothing_is_missed_or_repeated_between_replay_and_live(api: Api) -> None:
    made = await api.start()
    await append(api, made, *["x"] * 700)

    async def write() -> None:
        for _ in range(30):
            await append(api, made, "y", "z")
        await end(api, made)

    async with tailing(api, made) as one, tailing(api, made, last_event_id="650") as two:
        first, second, _ = await asyncio.gather(one.rest(), two.rest(), write())
    assert first == list(range(1, 763))
    assert second == list(range(651, 763))


async def test_every_tail_hears_of_every_event(api: Api) -> None:
    made, quiet = await api.start(), await api.start()
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(tailing(api, made)) for _ in range(3)]
        silent = await stack.enter_async_context(tailing(api, quiet))
        await asyncio.gather(*(stream.take(1) for stream in (*streams, silent)))
        await append(api, made, "a")
        assert [await stream.take(1) for stream in streams] == [[2]] * 3
        await append(api, quiet, "b")
        assert await silent.take(1) == [2]


@pytest.mark.parametrize("said", ["x", "-1", "1.5", "1.0", "1e0", "9" * 30])
async def test_a_last_event_id_that_is_no_sequence_is_refused(api: Api, said: str) -> None:
    made = await api.start()
    problem = await api.refused("GET", at(made, "/events:tail"), "request/malformed", headers={"last-event-id": said})
    assert problem["status"] == 400


@pytest.mark.parametrize("how", ["query", "header"])
async def test_a_tail_from_behind_the_end_is_refused_and_at_the_end_waits(api: Api, how: str) -> None:
    made = await api.start()
    await append(api, made, "a")

    def from_(sequence: int) -> dict[str, Any]:
        said = str(sequence)
        return {"params": {"after": said}} if how == "query" else {"headers": {"last-event-id": said}}

    problem = await api.refused("GET", at(made, "/events:tail"), "sequence/mismatch", **from_(3))
    assert (problem["status"], problem["current_sequence"]) == (409, 2)
    async with tailing(api, made, "after=2") as stream:
        await append(api, made, "b")
        assert await stream.take(1) == [3]


async def test_a_tail_of_a_log_that_begins_anew_meanwhile_says_so_and_ends(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, told = await api.start(), head
    await append(api, made, "a", "b")
    async with tailing(api, made) as stream:
        assert await stream.take(3) == [1, 2, 3]

        async def shorter(call: Any) -> tuple[int, str]:
            return 1, (await told(call))[1]

        monkeypatch.setattr("service.history.routes.head", shorter)
        await append(api, made, "c")
        goodbye = await stream.next()
        assert goodbye is not None and goodbye["event"] == "goodbye"
        data = msgspec.json.decode(goodbye["data"])
        assert (data["code"], data["current_sequence"]) == ("sequence/mismatch", 1)
        assert await stream.next() is None


async def test_a_revoked_token_hears_no_more(api: Api) -> None:
    made = await api.start()
    token = await api.service.token(api.tenant, "viewer")
    viewer = api.service.client(token)
    async with tailing(api, made, token=token) as stream:
        assert await stream.take(1) == [1]
        assert (await viewer.delete("/v1/tokens/self")).status_code < 300
        await append(api, made, "a")
        goodbye = await stream.next()
        assert goodbye is not None and goodbye["event"] == "goodbye", "nothing that was logged since is told"
        assert msgspec.json.decode(goodbye["data"])["code"] == "auth/revoked"
        assert await stream.next() is None


async def test_a_tail_that_loses_the_store_says_so_and_ends(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await api.start()

    async def away(*_: Any) -> Any:
        raise Unavailable("the database is away")

    async with tailing(api, made) as stream:
        assert await stream.take(1) == [1]
        monkeypatch.setattr("service.history.routes.page_of", away)
        await append(api, made, "a")
        goodbye = await stream.next()
        assert goodbye is not None and goodbye["event"] == "goodbye"
        assert msgspec.json.decode(goodbye["data"])["code"] == "store/unavailable"
        assert await stream.next() is None


async def test_a_tail_has_little_in_hand(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await api.start()
    for _ in range(6):
        events = [{"kind": "large", "body": "x" * 100_000}, *[{"kind": "small"}] * 20]
        await api.ok("POST", at(made, "/events"), json={"events": events})
    await end(api, made)
    read: list[int] = []

    async def counted(call: Any, after: int, limit: int, part: float) -> Any:
        rows = await page_of(call, after, limit, part)
        read.append(sum(len(value) for row in rows for value in row if type(value) is bytes))
        return rows

    monkeypatch.setattr("service.history.routes.page_of", counted)
    async with tailing(api, made) as stream:
        assert await stream.rest() == [*range(1, 6 * 21 + 3)]
    assert len(read) > 2 and max(read) < PAGE_BYTES * TAIL_PART + 101_000


# ── feed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def fed(api: Api, cursor: str | None = None, limit: int = 100, **params: Any) -> tuple[list[Any], str]:
    asked = {"limit": limit} | params | ({} if cursor is None else {"after": cursor})
    page = await api.ok("GET", "/v1/events", params=asked)
    return page["items"], page["next_cursor"]


async def test_the_feed_is_every_event_of_the_tenant_in_commit_order(api: Api, other: Api) -> None:
    one, two = await api.start(), await api.start()
    await other.start()
    await append(api, one, "a")
    await append(api, two, "b", "c")
    await append(api, one, "d")
    items, _ = await fed(api)
    assert [(item["execution_id"], item["event"]["kind"]) for item in items] == [
        (one["execution_id"], "execution.started"), (two["execution_id"], "execution.started"),
        (one["execution_id"], "a"), (two["execution_id"], "b"), (two["execution_id"], "c"), (one["execution_id"], "d"),
    ]  # fmt: skip


async def test_a_feeds_cursor_goes_on_where_it_stood_also_at_the_end(api: Api) -> None:
    made = await api.start()
    await append(api, made, *(f"k{n}" for n in range(6)))
    seen, cursor = [], None
    while True:
        items, cursor = await fed(api, cursor, 3)
        if not items:
            break
        seen += [item["event"]["sequence"] for item in items]
    assert seen == list(range(1, 8))
    await append(api, made, "late")
    items, _ = await fed(api, cursor)
    assert [item["event"]["kind"] for item in items] == ["late"]


async def test_a_feed_read_while_others_write_skips_and_repeats_nothing(api: Api) -> None:
    made = [await api.start() for _ in range(4)]
    seen: list[tuple[str, int]] = []

    async def write(one: Any) -> None:
        for n in range(15):
            await append(api, one, f"k{n}")

    async def read() -> None:
        cursor = None
        while len(seen) < 4 * 16:
            items, cursor = await fed(api, cursor, 5)
            seen.extend((item["execution_id"], item["event"]["sequence"]) for item in items)

    await asyncio.wait_for(asyncio.gather(read(), *(write(one) for one in made)), 60)
    assert len(seen) == len(set(seen))
    assert set(seen) == {(one["execution_id"], n) for one in made for n in range(1, 17)}


async def test_a_feed_is_narrowed_to_kinds(api: Api) -> None:
    made = await api.start()
    await append(api, made, "a", "b", "a", "c")
    items, cursor = await fed(api, kinds="a,c")
    assert [item["event"]["kind"] for item in items] == ["a", "a", "c"]
    await append(api, made, "b", "c")
    items, _ = await fed(api, cursor, kinds="a,c")
    assert [item["event"]["kind"] for item in items] == ["c"]
    _, cursor = await fed(api, kinds="rare")
    await append(api, made, "a", "b")
    items, later = await fed(api, cursor, kinds="rare")
    assert (items, later == cursor) == ([], False), "what was passed over is not walked again"
    await append(api, made, "a", "rare")
    assert [item["event"]["kind"] for item in (await fed(api, later, kinds="rare"))[0]] == ["rare"]
    assert [item["event"]["kind"] for item in (await fed(api, later))[0]] == ["a", "rare"]
    for kinds in ("", "a,", "A", "a'b", "a c"):
        problem = await api.refused("GET", "/v1/events", "request/malformed", params={"kinds": kinds})
        assert problem["parameter"] == "kinds"


async def test_a_feeds_cursor_is_its_tenants_own(api: Api, other: Api) -> None:
    await api.start()
    _, cursor = await fed(api)
    await other.refused("GET", "/v1/events", "request/cursor", params={"after": cursor})
    await api.refused("GET", "/v1/events", "request/cursor", params={"after": "abc"})
    await api.refused("GET", "/v1/events", "request/malformed", params={"kind": "a"})


# ── snapshots ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def busy(api: Api) -> Any:
    """An execution with a state, a completed node, an active node and some events: eight in all."""
    made = await api.start(state={"n": 0}, start={"queue": "q", "node_id": "one"})
    [item] = await api.claim("q")
    done = {"epoch": item["epoch"], "result": {"r": 1}}
    await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json=done)
    await api.ok("PATCH", at(made, "/state"), json={"a": 1})
    await api.ok("POST", "/v1/work-items", json={"execution_id": made["execution_id"], "queue": "q", "node_id": "two"})
    await append(api, made, "x", "y")
    await api.ok("POST", at(made, "/status"), json={"status": "paused"})
    await api.ok("PUT", at(made, "/state"), json={"b": 2})
    return made


async def test_a_snapshot_is_the_fold_of_the_log(api: Api) -> None:
    made = await busy(api)
    written = await api.ok("PUT", at(made, "/snapshots/8"))
    assert (written["snapshot_sequence"], written["sequence"]) == (8, 9)
    found = await api.ok("GET", at(made, "/snapshots:latest"))
    [item] = await api.claim("q")
    assert (found["sequence"], found["created_at"]) == (8, api.clock.now)
    assert found["fold"] == {
        "sequence": 8, "status": "paused", "state": {"b": 2}, "completed_nodes": {"one": {"r": 1}},
        "active_nodes": {"two": [item["id"]]},
    }  # fmt: skip
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["body"]["sequence"]) == ("snapshot.written", 8)
    await verified(api, made)


async def test_a_snapshot_below_the_end_is_the_fold_up_to_there(api: Api) -> None:
    made = await busy(api)
    await api.ok("PUT", at(made, "/snapshots/3"))
    found = await api.ok("GET", at(made, "/snapshots:latest"))
    assert (found["sequence"], found["fold"]["state"], found["fold"]["status"]) == (3, {"n": 0, "a": 1}, "running")
    await verified(api, made)


async def test_snapshots_may_be_written_in_any_order(api: Api) -> None:
    made = await busy(api)
    for sequence in (8, 5, 1, 7, 2):
        await api.ok("PUT", at(made, f"/snapshots/{sequence}"))
        assert sequence in await kept(api, made)
        await verified(api, made)


async def test_a_snapshot_ahead_of_the_log_is_refused(api: Api) -> None:
    made = await api.start()
    problem = await api.refused("PUT", at(made, "/snapshots/2"), "snapshot/ahead")
    assert (problem["status"], problem["current_sequence"]) == (409, 1)
    assert await kept(api, made) == []


@pytest.mark.parametrize("said", ["0", "-1", "x", "1.0", "9" * 19, "1e2"])
async def test_a_snapshot_is_at_a_sequence(api: Api, said: str) -> None:
    made = await api.start()
    answer = await api.http.put(at(made, f"/snapshots/{said}"))
    assert answer.status_code in (400, 422), answer.text
    assert len(await api.events(made["execution_id"])) == 1


async def test_a_snapshot_is_folded_and_never_taken_from_the_caller(api: Api) -> None:
    made = await api.start()
    await api.refused("PUT", at(made, "/snapshots/1"), "request/malformed", json={"state": {"forged": True}})
    assert await kept(api, made) == []


async def test_the_same_snapshot_again_changes_nothing(api: Api) -> None:
    made = await api.start()
    first = await api.ok("PUT", at(made, "/snapshots/1"))
    assert await api.ok("PUT", at(made, "/snapshots/1")) == first
    assert len(await api.events(made["execution_id"])) == 2


async def test_the_last_three_snapshots_are_kept(api: Api) -> None:
    made = await api.start()
    await append(api, made, *"abcdef")
    for sequence in (2, 3, 4, 5, 6):
        await api.ok("PUT", at(made, f"/snapshots/{sequence}"))
    assert await kept(api, made) == [4, 5, 6]
    assert (await api.ok("GET", at(made, "/snapshots:latest")))["sequence"] == 6


async def test_a_snapshot_written_below_those_kept_takes_the_place_of_none(api: Api) -> None:
    made = await api.start()
    await append(api, made, *"abcdefghi")
    for sequence in (4, 6, 8):
        await api.ok("PUT", at(made, f"/snapshots/{sequence}"))
    for sequence, left in ((2, [2, 4, 6, 8]), (3, [3, 4, 6, 8]), (5, [5, 6, 8]), (7, [6, 7, 8]), (9, [7, 8, 9])):
        await api.ok("PUT", at(made, f"/snapshots/{sequence}"))
        assert await kept(api, made) == left
        await verified(api, made)


async def test_snapshots_are_read_in_pages(api: Api) -> None:
    made = await api.start()
    await append(api, made, "a", "b")
    for sequence in (1, 2, 3):
        await api.ok("PUT", at(made, f"/snapshots/{sequence}"))
    first = await api.ok("GET", at(made, "/snapshots"), params={"limit": 2})
    rest = await api.ok("GET", at(made, "/snapshots"), params={"limit": 2, "cursor": first["next_cursor"]})
    assert [one["sequence"] for one in (*first["items"], *rest["items"])] == [1, 2, 3]
    assert rest["next_cursor"] is None


async def test_without_a_snapshot_there_is_no_latest(api: Api) -> None:
    made = await api.start()
    await api.refused("GET", at(made, "/snapshots:latest"), "not-found")
    assert await kept(api, made) == []


async def test_a_terminal_executions_snapshots_can_be_read_and_verified(api: Api) -> None:
    made = await busy(api)
    await api.ok("PUT", at(made, "/snapshots/4"))
    await api.ok("POST", at(made, "/status"), json={"status": "cancelled"})
    assert (await api.ok("GET", at(made, "/snapshots:latest")))["sequence"] == 4
    assert await kept(api, made) == [4]
    await verified(api, made)
    await api.refused("PUT", at(made, "/snapshots/5"), "execution/terminal")


async def test_verify_tells_what_differs(api: Api) -> None:
    made = await busy(api)
    await api.ok("PUT", at(made, "/snapshots/8"))
    tenant = api.tenant

    async def spoil(tx: Any) -> None:
        state = [(tenant, made["execution_id"], b'{"b":3}', 99, 8)]
        assert await tx.many("update_states", state) == 1
        await tx.many("delete_snapshots", [(tenant, made["execution_id"], 8)])
        body = b'{"sequence":8,"status":"running","state":{},"completed_nodes":{},"active_nodes":{}}'
        await tx.many("insert_snapshots", [(tenant, made["execution_id"], 8, body, 0)])

    await api.service.services.backend.write(spoil)
    found = await api.ok("POST", at(made, "/snapshots:verify"))
    assert found["matches"] is False
    assert [re.split(r"[: ]", told)[0] for told in found["differences"]] == ["state", "snapshot"]


# ── snapshots that write themselves ────────────────────────────────────────────────────────────────────────────────


def ir() -> dict[str, Any]:
    return {
        "workflow_id": "wf", "version": "1", "start_node": "n", "nodes": {"n": {"id": "n", "kind": {"type": "q"}}},
        "edges": [{"from": "n", "to": "end"}], "retry_policies": {},
    }  # fmt: skip


async def pinned(api: Api, every: int, *, size: int = 0, keep: int = 3, **body: Any) -> Any:
    """An execution whose definition wants a snapshot each so many events, or bytes of their bodies."""
    params = {"snapshot_events": every, "snapshot_bytes": size, "snapshot_keep": keep}
    await api.ok("PUT", "/v1/definitions/wf/1", params=params, json=ir())
    return await api.start(version="1", **body)


async def grow(api: Api, made: Any, *sizes: int) -> None:
    """One append of events whose bodies have so many bytes."""
    events = [{"kind": "x", "body": "b" * (size - 2)} for size in sizes]
    await api.ok("POST", at(made, "/events"), json={"events": events})


async def unfolded(api: Api, made: Any) -> int:
    """What the execution's row says of the bytes since the newest snapshot; it is held against the log itself."""

    async def read(tx: Tx) -> Any:
        head = await tx.all("load_executions", rows=[(api.tenant, made["execution_id"], None)])
        return head, await tx.all("events_of_executions", rows=[(api.tenant, made["execution_id"])])

    [head], log = await api.service.services.backend.write(read)
    execution = Execution(*head)
    assert execution.unfolded_bytes == sum(len(row[4] or b"") for row in log if row[2] > execution.snapshot_sequence)
    return execution.unfolded_bytes


async def test_a_workflow_of_code_has_a_snapshot_each_two_hundred_events(api: Api) -> None:
    made = await api.start()
    await append(api, made, *["x"] * 198)
    assert await kept(api, made) == []
    await append(api, made, "x")
    assert await kept(api, made) == [200]
    await append(api, made, *["x"] * 450)
    assert await kept(api, made) == [200, 650]
    await verified(api, made)


async def test_a_snapshot_that_nobody_asked_for_moves_no_sequence(api: Api) -> None:
    made = await pinned(api, 3)
    for expected in range(1, 12):
        reply = await append(api, made, "x", expected_sequence=expected)
        assert (reply["first_sequence"], reply["last_sequence"]) == (expected + 1, expected + 1)
    assert await kept(api, made) == [6, 9, 12]
    kinds = [event["kind"] for event in await api.events(made["execution_id"])]
    assert kinds == ["execution.started", *["x"] * 11]
    await verified(api, made)


async def test_a_definition_that_wants_none_has_none(api: Api) -> None:
    made = await pinned(api, 0)
    await append(api, made, *["x"] * 300)
    assert await kept(api, made) == []


async def test_a_snapshot_at_every_event_is_possible(api: Api) -> None:
    made = await pinned(api, 1)
    await append(api, made, "a")
    await append(api, made, "b")
    assert await kept(api, made) == [1, 2, 3]
    await verified(api, made)


async def test_an_asked_for_snapshot_puts_off_the_next_one_due(api: Api) -> None:
    made = await pinned(api, 4)
    await append(api, made, "a")
    await api.ok("PUT", at(made, "/snapshots/2"))
    await append(api, made, "b", "c")
    assert await kept(api, made) == [2]
    await append(api, made, "d")
    assert await kept(api, made) == [2, 6]


# ── by bytes, and how many are kept ────────────────────────────────────────────────────────────────────────────────


async def test_a_snapshot_is_due_each_so_many_bytes_of_bodies(api: Api) -> None:
    made = await pinned(api, 0, size=1_000)
    began = await unfolded(api, made)
    await grow(api, made, 999 - began)
    assert (await kept(api, made), await unfolded(api, made)) == ([], 999)
    await append(api, made, "bodiless", "bodiless")
    assert (await kept(api, made), await unfolded(api, made)) == ([], 999)
    await api.ok("POST", at(made, "/events"), json={"events": [{"kind": "x", "body": 1}]})
    assert (await kept(api, made), await unfolded(api, made)) == ([5], 0)
    await grow(api, made, 400, 400)
    assert (await kept(api, made), await unfolded(api, made)) == ([5], 800)
    await grow(api, made, 5_000, 5_000)
    assert (await kept(api, made), await unfolded(api, made)) == ([5, 9], 0)
    await verified(api, made)


async def test_events_and_bytes_whichever_is_first_and_both_begin_anew(api: Api) -> None:
    made = await pinned(api, 4, size=1_000)
    await grow(api, made, 1_000)
    assert await kept(api, made) == [2]
    await append(api, made, "a", "b", "c")
    assert await kept(api, made) == [2]
    await grow(api, made, 900)
    assert (await kept(api, made), await unfolded(api, made)) == ([2, 6], 0)
    await grow(api, made, 900)
    assert await kept(api, made) == [2, 6]
    await grow(api, made, 100)
    assert await kept(api, made) == [2, 6, 8]
    await verified(api, made)


@pytest.mark.parametrize("every", [0, 100])
async def test_a_policy_of_no_bytes_is_never_due_by_bytes(api: Api, every: int) -> None:
    made = await pinned(api, every)
    await grow(api, made, *[10_000] * 50)
    assert await kept(api, made) == []
    assert await unfolded(api, made) > 500_000


async def test_every_kind_of_change_counts_its_bytes(api: Api) -> None:
    made = await pinned(api, 0, size=100_000, state={"n": 1}, start={"queue": "q", "node_id": "n"})
    seen = [await unfolded(api, made)]
    [item] = await api.claim("q")
    await settle(api, item, "complete", result={"r": "r" * 50})
    seen.append(await unfolded(api, made))
    for method, path, body in (
        ("PUT", "/state", {"a": "a" * 50}),
        ("PATCH", "/state", {"b": "b" * 50}),
        ("POST", "/state:append", {"path": "/xs", "value": "x" * 50}),
        ("PATCH", "/attributes", {"attributes": {"a": "a" * 50}}),
        ("POST", "/transitions", {"changes": [{"type": "append", "kind": "x", "body": "x" * 50}] * 2}),
        ("POST", "/status", {"status": "completed", "result": "r" * 50}),
    ):
        await api.ok(method, at(made, path), json=body)
        seen.append(await unfolded(api, made))
    assert all(after >= before + 50 for before, after in pairwise(seen)), seen
    await verified(api, made)


async def test_an_asked_for_snapshot_leaves_the_bytes_after_it(api: Api) -> None:
    made = await pinned(api, 0, size=1_000)
    await grow(api, made, 300, 200, 100)
    await api.ok("PUT", at(made, "/snapshots/2"))
    told = await unfolded(api, made) - 300
    assert 0 < told < 100
    await api.ok("PUT", at(made, "/snapshots/1"))
    assert 300 + told < await unfolded(api, made) < 300 + 3 * told
    await api.ok("POST", at(made, "/transitions"), json={"changes": [{"type": "snapshot"}]})
    assert 0 < await unfolded(api, made) < 100
    await verified(api, made)


@pytest.mark.parametrize(("keep", "left"), [(1, [8]), (2, [6, 8]), (3, [4, 6, 8]), (100, [2, 4, 6, 8])])
async def test_as_many_snapshots_are_kept_as_the_definition_says(api: Api, keep: int, left: list[int]) -> None:
    made = await pinned(api, 2, keep=keep)
    for _ in range(7):
        await append(api, made, "x")
        await verified(api, made)
    assert await kept(api, made) == left


async def test_asked_for_snapshots_count_among_those_kept(api: Api) -> None:
    made = await pinned(api, 0, keep=1)
    await append(api, made, "a", "b")
    for sequence, left in ((2, [2]), (3, [3]), (1, [1, 3]), (4, [4])):
        await api.ok("PUT", at(made, f"/snapshots/{sequence}"))
        assert await kept(api, made) == left
        await verified(api, made)
    await unfolded(api, made)


async def test_a_run_stays_with_the_policy_it_was_started_under(api: Api) -> None:
    old = await pinned(api, 0, size=500, keep=1)
    params = {"snapshot_events": 0, "snapshot_bytes": 0, "snapshot_keep": 5}
    await api.ok("PUT", "/v1/definitions/wf/2", params=params, json=ir() | {"version": "2"})
    new = await api.start(version="2")
    for made in (old, new):
        await grow(api, made, 500)
        await grow(api, made, 500)
    assert (await kept(api, old), await kept(api, new)) == ([3], [])


async def test_a_workflow_of_code_has_none_by_bytes(api: Api) -> None:
    made = await api.start()
    await grow(api, made, *[10_000] * 100)
    assert await kept(api, made) == []


async def settle(api: Api, item: Any, verb: str, **body: Any) -> None:
    await api.ok("POST", f"/v1/work-items/{item['id']}/{verb}", json={"epoch": item["epoch"]} | body)


@pytest.mark.parametrize(
    "write",
    ["events", "replace", "merge", "append", "attributes", "status", "end", "enqueue", "complete", "fail", "dead",
    "release",
     "transition", "expire"],
)  # fmt: skip
async def test_every_way_of_appending_writes_the_snapshot_that_is_due(api: Api, write: str) -> None:
    made = await pinned(api, 2, state={"n": 1}, start={"retry": {"initial_delay_ms": 0}})
    item = next(iter(await api.claim("q"))) if write in ("complete", "fail", "dead", "release", "expire") else None
    assert await kept(api, made) == []
    if write == "events":
        await append(api, made, "x")
    elif write == "replace":
        await api.ok("PUT", at(made, "/state"), json={})
    elif write == "merge":
        await api.ok("PATCH", at(made, "/state"), json={"a": 1})
    elif write == "append":
        await api.ok("POST", at(made, "/state:append"), json={"path": "/xs", "value": 1})
    elif write == "attributes":
        await api.ok("PATCH", at(made, "/attributes"), json={"attributes": {"a": 1}})
    elif write in ("status", "end"):
        status = "paused" if write == "status" else "completed"
        await api.ok("POST", at(made, "/status"), json={"status": status})
    elif write == "enqueue":
        await api.ok("POST", "/v1/work-items", json={"execution_id": made["execution_id"]})
    elif write == "complete":
        await settle(api, item, "complete")
    elif write == "fail":
        await settle(api, item, "fail", error={"type": "x"})
    elif write == "dead":
        await settle(api, item, "dead-letter", error={"type": "x"})
    elif write == "release":
        await settle(api, item, "release")
    elif write == "transition":
        await api.ok("POST", at(made, "/transitions"), json={"changes": [{"type": "append", "kind": "x"}]})
    else:
        api.clock.advance(60_000)
        answer = await api.admin.post("/v1/leases:reclaim", json={"limit": 1000})
        assert answer.status_code == 200, answer.text
    last = (await api.ok("GET", at(made, "/events:latest")))["sequence"]
    assert last >= 2
    assert await kept(api, made) == [last]
    await verified(api, made)


async def test_many_snapshots_that_are_due_at_once_are_all_written(api: Api) -> None:
    await api.ok("PUT", "/v1/definitions/wf/1", params={"snapshot_events": 2}, json=ir())
    body = {"workflow_id": "wf", "version": "1", "start": {}}
    made = [one["ok"] for one in (await api.ok("POST", "/v1/executions:batch", json=[body] * 40))["results"]]
    assert len(await api.claim("q", max_items=100)) == 40
    api.clock.advance(60_000)
    answer = await api.admin.post("/v1/leases:reclaim", json={"limit": 1000})
    assert answer.status_code == 200, answer.text
    for one in made:
        assert len(await kept(api, one)) == 1
        await verified(api, one)


async def test_a_refused_command_leaves_no_snapshot(api: Api) -> None:
    made = await pinned(api, 2)
    body = {"changes": [{"type": "append", "kind": "x"}, {"type": "append_state", "path": "no pointer", "value": 1}]}
    await api.refused("POST", at(made, "/transitions"), "request/invalid", json=body)
    assert await kept(api, made) == []
