"""Every refusal is a problem document, says what RFC 6750 and RFC 9110 ask of it, and tells nothing of what is behind.

Also: a store that is away is 503, never 401; a body that does not come is 408."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from backends.errors import Conflict, Corrupt, Full, OutcomeUnknown, SchemaMismatch, StoreError, Unavailable
from service.errors import CODES, StateError
from service.http.answer import problem
from service.http.body import read_body, within
from service.settings import Settings
from tests.conftest import Api, Service

SECRET = 'duplicate key value violates unique constraint "tokens_pkey" at 10.0.0.7:5432 password=hunter2'
ALL_CODES = sorted(CODES)


def headers_of(error: StateError) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in problem(error).headers}


# ── the document ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_code_becomes_a_whole_document(code: str) -> None:
    answer = problem(StateError(code, "What is, and what to do.", current_status="running", limit=3))
    status, title = CODES[code]
    assert answer.status == status
    assert json.loads(answer.body) == {
        "type": f"/problems/{code}", "title": title, "status": status, "detail": "What is, and what to do.",
        "code": code, "current_status": "running", "limit": 3,
    }  # fmt: skip
    headers = headers_of(StateError(code, "x"))
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("code", ALL_CODES)
def test_whoever_must_wait_is_told_how_long(code: str) -> None:
    status = CODES[code][0]
    assert ("retry-after" in headers_of(StateError(code, "x"))) is (status in (429, 503))
    assert headers_of(StateError(code, "x", retry_after=7))["retry-after"] == "7"


CHALLENGES = {
    "auth/missing": 'Bearer realm="holdfast"',
    "auth/malformed": 'Bearer realm="holdfast", error="invalid_request"',
    "auth/invalid": 'Bearer realm="holdfast", error="invalid_token"',
    "auth/not-yet": 'Bearer realm="holdfast", error="invalid_token", error_description="The token does not work yet"',
    "auth/expired": 'Bearer realm="holdfast", error="invalid_token", error_description="The token has expired"',
    "auth/revoked": 'Bearer realm="holdfast", error="invalid_token", error_description="The token was revoked"',
    "auth/forbidden": 'Bearer realm="holdfast", error="insufficient_scope"',
}


@pytest.mark.parametrize("code", ALL_CODES)
def test_a_challenge_says_what_was_wrong_with_the_token(code: str) -> None:
    assert headers_of(StateError(code, "x")).get("www-authenticate") == CHALLENGES.get(code)
    assert CODES[code][0] != 401 or code in CHALLENGES


async def test_every_answer_forbids_guessing_its_type(api: Api) -> None:
    for path in ("/v1/executions", "/v1/executions/none", "/nothing", "/healthz"):
        assert (await api.http.get(path)).headers["x-content-type-options"] == "nosniff", path


# ── the store is away ──────────────────────────────────────────────────────────────────────────────────────────────

STORE = {
    Unavailable: (503, "store/unavailable"),
    Conflict: (503, "store/unavailable"),
    SchemaMismatch: (503, "store/unavailable"),
    OutcomeUnknown: (503, "store/outcome-unknown"),
    Corrupt: (503, "store/corrupt"),
    Full: (507, "store/full"),
    StoreError: (500, "server/error"),
    RuntimeError: (500, "server/error"),
    KeyError: (500, "server/error"),
}


def broken(error: type[Exception]) -> Any:
    """A method of a store that always fails so."""

    async def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise error(SECRET)

    return fail


def told_nothing(answer: Any, status: int, code: str) -> None:
    """The answer is that problem and repeats nothing that the store said."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "www-authenticate" not in answer.headers
    assert ("retry-after" in answer.headers) is (status == 503)
    for word in (
        "duplicate",
        "constraint",
        "tokens_pkey",
        "10.0.0.7",
        "hunter2",
        "Error",
        "Traceback",
        "sqlite",
        "asyncpg",
    ):
        assert word not in answer.text


@pytest.mark.parametrize("error", STORE)
async def test_a_store_that_is_away_is_503_and_never_401(
    error: type[Exception], service: Service, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = service.client(await service.token(api.tenant, "owner"))
    assert (await api.http.get("/v1/executions")).status_code == 200
    backend = service.services.backend
    monkeypatch.setattr(backend, "read", broken(error))
    monkeypatch.setattr(backend, "write", broken(error))
    told_nothing(await unseen.get("/v1/executions"), *STORE[error])
    told_nothing(await unseen.post("/v1/executions", json={"workflow_id": "w"}), *STORE[error])
    told_nothing(await api.http.get("/v1/executions"), *STORE[error])
    told_nothing(await api.http.post("/v1/executions", json={"workflow_id": "w"}), *STORE[error])
    told_nothing(await api.http.get("/readyz"), *STORE[error])
    batch = await api.http.post("/v1/work-items:batch", json=[{"queue": "q"}, {"queue": "r"}])
    assert batch.status_code in (200, STORE[error][0])
    assert "hunter2" not in batch.text
    if batch.status_code == 200:
        assert {one["error"]["code"] for one in batch.json()["results"]} == {STORE[error][1]}
    monkeypatch.undo()
    assert (await unseen.get("/v1/executions")).status_code == 200
    assert (await api.http.get("/v1/executions")).json()["items"] == []


async def test_a_store_that_goes_away_after_the_token_was_read_is_503(
    service: Service, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen, backend, reads = service.client(await service.token(api.tenant, "owner")), service.services.backend, []
    real = backend.read

    async def fail_later(*args: Any, **kwargs: Any) -> Any:
        reads.append(1)
        if len(reads) > 1:
            raise Unavailable(SECRET)
        return await real(*args, **kwargs)

    monkeypatch.setattr(backend, "read", fail_later)
    told_nothing(await unseen.get("/v1/executions"), 503, "store/unavailable")


async def test_the_process_answers_while_the_store_is_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.service.services.backend, "read", broken(Unavailable))
    assert (await api.http.get("/healthz")).status_code == 200


async def test_a_fault_of_a_handler_tells_nothing(api: Api, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.service.services.cursors, "seal", lambda *_: 1 / 0)
    await api.start()
    await api.start()
    told_nothing(await api.http.get("/v1/executions?limit=1"), 500, "server/error")


async def test_a_fault_beyond_the_handler_is_a_500_that_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.app.respond", broken(RuntimeError))
    told_nothing(await api.http.get("/v1/executions"), 500, "server/error")


# ── the framework's own refusals ───────────────────────────────────────────────────────────────────────────────────


async def test_a_route_that_is_not_there(api: Api) -> None:
    for client in (api.http, api.service.client(None)):
        answer = await client.get("/v1/nothing")
        assert (answer.status_code, answer.json()["code"]) == (404, "request/route")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"


async def test_a_method_that_is_not_there_names_those_that_are(api: Api) -> None:
    for method in ("PUT", "DELETE", "PROPFIND", "BREW"):
        answer = await api.http.request(method, "/v1/executions")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST"), method
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "request/method"
    head = await api.http.head("/v1/work-items:claim")
    assert (head.status_code, head.headers["allow"]) == (405, "OPTIONS, POST")


async def test_a_path_says_what_may_be_done_with_it(api: Api) -> None:
    for path, allowed in (("/v1/executions", "GET, HEAD, OPTIONS, POST"), ("/v1/work-items:claim", "OPTIONS, POST")):
        answer = await api.http.options(path, headers={"origin": "https://elsewhere.example"})
        assert (answer.status_code, answer.headers["allow"], answer.content) == (200, allowed, b"")
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert (await api.http.options("/v1/nothing")).status_code == 404


async def test_what_can_be_read_can_be_asked_for_its_head_alone(api: Api) -> None:
    made = (await api.start())["execution_id"]
    for path in (f"/v1/executions/{made}", "/v1/executions/none", "/v1/executions", "/healthz"):
        whole, head = await api.http.get(path), await api.http.head(path)
        assert (head.status_code, head.headers["content-type"]) == (whole.status_code, whole.headers["content-type"])
        assert head.headers["content-length"] == whole.headers["content-length"]
    stream = await api.http.head(f"/v1/executions/{made}/events:tail")
    assert (stream.status_code, stream.headers["content-type"], stream.content) == (200, "text/event-stream", b"")
    assert "content-length" not in stream.headers
    assert (await api.service.client(None).head("/v1/executions")).status_code == 401


async def test_a_host_that_cannot_be_is_malformed_and_nothing_else(raw: Any) -> None:
    reply = await raw("GET", "/healthz", headers=[(b"host", b"a b")])
    assert reply.refused("request/malformed").status == 400


# ── bodies that are long in coming ─────────────────────────────────────────────────────────────────────────────────

PATIENT = Settings()
HASTY = msgspec.structs.replace(PATIENT, body_seconds_max=0)
JSON = {b"content-type": b"application/json"}


def parts(*bodies: bytes, wait: Any = None, last: bool = True) -> Any:
    """An ASGI `receive` of these parts, which does `wait` before each."""
    left = list(bodies)

    async def receive() -> Any:
        if wait is not None:
            await wait()
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not last}

    return receive


async def turn() -> None:
    """Let others run: the body is not there yet."""
    await asyncio.sleep(0)


async def ages() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()


async def test_a_body_that_does_not_come_is_408_and_the_end_of_the_connection(
    service: Service, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = service.services
    monkeypatch.setattr(services, "settings", msgspec.structs.replace(services.settings, body_seconds_max=0))
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/executions", "raw_path": b"/v1/executions", "query_string": b"",
        "headers": [
            (b"host", b"h"), (b"authorization", b"Bearer " + api.owner_token.encode()), (b"content-length", b"20"),
        ],
        "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("h", 80), "root_path": "",
        "state": {},
    }  # fmt: skip
    await service.app(scope, parts(wait=ages), send)
    assert (told[0]["status"], json.loads(told[1]["body"])["code"]) == (408, "request/timeout")
    assert dict(told[0]["headers"])[b"connection"] == b"close"
    assert (await api.ok("GET", "/v1/executions"))["items"] == []


async def test_a_body_that_stops_halfway_is_408() -> None:
    received = parts(b'{"a":', last=False)

    async def receive() -> Any:
        message = await received()
        return message if message["type"] == "http.request" else await ages()

    with pytest.raises(StateError) as refused:
        await read_body(JSON, receive, HASTY, expects=True)
    assert refused.value.code == "request/timeout"


async def test_a_caller_who_hangs_up_halfway_has_sent_nothing() -> None:
    for receive in (parts(), parts(b'{"a":', last=False), parts(b'{"a":', last=False, wait=turn)):
        with pytest.raises(StateError) as refused:
            await read_body(JSON, receive, PATIENT, expects=True)
        assert refused.value.code == "request/malformed"


async def test_a_body_in_parts_is_put_together_however_it_comes() -> None:
    whole = b'{"a":"' + bytes(range(97, 123)) * 100 + b'"}'
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    for wait in (None, turn):
        assert await read_body(JSON, parts(*pieces, wait=wait), PATIENT, expects=True) == whole
        assert await read_body(JSON, parts(whole, wait=wait), PATIENT, expects=True) == whole
        assert await read_body(JSON, parts(b"", whole, b"", wait=wait), PATIENT, expects=True) == whole


async def test_a_body_that_is_there_sets_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_seconds: float) -> Any:
        raise AssertionError("a clock was set")

    monkeypatch.setattr(asyncio, "timeout", never)
    assert await read_body(JSON, parts(b"{", b"}"), PATIENT, expects=True) == b"{}"
    with pytest.raises(AssertionError, match="a clock was set"):
        await read_body(JSON, parts(b"{}", wait=turn), PATIENT, expects=True)


async def test_what_is_stepped_by_hand_behaves_as_if_it_were_awaited() -> None:
    async def result() -> int:
        await turn()
        return await asyncio.get_running_loop().run_in_executor(None, lambda: 7)

    async def failure() -> None:
        await turn()
        raise KeyError("x")

    async def own_timeout() -> str:
        try:
            async with asyncio.timeout(0):
                await ages()
        except TimeoutError:
            await turn()
            return "mine"
        return "none"

    assert await within(result(), 60) == 7
    assert await within(own_timeout(), 60) == "mine"
    with pytest.raises(KeyError):
        await within(failure(), 60)


async def test_a_wait_that_is_cancelled_is_cancelled_inside() -> None:
    seen: list[str] = []

    async def waits() -> None:
        try:
            await ages()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(within(waits(), 60))
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
