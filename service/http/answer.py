"""Answers: status, headers and bytes, ready to send; every refusal as RFC 9457 `application/problem+json`."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from service.errors import StateError
from service.http.exchange import EXCHANGE
from service.http.exchange import Header as Header
from service.kernel import request_id
from service.tokens.secret import mask

JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")
NO_STORE = (b"cache-control", b"no-store")
NOSNIFF = (b"x-content-type-options", b"nosniff")
UNREAD = ("request/timeout", "request/too-large")
"""Refusals that leave a body unread, so that the connection cannot be used again."""
encode = msgspec.json.Encoder().encode


class Answer:
    """An ASGI application that sends one prepared response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Sequence[Header] = (JSON,)) -> None:
        self.status, self.body, self.headers = status, body, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, exchange = self.all_headers(), cast(Any, scope.get(EXCHANGE))
        if exchange is None or not exchange.answer(self.status, headers, self.body):
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": False})

    def all_headers(self) -> list[Header]:
        """The headers, with those that every answer has."""
        length = (b"content-length", b"%d" % len(self.body))
        return [*self.headers, NOSNIFF, (request_id.HEADER, request_id.current()), length]


def with_header(answer: ASGIApp, header: Header) -> ASGIApp:
    """An answer of any kind, a stream as well, with one more header."""
    if isinstance(answer, Answer):
        return Answer(answer.status, answer.body, [*answer.headers, header])

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await answer(scope, receive, sending)

    return respond


def document(error: StateError) -> dict[str, Any]:
    """The problem document of a refusal; a token that was sent as something else is not sent back."""
    said = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.facts,
    }
    text = f"{error.detail}{error.facts}"
    if "holdt_" in text or "holds_" in text:
        return dict(msgspec.json.decode(mask(encode(said).decode())))
    return said


def problem(error: StateError, headers: Sequence[Header] = ()) -> Answer:
    """A refusal as an answer, with the headers that its status asks for."""
    extra = [*headers, PROBLEM, NO_STORE]
    if "retry_after" in error.facts or error.status in (429, 503):
        extra.append((b"retry-after", b"%d" % error.facts.get("retry_after", 1)))
    if error.code in UNREAD:
        extra.append((b"connection", b"close"))
    if error.status == 401 or error.code == "auth/malformed":
        extra.append((b"www-authenticate", challenge(error)))
    if error.code == "auth/forbidden":
        extra.append((b"www-authenticate", insufficient(error)))
    said = document(error)
    if current := request_id.current():
        said["request_id"] = current.decode()
    return Answer(error.status, encode(said), extra)


def challenge(error: StateError) -> bytes:
    """The `WWW-Authenticate` of RFC 6750; no error code when no token was sent."""
    if error.code == "auth/missing":
        return b'Bearer realm="holdfast"'
    word = b"invalid_request" if error.code == "auth/malformed" else b"invalid_token"
    said = b""
    if error.code in ("auth/not-yet", "auth/expired", "auth/revoked"):  # told to those alone who have proven the secret
        said = b', error_description="%s"' % error.title.encode()
    return b'Bearer realm="holdfast", error="%s"' % word + said


def insufficient(error: StateError) -> bytes:
    """The `WWW-Authenticate` of a role that does not suffice, with the permission that would."""
    permission = error.facts.get("permission")
    scope = b"" if permission is None else b', scope="%s"' % permission.encode()
    return b'Bearer realm="holdfast", error="insufficient_scope"' + scope


def from_http(status: int) -> StateError:
    """The refusal for a status that the framework came up with."""
    if status == 404:
        return StateError("request/route", "There is nothing at this path; see /openapi.json for what there is.")
    if status == 405:
        return StateError("request/method", "The path is right, the method is not; see /openapi.json.")
    if status >= 500:
        return StateError("server/error", "The server failed; nothing was changed.")
    return StateError("request/malformed", "The request cannot be read.")
