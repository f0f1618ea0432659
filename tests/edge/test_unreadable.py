"""What cannot be read as HTTP is answered with a problem document, after everything that could be read."""

import json

import pytest

from tests.edge.conftest import HEALTH, LAST, Edge, request, said, wire

GARBAGE = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method that nobody knows": b"BREW / HTTP/1.1\r\nhost: h\r\n\r\n",
    "another protocol": b"GET / SPDY/9\r\nhost: h\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2 in the words of HTTP/1": b"GET /healthz HTTP/2.0\r\nhost: h\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a blank in a name": b"GET / HTTP/1.1\r\nho st: h\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nhost: h\r\n folded\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\nhost: h\0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a length and chunks": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "a coding before chunks": b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no length": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: h\r\n\r\n",
    "a blank in the path": b"GET /a b HTTP/1.1\r\nhost: h\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_is_not_http_is_a_problem_and_the_end(kind: str, edge: Edge) -> None:
    [reply] = await said(edge.port, GARBAGE[kind])
    assert (reply.status, reply.code, reply.headers["connection"]) == (400, "request/malformed", "close")


@pytest.mark.parametrize("kind", GARBAGE)
async def test_a_request_before_garbage_gets_its_own_answer(kind: str, edge: Edge) -> None:
    replies = await said(edge.port, HEALTH + GARBAGE[kind])
    assert replies[0].status == 200
    assert [reply.code for reply in replies[1:]] in ([], ["request/malformed"])


async def test_a_broken_body_is_a_problem_and_changes_nothing(edge: Edge) -> None:
    head = request("POST", "/v1/executions", edge.owner, b"", length=1).replace(
        b"content-length: 1", b"transfer-encoding: chunked"
    )
    start = b'{"workflow_id":"w","execution_id":"broken"}'
    for rest in (b"zz\r\n", b"%x\r\n%sx" % (len(start), start), b"-1\r\n"):
        for parts in ([head + rest], [head, rest], [HEALTH + head + rest]):
            replies = await said(edge.port, *parts)
            assert (replies[-1].status, replies[-1].code) == (400, "request/malformed")
            assert len(replies) == parts[0].count(b" HTTP/1.1")
    [seen] = await said(edge.port, request("GET", "/v1/executions/broken", edge.owner, b"", "connection: close"))
    assert seen.code == "not-found"


async def test_more_headers_than_may_be_are_431(edge: Edge) -> None:
    many = b"GET /healthz HTTP/1.1\r\nhost: h\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(100)) + b"\r\n"
    [reply] = await said(edge.port, many)
    assert (reply.status, reply.code) == (431, "request/headers")


async def test_larger_headers_than_may_be_are_431_while_they_come(edge: Edge) -> None:
    line = b"a: " + b"b" * 16_000 + b"\r\n"
    for lines in ([line] * 400, [b"a: ", *[b"b" * 16_000] * 400], [b"x" * 16_000] * 400):
        async with wire(edge.port) as found:
            await found.send(b"GET /healthz HTTP/1.1\r\nhost: h\r\n", *lines)
            [reply] = await found.to_end()
        assert (reply.status, reply.code) in ((431, "request/headers"), (400, "request/malformed"))


async def test_chunks_and_trailers_without_end_are_cut(edge: Edge) -> None:
    head = request("POST", "/v1/executions", edge.owner, b"", length=1).replace(
        b"content-length: 1", b"transfer-encoding: chunked"
    )
    for parts in (
        [b"1;" + b"x" * 60_000, *[b"x" * 60_000] * 200],
        [b"0\r\n", *[b"a: b\r\n" * 1_000] * 200],
        [b"1\r\n \r\n" * 5_000] * 200,
    ):
        [reply] = await said(edge.port, head, *parts)
        assert reply.code in ("request/malformed", "request/too-large", "request/headers")


async def test_a_trailer_is_no_header(edge: Edge) -> None:
    head = (
        b"POST /v1/executions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
    )
    trailer = b"0\r\nauthorization: Bearer " + edge.owner.encode() + b"\r\n\r\n"
    body = b'{"workflow_id":"w"}'
    whole = head + b"connection: close\r\n\r\n%x\r\n%s\r\n" % (len(body), body) + trailer
    [reply] = await said(edge.port, whole)
    assert (reply.status, reply.code) == (401, "auth/missing")


async def test_a_body_that_is_too_large_is_refused_to_who_goes_on_sending(edge: Edge) -> None:
    head = request("POST", "/v1/executions", edge.owner, b"", length=50_000_000)
    [reply] = await said(edge.port, head, *[b"x" * 100_000] * 100)
    assert (reply.status, reply.code) == (413, "request/too-large")


async def test_requests_in_one_go_are_answered_in_order_and_not_without_end(edge: Edge) -> None:
    replies = await said(edge.port, HEALTH * 10 + LAST)
    assert [reply.status for reply in replies] == [200] * 11
    replies = await said(edge.port, HEALTH * 5_000)
    assert 10 <= len(replies) <= 20 and {reply.status for reply in replies} == {200}


async def test_another_protocol_is_not_taken_up(edge: Edge) -> None:
    for name in (b"websocket", b"h2c"):
        upgrade = b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: %s\r\n\r\n\x81\x05hello" % name
        [reply] = await said(edge.port, upgrade)
        assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok"})
        assert reply.headers["connection"] == "close"


async def test_a_request_without_a_host_or_with_two_is_malformed(edge: Edge) -> None:
    for lines in (b"", b"host: a\r\nhost: b\r\n"):
        [reply] = await said(edge.port, b"GET /healthz HTTP/1.1\r\n%sconnection: close\r\n\r\n" % lines)
        assert (reply.status, reply.code) == (400, "request/malformed")
    [old] = await said(edge.port, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert old.status == 200
