"""In how many writings an answer goes out: each is a call of the system, and wakes who reads."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
import uvicorn

from service.http.answer import Answer
from service.http.server import Connection, State
from service.http.stream import Stream
from tests.edge.conftest import PATIENCE, Edge, request, wire
from tests.edge.test_looks import LIMITS, Transport
from tests.races.server import http

REQUEST = b"%s / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"


class Parts(Transport):
    """Keeps each writing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []

    def write(self, data: Any) -> None:
        self.parts.append(bytes(data))


def connected(application: Any) -> tuple[Connection, Parts]:
    """A connection to an application."""
    config = uvicorn.Config(application, http=Connection, ws="none", lifespan="off", log_config=None)
    config.load()
    transport = Parts()
    state = State(LIMITS)
    made = Connection(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
    made.connection_made(transport)
    return made, transport


async def until(transport: Parts, count: int) -> None:
    """Until so many writings have been made, and whatever follows at once."""
    for _ in range(20 + count):
        await asyncio.sleep(0)
    assert len(transport.parts) == count


@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE"])
async def test_an_answer_is_one_writing_and_so_is_the_next(method: bytes) -> None:
    connection, transport = connected(Answer(201, b'{"ok":true}'))
    for count in (1, 2):
        connection.data_received(REQUEST % method)
        await until(transport, count)
    for part in transport.parts:
        head, _, body = part.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201 ") and b"content-length: 11" in head.lower()
        assert body == b'{"ok":true}'


async def test_what_is_pipelined_is_answered_in_order_each_in_one_writing() -> None:
    connection, transport = connected(Answer(200, b"{}"))
    connection.data_received(3 * (REQUEST % b"POST"))
    await until(transport, 3)
    assert all(part.startswith(b"HTTP/1.1 200 ") and part.endswith(b"\r\n\r\n{}") for part in transport.parts)


async def test_an_answer_to_head_is_its_head_alone() -> None:
    connection, transport = connected(Answer(200, b'{"ok":true}'))
    connection.data_received(b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n")
    await until(transport, 1)
    assert transport.parts[0].startswith(b"HTTP/1.1 200 ") and transport.parts[0].endswith(b"\r\n\r\n")


async def test_an_empty_answer_is_its_head_alone() -> None:
    connection, transport = connected(Answer(200, b""))
    connection.data_received(b"OPTIONS / HTTP/1.1\r\nhost: h\r\n\r\n")
    await until(transport, 1)
    assert transport.parts[0].endswith(b"\r\n\r\n")


async def test_the_head_of_a_stream_goes_out_before_there_is_anything_to_stream() -> None:
    first = asyncio.Event()

    async def parts() -> Any:
        await first.wait()
        yield b"one\n"

    connection, transport = connected(Stream(parts()))
    connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    await until(transport, 1)
    assert transport.parts[0].startswith(b"HTTP/1.1 200 ") and transport.parts[0].endswith(b"\r\n\r\n")
    first.set()
    while len(transport.parts) < 2:
        await asyncio.sleep(0)
    assert transport.parts[1] == b"4\r\none\n\r\n"


async def test_the_head_of_a_tail_goes_out_before_its_first_event(edge: Edge) -> None:
    async with http(edge.server.base, edge.owner) as client, wire(edge.port) as found:
        assert (await client.post("/v1/executions", json={"workflow_id": "w", "execution_id": "quiet"})).is_success
        await found.send(request("GET", "/v1/executions/quiet/events:tail?after=1", edge.owner))
        head = await found.head()
        assert b"text/event-stream" in head and b"x-accel-buffering: no" in head
        await client.post("/v1/executions/quiet/events", json={"events": [{"kind": "step.done"}]})
        async with asyncio.timeout(PATIENCE):
            assert b"\r\nid: 2\n" in await found.reader.readuntil(b"event: step.done\n")


@pytest.mark.parametrize("requests", [1, 3])
async def test_nothing_more_is_made_for_a_caller_who_has_hung_up(requests: int) -> None:
    made: list[int] = []

    async def parts() -> Any:
        for number in range(1_000):
            made.append(number)
            if number == 2:
                connection.connection_lost(None)
            yield b"part\n"

    connection, transport = connected(Stream(parts()))
    connection.data_received(requests * b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    for _ in range(3_000):
        await asyncio.sleep(0)
    assert transport.parts[1:] == 2 * [b"5\r\npart\n\r\n"] and len(made) < 10


async def test_a_stream_that_never_waits_lets_others_have_their_turn() -> None:
    turns: list[str] = []

    async def parts() -> Any:
        for _ in range(20):
            turns.append("stream")
            yield b"part\n"

    connection, transport = connected(Stream(parts()))
    connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    while not transport.parts or transport.parts[-1] != b"0\r\n\r\n":
        await asyncio.sleep(0)
        turns.append("other")
    assert "other" in turns[turns.index("stream") : turns.index("stream") + 4]


async def test_a_body_is_told_as_far_as_it_has_come_and_its_end_once() -> None:
    told: list[Any] = []

    async def listener(_scope: Any, receive: Any, _send: Any) -> None:
        while True:
            told.append(await receive())
            if told[-1]["type"] == "http.disconnect":
                return

    connection, _ = connected(listener)
    connection.data_received(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nab")
    for data in (b"c", b"def"):
        await asyncio.sleep(0)
        connection.data_received(data)
    for _ in range(5):
        await asyncio.sleep(0)
    assert [(one["body"], one["more_body"]) for one in told] == [(b"ab", True), (b"c", True), (b"def", False)]
    connection.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert told[-1] == {"type": "http.disconnect"}


async def test_a_body_in_many_small_chunks_is_grown_in_place_and_handed_over_whole() -> None:
    told: list[Any] = []

    async def listener(_scope: Any, receive: Any, _send: Any) -> None:
        told.append(await receive())

    connection, _ = connected(listener)
    connection.data_received(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    connection.data_received(b"1\r\na\r\n1\r\nb\r\n")
    grown = connection.cycle.body
    connection.data_received(b"1\r\nc\r\n" * 1_000 + b"0\r\n\r\n")
    assert connection.cycle.body is grown, "the same object, not a copy for each chunk"
    for _ in range(3):
        await asyncio.sleep(0)
    assert told == [{"type": "http.request", "body": b"ab" + b"c" * 1_000, "more_body": False}]


@pytest.mark.parametrize("header", [(b"x-more", b"a\r\nset-cookie: b"), (b"x-more", b"a\nset-cookie: b")])
async def test_an_answer_with_a_break_in_a_header_is_not_sent(header: tuple[bytes, bytes]) -> None:
    connection, transport = connected(Answer(200, b"{}", [header]))
    connection.data_received(REQUEST % b"POST")
    await until(transport, 2)  # head and body of a 500 by uvicorn
    assert transport.parts[0].startswith(b"HTTP/1.1 500 ") and header[1] not in b"".join(transport.parts)


@pytest.mark.parametrize("told", [b"HTTP/1.1\r\nhost: h\r\nconnection: close", b"HTTP/1.0"])
async def test_the_last_answer_of_a_connection_says_so_and_ends_it(told: bytes) -> None:
    connection, transport = connected(Answer(200, b"{}"))
    connection.data_received(b"POST / " + told + b"\r\ncontent-length: 2\r\n\r\n{}")
    await until(transport, 1)
    head, _, body = transport.parts[0].partition(b"\r\n\r\n")
    assert head.count(b"connection: close") == 1 and body == b"{}" and transport.ended == "closed"


async def test_an_answer_that_says_itself_that_it_is_the_last_says_it_once() -> None:
    connection, transport = connected(Answer(200, b"{}", [(b"connection", b"close")]))
    connection.data_received(REQUEST % b"POST")
    await until(transport, 1)
    assert transport.parts[0].count(b"connection: close") == 1 and transport.ended == "closed"


async def test_what_every_answer_says_is_in_an_answer_of_one_writing() -> None:
    connection, transport = connected(Answer(200, b"{}"))
    connection.server_state.default_headers = [(b"date", b"now"), (b"strict-transport-security", b"max-age=1")]
    connection.data_received(REQUEST % b"POST")
    await until(transport, 1)
    lines = transport.parts[0].split(b"\r\n")
    assert lines[:3] == [b"HTTP/1.1 200 OK", b"date: now", b"strict-transport-security: max-age=1"]


@pytest.mark.parametrize("path", ["/v1/executions", "/v1/executions/known", "/v1/executions/known/snapshots"])
async def test_a_token_that_ends_soon_is_told_so_over_the_wire(path: str, edge: Edge) -> None:
    async with http(edge.server.base, edge.owner) as client:
        asked = {"name": "short", "role": "viewer", "expires_in_days": 1}
        token = (await client.post("/v1/tokens", json=asked)).json()["secret"]
        await client.post("/v1/executions", json={"workflow_id": "w", "execution_id": "known"})
        assert "holdfast-token-expires" not in (await client.get(path)).headers
    async with http(edge.server.base, token) as client:
        for _ in range(2):
            answer = await client.get(path)
            assert answer.status_code == 200 and "holdfast-token-expires" in answer.headers


async def test_an_answered_request_is_gone_without_a_collection() -> None:
    connection, transport = connected(Answer(200, b"{}"))
    gc.disable()
    try:
        made = []
        for count in range(1, 5):
            connection.data_received(REQUEST % b"POST")
            made.append(weakref.ref(connection.cycle))
            await until(transport, count)
    finally:
        gc.enable()
    assert [one() for one in made[:-1]] == [None, None, None]
