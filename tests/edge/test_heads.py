"""What a connection makes of heads and of what stands around bodies: no socket, the transport is a made one."""

import asyncio
from typing import Any

import pytest

from service.http.answer import Answer
from service.http.server import HEAD_MAX, HEADERS_COUNT_MAX, Connection
from service.http.stream import Stream
from tests.edge.test_lines import Parts, connected

CHUNKED = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


def reading(seen: list[Any]) -> Any:
    """An application that reads a body whole, keeps its scope and answers."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        while (message := await receive()).get("more_body"):
            pass
        seen.append(message["type"])
        await Answer(200, b"{}")(scope, receive, send)

    return application


async def fed(connection: Connection, *parts: bytes) -> None:
    """Let these come, one after another, and everybody have their turn in between."""
    for part in parts:
        connection.data_received(part)
        for _ in range(5):
            await asyncio.sleep(0)


def said(transport: Parts) -> bytes:
    return b"".join(transport.parts)


async def test_the_blanks_around_a_value_are_none_of_it() -> None:
    seen: list[Any] = []
    connection, transport = connected(reading(seen))
    lines = b"Content-Length:\t2 \t\r\nidempotency-key:  k  \r\nempty: \r\nx: a b\t \r\n"
    await fed(connection, b"POST / HTTP/1.1\r\nhost: h \r\n%s\r\n{}" % lines)
    assert dict(seen[0]["headers"]) == {
        b"host": b"h", b"content-length": b"2", b"idempotency-key": b"k", b"empty": b"", b"x": b"a b",
    }  # fmt: skip
    assert said(transport).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("version", "asked"), [(b"1.1", 1), (b"1.0", 0)])
async def test_only_who_speaks_1_1_is_asked_to_go_on(version: bytes, asked: int) -> None:
    connection, transport = connected(reading([]))
    head = b"POST / HTTP/%s\r\nhost: h\r\nexpect: 100-Continue \r\ncontent-length: 2\r\n\r\n" % version
    await fed(connection, head, b"{}")
    assert said(transport).count(b" 100 Continue") == asked and b"HTTP/1.1 200 OK" in said(transport)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_an_answer_to_1_0_has_no_chunks_and_ends_with_the_connection(method: bytes) -> None:
    async def parts() -> Any:
        yield b"one\n"
        yield b"two\n"

    connection, transport = connected(Stream(parts()))
    await fed(connection, method + b" / HTTP/1.0\r\n\r\n", *[b""] * 5)
    head, _, body = said(transport).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert body == (b"one\ntwo\n" if method == b"GET" else b"") and transport.ended == "closed"
    connection, transport = connected(Answer(200, b"{}"))
    await fed(connection, method + b" / HTTP/1.0\r\n\r\n")
    assert b"content-length: 2\r\n" in said(transport) and transport.ended == "closed"


@pytest.mark.parametrize("between", [b"1;", b"0\r\na: "], ids=["an extension", "a trailer"])
async def test_what_is_none_of_a_body_and_has_no_end_is_cut_as_early_as_a_head(between: bytes) -> None:
    connection, transport = connected(reading([]))
    await fed(connection, CHUNKED + between, *[b"x" * 1_000] * (HEAD_MAX // 1_000 - 1))
    assert transport.parts == []
    await fed(connection, *[b"x" * 1_000] * 3)
    assert said(transport).startswith(b"HTTP/1.1 431 ") and transport.ended == "half"


async def test_a_body_may_come_in_small_chunks() -> None:
    seen: list[Any] = []
    connection, transport = connected(reading(seen))
    await fed(connection, CHUNKED, *[b"1;some=thing\r\n \r\n"] * (HEAD_MAX // 10), b"0\r\n\r\n")
    assert seen[1:] == ["http.request"] and said(transport).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"])
async def test_half_a_head_is_too_large_also_when_it_comes_at_once(before: bytes) -> None:
    connection, transport = connected(Answer(200, b"{}"))
    half = b"GET / HTTP/1.1\r\nhost: h\r\na: "
    await fed(connection, before + half + b"x" * (HEAD_MAX - len(half) - 8))
    assert said(transport).count(b"HTTP/1.1 ") == bool(before)
    connection, transport = connected(Answer(200, b"{}"))
    await fed(connection, before + half + b"x" * HEAD_MAX)
    assert (b"HTTP/1.1 200 " in said(transport)) == bool(before)
    assert connection.deaf and (before or said(transport).startswith(b"HTTP/1.1 431 "))


async def test_of_many_small_headers_no_more_are_kept_than_a_request_may_have() -> None:
    connection, transport = connected(reading([]))
    small = [b"%x: %x\r\n" % (n, n) for n in range(HEADERS_COUNT_MAX + 1)]
    await fed(connection, b"GET / HTTP/1.1\r\n" + b"".join(small[:-1]))
    assert said(transport) == b""
    await fed(connection, small[-1], b"and")
    assert said(transport).startswith(b"HTTP/1.1 431 ")
    assert len(connection.headers) == HEADERS_COUNT_MAX


async def test_the_next_answer_is_not_made_before_the_one_before_is_taken() -> None:
    seen: list[Any] = []
    connection, transport = connected(reading(seen))
    ask = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
    await fed(connection, ask)
    connection.pause_writing()
    await fed(connection, ask + ask)
    assert (len(seen), len(transport.parts)) == (2, 1)
    connection.resume_writing()
    await fed(connection, b"")
    assert (len(seen), len(transport.parts)) == (6, 3)
