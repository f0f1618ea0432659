"""Whatever is sent, the answer is a refusal with a known code, never a failure; and nothing changes.

Tried for every operation, so for new ones as well: bodies that are no JSON or no JSON that we take, paths, queries and
headers that no well-behaved client sends. `test_hostile_fields` does the same for every field of a body.
"""

import gzip
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from service import capabilities
from service.http.endpoint import PUBLIC

OPERATIONS = {endpoint.operation: endpoint for endpoint in capabilities.endpoints()}
WITH_BODY = [name for name, endpoint in OPERATIONS.items() if endpoint.body is not None]
STRUCTS = [name for name in WITH_BODY if isinstance(OPERATIONS[name].body, msgspec.StructMeta)]
BATCHES = [name for name in WITH_BODY if str(OPERATIONS[name].body).startswith("list[")]
WITH_PATH = [name for name, endpoint in OPERATIONS.items() if "{" in endpoint.path]
PRIVATE = [name for name, endpoint in OPERATIONS.items() if endpoint.permit != PUBLIC]
LISTS = [name for name, endpoint in OPERATIONS.items() if any(query.name == "limit" for query in endpoint.query)]
BODY_OPTIONAL = {name for name, endpoint in OPERATIONS.items() if endpoint.bare}
MIB = 1_048_576

# Not JSON, or no JSON that can be kept: refused whatever the operation expects, at any depth and inside opaque parts.
UNFIT = {
    "1,000 arrays": b"[" * 1_000 + b"]" * 1_000,
    "100,000 arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 arrays, open": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "101 levels in a field": b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
    "brackets in a long string, then depth": b'{"a":"' + b"[" * 500 + b'","b":' + b"[" * 200 + b"]" * 200 + b"}",
    "invalid UTF-8": b'{"a":"\xff"}',
    "an overlong slash": b'{"a":"\xc0\xaf"}',
    "a surrogate as UTF-8": b'{"a":"\xed\xa0\x80"}',
    "invalid UTF-8 in a key": b'{"\xfe":1}',
    "NUL": b'{"a":"\x00"}',
    "NUL between": b'{"a":1}\x00',
    "NUL escaped": rb'{"a":"\u0000"}',
    "NUL escaped in a key": rb'{"a\u0000b":1}',
    "NUL after a backslash": rb'{"a":"\\\u0000"}',
    "half a pair, high": rb'{"a":"\ud800"}',
    "half a pair, low": rb'{"a":"\udc00"}',
    "half a pair, swapped": rb'{"a":"\udc00\ud800"}',
    "25 digits": b'{"a":1234567890123456789012345}',
    "-25 digits": b"[-1234567890123456789012345]",
    "5,000 digits": b"1" * 5_000,
    "2**63": b'{"a":9223372036854775808}',
    "1e999": b'{"a":1e999}',
    "-1E+999": b"[[-1E+999]]",
    "1e99999999999999999999": b"1e99999999999999999999",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
}
# No JSON at all. What comes before the error may be refused first, as a document of another shape.
BROKEN = {
    "NaN": b'{"a":NaN}',
    "Infinity": b"[Infinity]",
    "blanks": b" \n\t",
    "half an object": b'{"a":',
    "two documents": b"{}{}",
    "a comma too many": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "a form": b"a=1&b=2",
    "XML": b"<a/>",
    "zeros in front": b'{"a":007}',
    "a control character": b'{"a":"\n"}',
    "a broken escape": rb'{"a":"\x41"}',
}
NOT_JSON = (
    b"", b"text/plain", b"text/json", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x",
    b"application/jsonp", b"json", b"\xff", b"application/json-patch",
    b"application/json-patch+json",
)  # fmt: skip


async def send(raw: Any, world: Any, operation: str, body: Any = None, query: str = "", **more: Any) -> Any:
    """The operation on what is there, by somebody who may."""
    endpoint = OPERATIONS[operation]
    return await raw(endpoint.method, world.path(endpoint) + query, world.token(endpoint), body, **more)


# ── bodies ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", WITH_BODY)
async def test_what_is_not_json_that_can_be_kept_is_refused(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for name, body in UNFIT.items():
        reply = await send(raw, world, operation, body)
        assert reply.refused("request/json").status == 400, name
    for body in BROKEN.values():
        (await send(raw, world, operation, body)).refused("request/json", "request/invalid", "definition/invalid")
    if operation not in BODY_OPTIONAL:
        for query in ("", "?"):
            (await send(raw, world, operation, b"", query)).refused("request/json")
    assert await world.picture() == before


@pytest.mark.parametrize("operation", STRUCTS)
async def test_a_document_of_another_shape_is_refused(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for body in (
        b"[]",
        b"[{}]",
        b"[[]]",
        b"null",
        b"true",
        b"1",
        b"1.5",
        b'""',
        b'"{}"',
        b'{"no_such_field":1}',
        b'{"":1}',
    ):
        (await send(raw, world, operation, body)).refused("request/invalid")
    assert await world.picture() == before


@pytest.mark.parametrize("operation", BATCHES)
async def test_a_batch_is_an_array_of_one_to_a_thousand(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for body in (
        b"{}",
        b"null",
        b'"a"',
        b"[]",
        b"[null]",
        b"[[]]",
        b"[1]",
        b'[{"no_such_field":1}]',
        b"[" + b"{}," * 1_000 + b"{}]",
    ):
        (await send(raw, world, operation, body)).refused("request/invalid")
    assert await world.picture() == before


@pytest.mark.parametrize("operation", WITH_BODY)
async def test_a_body_must_say_that_it_is_json_and_be_sent_plain(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for said in NOT_JSON:
        reply = await send(raw, world, operation, b"{}", headers=[(b"content-type", said)])
        assert reply.refused("request/media-type").status == 415, said
    packed = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    (await send(raw, world, operation, gzip.compress(b"{}"), headers=packed)).refused("request/media-type")
    twice = [(b"content-type", b"application/json"), (b"content-type", b"text/plain")]
    (await send(raw, world, operation, b"{}", headers=twice)).refused("request/malformed")
    assert await world.picture() == before


@pytest.mark.parametrize("operation", WITH_BODY)
async def test_a_body_that_is_too_large_is_refused_however_it_comes(operation: str, raw: Any, world: Any) -> None:
    before, chunk = await world.known(), b'"' + b"x" * 65_534 + b'"'
    chunked = [(b"transfer-encoding", b"chunked")]
    replies = [
        await send(raw, world, operation, b" " * 10 * MIB),
        await send(raw, world, operation, [chunk] * 160, headers=chunked),
        await send(raw, world, operation, b" " * 10 * MIB, headers=chunked),
        await send(raw, world, operation, b"{}", headers=[(b"content-length", b"10485760")]),
        await send(raw, world, operation, b"{}", headers=[(b"content-length", b"9" * 18)]),
    ]
    for reply in replies:
        assert reply.refused("request/too-large").status == 413
        assert reply.headers["connection"] == "close"
    assert await world.picture() == before


@pytest.mark.parametrize("operation", WITH_BODY)
async def test_a_content_length_that_is_not_true_is_refused(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for said in (
        b"",
        b"abc",
        b"-1",
        b"+2",
        b"1_0",
        b"2.0",
        b"0x2",
        b" 2",
        b"2, 2",
        b"9" * 5_000,
        "٢".encode(),
        b"1",
        b"3",
        b"0",
    ):
        (await send(raw, world, operation, b"{}", headers=[(b"content-length", said)])).refused("request/malformed")
    twice = [(b"content-length", b"2"), (b"content-length", b"2")]
    (await send(raw, world, operation, b"{}", headers=twice)).refused("request/malformed")
    assert await world.picture() == before


async def test_of_a_duplicate_key_the_last_counts_on_both_engines(raw: Any, own_world: Any) -> None:
    path, owner = "/v1/executions/run", own_world.owner
    (await raw("PUT", f"{path}/state", owner, b'{"a":1,"a":2}')).answered()
    (await raw("PATCH", f"{path}/state", owner, b'{"b":1,"b":2}')).answered()
    assert (await own_world.api.ok("GET", path))["state"] == {"a": 2, "b": 2}
    (await raw("POST", "/v1/work-items", owner, b'{"id":"twice","queue":"one","queue":"two"}')).answered()
    assert (await own_world.api.ok("GET", "/v1/work-items/twice"))["queue"] == "two"


async def test_a_request_without_a_body_needs_no_content_type(raw: Any, own_world: Any) -> None:
    for operation in sorted(BODY_OPTIONAL):
        reply = await send(raw, own_world, operation)
        assert reply.status < 300 or reply.code == "execution/terminal", reply.body


# ── paths ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PARTS = (
    "%00", "a%00", "%ff", "a%ffb", "%ed%a0%80", "%c0%af", "..", "%2e%2e", ".", "..%2f..%2fetc", "%0a", "%0d%0ax:y",
    "%20", "-", "x" * 257, "x" * 2_000, "x" * 100_000, "%F0%9F%98%80" * 64, "%", "%zz", "null", "'", "%22",
    "%3Cscript%3E", "*", "%2a", ";", "%5c", "run%0a",
)  # fmt: skip
# What these name is made by naming it, so some of the above are good names for it.
MADE_BY_NAME = {"storeDefinition", "pauseQueue", "resumeQueue"}


@pytest.mark.parametrize("operation", WITH_PATH)
async def test_a_path_that_names_nothing_is_refused(operation: str, raw: Any, world: Any) -> None:
    endpoint, before = OPERATIONS[operation], await world.known()
    body = {"storeDefinition": b"{}"}.get(operation)
    for part in PARTS:
        if operation in MADE_BY_NAME and part == "null":
            continue
        names = [name for name in ("id", "name", "workflow_id", "file", "group") if f"{{{name}}}" in endpoint.path]
        path = world.path(endpoint, **dict.fromkeys(names, part))
        reply = await raw(endpoint.method, path + ("?validate=false" if body else ""), world.token(endpoint), body)
        assert reply.refused().status in (400, 404, 405, 414, 422), part
        assert "\x00" not in reply.body.decode()
    for slash in ("%2f", "%2F%2f", "/"):  # it is no part of a name
        path = world.path(endpoint, **dict.fromkeys(names, slash))
        (await raw("GET", path, world.token(endpoint))).answered()
    assert await world.picture() == before


async def test_a_version_or_sequence_that_cannot_be_is_refused(raw: Any, world: Any) -> None:
    before = await world.known()
    for said in (
        "%00",
        "%ff",
        "x",
        "-1",
        "1.5",
        "1e3",
        "0x1",
        "%D9%A3",
        "9" * 19,
        "9" * 200,
        "9223372036854775808",
        "%201",
        "1_0",
    ):
        (await raw("PUT", f"/v1/executions/run/snapshots/{said}", world.owner)).refused("request/malformed")
    for said in ("999", "9" * 18):
        (await raw("PUT", f"/v1/executions/run/snapshots/{said}", world.owner)).refused("snapshot/ahead")
    for said in ("latest", "x" * 65, "x" * 5_000, "%00", "%ff"):
        reply = await raw("PUT", f"/v1/definitions/new/{said}?validate=false", world.owner, b"{}")
        reply.refused("request/malformed", "request/too-long")
    assert await world.picture() == before


NOWHERE = (
    "/", "/v1", "/v2/executions", "/v1/execution", "/v1/executions/run/nothing", "/v1/executions/run/events/1",
    "/favicon.ico", "/%00", "/%ff", "/../etc/passwd", "/v1/%2e%2e/x", "/v1/executions:nothing", "/metrics%00",
)  # fmt: skip


async def test_a_path_beyond_the_routes_is_a_problem(raw: Any, world: Any) -> None:
    for path in NOWHERE:
        for token in (None, world.owner):
            assert (await raw("GET", path, token)).refused("request/route").status == 404, path
    assert (await raw("GET", "/" + "x" * 5_000)).refused("request/too-long").status == 414
    assert (await raw("GET", "/v1/executions/" + "x/" * 5_000)).refused("request/too-long").status == 414


async def test_an_id_in_a_path_that_is_too_long_is_told_so(raw: Any, world: Any) -> None:
    (await raw("GET", "/v1/executions/" + "x" * 256, world.owner)).refused("not-found")
    for long in ("x" * 257, "x" * 2_000, "%C3%A9" * 257):
        reply = await raw("GET", f"/v1/executions/{long}", world.owner)
        assert msgspec.json.decode(reply.refused("request/too-long").body)["limit"] == 256


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(operation: str, raw: Any, world: Any) -> None:
    path = OPERATIONS[operation].path
    taken = {endpoint.method for endpoint in OPERATIONS.values() if endpoint.path == path} | {"OPTIONS"}
    if "GET" in taken:
        taken.add("HEAD")
    for method in sorted(
        {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW", "get"} - taken
    ):
        reply = await raw(method, world.path(OPERATIONS[operation]), None)
        assert reply.refused("request/method").status == 405, method
        assert reply.headers["allow"] == ", ".join(sorted(taken))


# ── queries ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_query_that_is_not_declared_is_refused(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for query in (
        "?no_such=1",
        "?LIMIT=1",
        "?no",
        "?=1",
        "?&&",
        "?%00=1",
        "?%ff=1",
        "?\xff=1",
        "?a[]=1",
        "?" + "a=1&" * 2_000 + "a=1",
    ):
        reply = await send(raw, world, operation, b"{}" if operation in WITH_BODY else None, query)
        assert reply.refused("request/malformed").status == 400, query
    assert await world.picture() == before


@pytest.mark.parametrize("operation", LISTS)
async def test_a_limit_is_a_number_from_1_to_1000(operation: str, raw: Any, world: Any) -> None:
    for said in (
        "-1",
        "0",
        "1001",
        "1" + "0" * 30,
        "9" * 5_000,
        "",
        "x",
        "1.5",
        "true",
        "null",
        "%20",
        "%00",
        "%ff",
        "0x10",
        "%D9%A3",
    ):
        (await send(raw, world, operation, query=f"?limit={said}")).refused("request/malformed")
    (await send(raw, world, operation, query="?limit=1&limit=2")).refused("request/malformed")
    for said in ("1", "1000"):
        assert (await send(raw, world, operation, query=f"?limit={said}")).status == 200


ODD = (
    "", "%00", "a%00b", "%ff", "x" * 5_000, "-1", "1" + "0" * 30, "9" * 400, "9223372036854775808", "null", "'", "nan",
    "-9223372036854775809", "%27%20OR%201%3D1--", "%F0%9F%98%80", "%ED%A0%80", "1.5", "1e999", "%0a", "[]", "{}",
    "%25", "%5c", "a,b,,c",
)  # fmt: skip


@pytest.mark.parametrize("operation", [name for name, endpoint in OPERATIONS.items() if endpoint.query])
async def test_a_parameter_takes_odd_values_without_failing(operation: str, raw: Any, own_world: Any) -> None:
    for query in OPERATIONS[operation].query:
        for value in ODD:
            body = b"{}" if operation in WITH_BODY else None
            reply = await send(raw, own_world, operation, body, f"?{query.name}={value}")
            reply.answered()
            if query.type == "limit" or query.name == "cursor" or "%00" in value or value in ("%ff", "%ED%A0%80"):
                reply.refused("request/malformed", "request/cursor")


FILTERS = (
    "", " ", "status", "status =", "= 'x'", "status = 'nothing'", "no_such = 1", "status = 1", "1 = 1",
    "status = status", "status = 'failed' --", "status = 'failed'; DROP TABLE executions", "NOT", "'", '"', "`", "/*",
    "status = 'a' UNION SELECT 1", "(" * 500 + "status = 'failed'" + ")" * 500,
    " OR ".join(["status = 'failed'"] * 400),
    "status IN ()", "status IN (SELECT 1)", "status = (SELECT 1)", "status LIKE '%x'", "created_at > 'x'",
    "created_at > 99999999999999999999", "attr.x = 99999999999999999999", "attr. = 1", "attr.x = 1e999",
    "status = 'failed' AND", "status = 'f\x01'", "status = :p", "status = $1", "status = ?", "length(status) > 1",
    "CAST(status AS TEXT) = 'x'", "status = 'x' COLLATE NOCASE", "\u202e", "é = 1", "x" * 3_000,
    "status = 'failed' /* x", "CASE WHEN 1 THEN 1 END = 1",
)  # fmt: skip


@pytest.mark.parametrize(
    "operation", [name for name, one in OPERATIONS.items() if any(query.name == "filter" for query in one.query)]
)
async def test_a_filter_that_cannot_be_used_is_refused(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for text in FILTERS:
        reply = await send(raw, world, operation, query=f"?filter={quote(text)}")
        assert reply.refused("request/filter").status == 400, text
    assert await world.picture() == before


@pytest.mark.parametrize("operation", [name for name in LISTS if name != "getEvents"])
async def test_a_cursor_that_is_not_ours_is_refused(operation: str, raw: Any, world: Any) -> None:
    name = "after" if operation == "readFeed" else "cursor"
    real = world.service.services.cursors.seal(["another", "list"], [1, "x"])
    flipped = ("B" if real[0] == "A" else "A") + real[1:]
    for said in (
        "",
        "x",
        "====",
        "....",
        "%2B%2F",
        real,
        flipped,
        real[:-1],
        real + "A",
        "%C3%A9",
        "A" * 5_000,
        "null",
        "bnVsbA",
        "W10",
    ):
        reply = await send(raw, world, operation, query=f"?{name}={said}")
        assert reply.refused("request/cursor").status == 400, said


async def test_a_cursor_serves_its_own_list_and_filter_only(raw: Any, own_world: Any) -> None:
    for number in range(3):
        await own_world.api.start(execution_id=f"more-{number}", namespace="side")
        await own_world.api.ok("POST", "/v1/work-items", json={"id": f"more-{number}"})
    cursor = (await own_world.api.ok("GET", "/v1/executions?limit=1&namespace=side"))["next_cursor"]
    ours = f"cursor={cursor}&limit=1"
    assert (await raw("GET", f"/v1/executions?namespace=side&{ours}", own_world.owner)).status == 200
    for path in (
        "/v1/executions?", "/v1/executions?namespace=two&", "/v1/executions?namespace=side&status=running&",
        "/v1/executions?namespace=side&sort=updated&", "/v1/executions?namespace=side&sort=created_asc&",
        "/v1/work-items?", "/v1/definitions?", "/v1/executions/run/snapshots?",
    ):  # fmt: skip
        (await raw("GET", path + ours, own_world.owner)).refused("request/cursor")
    other = cursor[:-1] + ("B" if cursor[-1] == "A" else "A")
    (await raw("GET", f"/v1/executions?namespace=side&cursor={other}&limit=1", own_world.owner)).refused(
        "request/cursor"
    )


# ── headers ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", PRIVATE)
async def test_two_authorizations_are_none(operation: str, raw: Any, world: Any) -> None:
    endpoint, before = OPERATIONS[operation], await world.known()
    header = (b"authorization", b"Bearer " + world.token(endpoint).encode())
    for other in (header, (b"authorization", b"Bearer x"), (b"authorization", b"")):
        for pair in ([header, other], [other, header]):
            reply = await raw(endpoint.method, world.path(endpoint), None, headers=pair)
            assert reply.refused("auth/malformed").status == 400
            assert 'error="invalid_request"' in reply.headers["www-authenticate"]
    assert await world.picture() == before


async def test_headers_of_any_size_are_refused_not_kept(raw: Any, world: Any) -> None:
    for name in (b"x-padding", b"authorization", b"cookie", b"accept"):
        reply = await raw("GET", "/v1/executions", None, headers=[(name, b"x" * 100_000)])
        assert reply.refused("request/headers").status == 431
    many = [(b"x-%d" % number, b"x" * 100) for number in range(1_000)]
    assert (await raw("GET", "/v1/executions", world.owner, headers=many)).refused("request/headers").status == 431


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if OPERATIONS[name].method == "POST"])
async def test_an_idempotency_key_that_is_none_is_refused(operation: str, raw: Any, world: Any) -> None:
    before = await world.known()
    for key in (b"", b"x" * 256, b"x" * 20_000, "é".encode(), b"\xff", b"\x01", b"a\tb", b"\x7f", b"a\x00b"):
        reply = await send(raw, world, operation, b"{}", headers=[(b"idempotency-key", key)])
        assert reply.refused("request/malformed").status == 400, key
    twice = [(b"idempotency-key", b"a"), (b"idempotency-key", b"b")]
    (await send(raw, world, operation, b"{}", headers=twice)).refused("request/malformed")
    assert await world.picture() == before


async def test_a_version_to_match_is_a_number(raw: Any, world: Any) -> None:
    path, before = f"/v1/tenants/{world.api.tenant}", await world.known()
    for said in (
        b"",
        b"x",
        b'"',
        b"*",
        b"W/",
        b"-1",
        b"1.5",
        b"9" * 5_000,
        b"9" * 30,
        b'"1", "2"',
        b"\xff",
        "٣".encode(),
    ):
        reply = await raw("PATCH", path, world.admin, b'{"name":"other"}', headers=[(b"if-match", said)])
        reply.refused("request/malformed", "version/mismatch")
    assert await world.picture() == before


async def test_a_place_to_go_on_from_is_a_number(raw: Any, own_world: Any) -> None:
    await own_world.api.ok("POST", "/v1/executions/run/status", json={"status": "cancelled"})
    for said in (b"x", b"-1", b"1.5", b"9" * 5_000, b"9" * 30, b"\xff", "٣".encode(), b"9223372036854775808"):
        reply = await raw("GET", "/v1/executions/run/events:tail", own_world.owner, headers=[(b"last-event-id", said)])
        reply.refused("request/malformed")


async def test_a_strange_host_is_a_problem(raw: Any) -> None:
    for host in (b"", b"a b", b"\xff", b"a/b", b"[::1", b"x" * 2_000):
        (await raw("GET", "/healthz", headers=[(b"host", host)])).answered()
