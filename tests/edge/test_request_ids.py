"""Every request has an id: the caller's, or one of ours; it is in the answer, in a problem and in the log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.logging import set_up
from service.tokens.secret import mint
from tests.conftest import Api
from tests.edge.conftest import Edge, request, said

GOOD = ("a", "A-b_c.d:e/f@g+h=", "4bf92f3577b34da6a3ce929d0e0e4736", "6f1c2f0e-9f0a-4c43-b1ef-0c6b4a0f6f8d", "x" * 64)
BAD = ("", " ", "a b", "a,b", 'a"b', "a<b>", "ä", "x" * 65, mint("tenant")[0], "a\tb")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as JSON, while a test runs."""
    stream, root = io.StringIO(), logging.getLogger()
    before, handlers, level = structlog.get_config(), root.handlers, root.level
    set_up("debug", "json", stream)
    try:
        yield stream
    finally:
        structlog.configure(**before)
        root.handlers, root.level = handlers, level


@pytest.mark.parametrize("path", ["/healthz", "/v1/executions", "/v1/executions/none", "/nothing", "/v1/x/y/complete"])
async def test_a_well_formed_id_comes_back(path: str, api: Api) -> None:
    for method in ("GET", "POST", "BREW", "OPTIONS"):
        for name in GOOD:
            answer = await api.http.request(method, path, headers={"x-request-id": name})
            assert answer.headers.get_list("x-request-id") == [name]
            if answer.headers.get("content-type") == "application/problem+json":
                assert answer.json()["request_id"] == name


async def test_any_other_id_is_replaced_by_one_of_ours(api: Api) -> None:
    seen = set()
    for name in BAD:
        answer = await api.http.get("/v1/executions/none", headers={"x-request-id": name.encode()})
        made = answer.headers["x-request-id"]
        assert made not in BAD and made == answer.json()["request_id"]
        seen.add(made)
    assert len(seen) == len(BAD)


async def test_a_refusal_inside_a_batch_has_no_id_of_its_own(api: Api) -> None:
    answer = await api.http.post("/v1/work-items:batch", json=[{"execution_id": "none"}])
    assert answer.headers["x-request-id"] == "test"
    assert "request_id" not in answer.json()["results"][0]["error"]


async def test_a_repeat_under_an_idempotency_key_has_its_own_id(api: Api) -> None:
    for name in ("first", "second"):
        headers = {"idempotency-key": "k", "x-request-id": name}
        answer = await api.http.post("/v1/executions", json={"workflow_id": "w"}, headers=headers)
        assert answer.headers["x-request-id"] == name


async def test_every_line_of_a_request_names_it(api: Api, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.service.services.cursors, "seal", lambda *_: 1 / 0)
    await api.start()
    await api.start()
    await api.http.get("/v1/executions?limit=1", headers={"x-request-id": "find-me"})
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["request_id"] for line in logged if line["level"] == "error"] == ["find-me"]
    assert "ZeroDivisionError" in lines.getvalue()


async def test_requests_at_once_do_not_share_an_id(edge: Edge) -> None:
    parts = [request("GET", f"/v1/executions/{n}", edge.owner, b"", f"x-request-id: id-{n}") for n in range(10)]
    last = request("GET", "/v1/executions/10", edge.owner, b"", "connection: close")
    replies = await said(edge.port, b"".join(parts) + last)
    assert [reply.headers["x-request-id"] for reply in replies[:10]] == [f"id-{n}" for n in range(10)]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 11
    assert [reply.code for reply in replies] == ["not-found"] * 11


# ── what else every answer has ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/executions", "/v1/tokens/self", "/v1/executions/none", "/v1/audit"])
async def test_what_needs_a_token_is_not_kept_by_anybody(path: str, api: Api) -> None:
    answer = await api.http.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in answer.headers if name.startswith(("access-control", "server", "set-cookie"))]


async def test_pages_run_nothing_that_is_not_ours(api: Api) -> None:
    for path in ("/docs", "/pages/docs.js", "/problems/not-found"):
        headers = (await api.http.get(path, headers={"accept": "text/html"})).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
