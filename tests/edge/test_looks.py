"""What a look at a connection sees, and when it gives up: time is an argument, the transport a made one."""

import asyncio
from typing import Any

import pytest
import uvicorn

from service.http.server import HEAD_MAX, LINGER_SECONDS, SEND_SECONDS, Connection, Limits, State

LIMITS = Limits(head_seconds=10, body_seconds=20, idle_seconds=75, body_bytes=1_000, connections=5)


class Transport(asyncio.Transport):
    """Takes what is written, and remembers how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.unsent, self.ended = b"", 0, ""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = "half"

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return self.ended in ("closed", "aborted")

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers nothing until the body is there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def connected(state: State | None = None) -> tuple[Connection, Transport]:
    """A connection to the application."""
    config = uvicorn.Config(application, http=Connection, ws="none", lifespan="off", log_config=None)
    config.load()
    loop, transport = asyncio.get_running_loop(), Transport()
    made = Connection(config=config, server_state=state or State(LIMITS), app_state={}, _loop=loop)
    made.connection_made(transport)
    return made, transport


async def settle(connection: Connection) -> None:
    """Let the application run."""
    for _ in range(10):
        await asyncio.sleep(0)


def looked(connection: Connection, *times: float) -> None:
    for now in times:
        connection.look(now)


async def test_a_new_connection_has_as_long_as_a_head() -> None:
    connection, transport = connected()
    looked(connection, 100.0, 109.9)
    assert transport.ended == ""
    looked(connection, 110.0)
    assert (transport.ended, transport.written) == ("aborted", b"")


async def test_half_a_head_is_told_that_it_is_late_however_it_grows() -> None:
    connection, transport = connected()
    for at in range(10):
        connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n" if not at else b"a: b\r\n")
        connection.look(100.0 + at)
        assert transport.ended == ""
    connection.look(110.0)
    assert transport.written.startswith(b"HTTP/1.1 408 ") and transport.ended == "half"
    looked(connection, 111.0, 111.0 + LINGER_SECONDS)
    assert transport.ended == "aborted"


async def test_a_body_that_the_application_no_longer_asks_for_ends_the_connection() -> None:
    connection, transport = connected()
    connection.data_received(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\na")
    looked(connection, 100.0, 121.0)
    assert transport.ended == ""
    looked(connection, 122.0)
    assert transport.ended == "aborted"


async def test_a_request_under_way_is_never_looked_at_askance() -> None:
    connection, transport = connected()
    connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    looked(connection, 100.0, 100_000.0)
    assert transport.ended == ""


async def test_each_pause_between_requests_is_counted_anew() -> None:
    connection, transport = connected()
    for at in (100.0, 170.0, 240.0):
        connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await settle(connection)
        looked(connection, at, at + 69.0)
        assert transport.ended == ""
    looked(connection, 315.0)
    assert transport.ended == "closed"


async def test_a_reader_who_reads_a_little_is_waited_for_and_one_who_does_not_is_not() -> None:
    connection, transport = connected()
    connection.pause_writing()
    for at, transport.unsent in enumerate((1_000_000, 900_000, 800_000, 700_000)):
        looked(connection, 100.0 + at * SEND_SECONDS)
        assert transport.ended == ""
    stuck = 101.0 + 3 * SEND_SECONDS
    looked(connection, stuck, stuck + SEND_SECONDS - 1)
    assert transport.ended == ""
    looked(connection, stuck + SEND_SECONDS)
    assert transport.ended == "aborted"


async def test_a_little_that_nobody_takes_is_not_waited_for_either() -> None:
    for ending in (False, True):
        connection, transport = connected()
        connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await settle(connection)
        transport.unsent = 10
        if ending:
            transport.close()
        looked(connection, 100.0, 101.0, 99.0 + SEND_SECONDS)
        assert transport.ended == ("closed" if ending else "")
        looked(connection, 100.0 + SEND_SECONDS)
        assert transport.ended == "aborted"


async def test_who_does_not_say_goodbye_is_not_waited_for() -> None:
    """Over TLS a connection is not at its end before the other side has said so."""
    connection, transport = connected()
    connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    await settle(connection)
    looked(connection, 100.0)
    connection.shutdown()
    looked(connection, 101.0, 100.9 + LINGER_SECONDS)
    assert transport.ended == "closed"
    looked(connection, 101.0 + LINGER_SECONDS)
    assert transport.ended == "aborted"


async def test_connections_beyond_the_most_are_refused_and_beyond_twice_that_dropped() -> None:
    state = State(LIMITS)
    ends = [connected(state)[1] for _ in range(12)]
    assert [transport.ended for transport in ends] == [""] * 5 + ["half"] * 5 + ["aborted"] * 2
    assert all(transport.written.startswith(b"HTTP/1.1 503 ") for transport in ends[5:10])


async def test_of_too_much_that_is_not_taken_the_answers_of_who_takes_least_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = State(LIMITS)
    taking, large, small, stuck = [connected(state) for _ in range(4)]
    for connection, transport in (taking, large, small, stuck):
        connection.pause_writing()
        transport.unsent = 300
    looked(stuck[0], 100.0)
    small[1].unsent = 200
    for now in (101.0, 102.0):
        taking[1].unsent -= 50
        for connection, _ in (taking, large, small, stuck):
            looked(connection, now)
    for most, ended in ((1_000, 0), (999, 1), (700, 1), (699, 2), (200, 3)):
        for _, transport in (taking, large, small, stuck):
            transport.ended = ""
        monkeypatch.setattr("service.http.server.UNSENT_MAX", most)
        state.relieve()
        assert [bool(transport.ended) for _, transport in (stuck, large, small, taking)] == [
            number < ended for number in range(4)
        ]


async def test_of_too_many_bodies_on_their_way_those_that_come_for_longest_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = State(LIMITS)
    slow, large, small, whole, head = [connected(state) for _ in range(5)]
    began = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
    slow[0].data_received(began + b"b" * 300)
    whole[0].data_received(began + b"b" * 900)
    head[0].data_received(began[:20])
    looked(slow[0], 100.0)
    large[0].data_received(began + b"b" * 200)
    for _ in range(5):
        await asyncio.sleep(0)  # what has come is taken, and more is waited for
    large[0].data_received(b"b" * 200)
    small[0].data_received(began + b"b" * 300)
    for connection, _ in (slow, large, small, whole, head):
        looked(connection, 101.0)
    for most, ended in ((1_000, 0), (999, 1), (700, 1), (699, 2), (200, 3)):
        monkeypatch.setattr("service.http.server.COMING_MAX", most)
        state.make_room(102.0)
        refused = [transport.written.startswith(b"HTTP/1.1 503 ") for _, transport in (slow, large, small)]
        assert refused == [number < ended for number in range(3)]
    assert not head[1].written
    assert not head[1].ended and not whole[1].ended


async def test_what_is_refused_for_itself_is_not_refused_again_because_too_much_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, transport = connected(State(LIMITS))
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + b"b" * 128)
    connection.data_received(b"\r\n80;")
    monkeypatch.setattr("service.http.server.COMING_MAX", 100)
    connection.data_received(b"x" * (HEAD_MAX + 1))
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert transport.written.count(b"HTTP/1.1 ") == 1


async def test_one_connection_that_cannot_be_looked_at_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, seen = State(LIMITS), []

    def look(connection: Connection, now: float) -> None:
        seen.append(connection)
        raise RuntimeError("cannot be looked at")

    for _ in range(3):
        connected(state)
    monkeypatch.setattr(Connection, "look", look)
    monkeypatch.setattr("service.http.server.LOOK_SECONDS", 0)
    watching = asyncio.create_task(state.watch())
    while len(seen) < 6:
        await asyncio.sleep(0)
    watching.cancel()
    assert set(seen) == set(state.connections)
