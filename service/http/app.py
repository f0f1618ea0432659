"""The server: every endpoint behind one lean path of authenticate, permit, read, handle, answer.

Litestar routes; nothing of it stands between a request and its handler. What the framework itself refuses (no such route, no
such method) becomes a problem document like everything else.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope

from backends.errors import StoreError
from service.errors import StateError
from service.http.answer import JSON, NO_STORE, Answer, encode, from_http, problem
from service.http.endpoint import PUBLIC, Call, Endpoint, Query, Services, answered
from service.kernel.page import LIMIT_MAX
from service.kernel.principal import Principal
from service.kernel.run import away

log = structlog.get_logger()
ANYBODY = Principal("", "anybody")
LIMIT_TYPE = Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)]


def build(services: Services, endpoints: Sequence[Endpoint]) -> Litestar:
    """The ASGI application that serves `endpoints`."""
    by_path: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in endpoints:
        by_path[endpoint.path][endpoint.method] = endpoint
    handlers = [serve(services, path, methods) for path, methods in by_path.items()]
    return Litestar(
        handlers,
        openapi_config=None,
        exception_handlers={HTTPException: framework_error, Exception: framework_error},
        logging_config=None,
        debug=False,
    )


def litestar_path(path: str) -> str:
    """`/v1/executions/{id}` as Litestar writes it."""
    return path.replace("}", ":str}")


def framework_error(_request: Request[Any, Any, Any], error: Exception) -> Any:
    """The framework's own refusal as a problem document."""
    answer = problem(from_http(getattr(error, "status_code", 500)))
    headers = {name.decode(): value.decode() for name, value in answer.headers if name != b"content-type"}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/problem+json")


def serve(services: Services, path: str, methods: Mapping[str, Endpoint]) -> HTTPRouteHandler:
    """The handler of one path: it takes the bare request and gives a prepared ASGI answer, with nothing in between."""

    async def handler(request: Request[Any, Any, Any]) -> ASGIApp:
        return await respond(services, methods[request.scope["method"]], request.scope, request.receive)

    return HTTPRouteHandler(litestar_path(path), http_method=sorted(methods), status_code=200)(handler)  # type: ignore[arg-type]


async def respond(services: Services, endpoint: Endpoint, scope: Any, receive: Receive) -> ASGIApp:
    """One request from its first byte to its answer."""
    try:
        headers = dict(scope["headers"])
        who = ANYBODY
        if endpoint.permit != PUBLIC:
            who = await services.tokens.authenticate(scope, headers, endpoint)
        query = read_query(endpoint, scope.get("query_string", b""))
        body = b""
        if endpoint.method not in ("GET", "DELETE", "HEAD"):
            body = await read_body(headers, receive, services.settings, expects=endpoint.body is not None)
        path = scope["path_params"]
        if path:
            check_path(scope, path)
        reply = await endpoint.handle(Call(services, endpoint, who, path, query, headers, body))
        return as_answer(endpoint, reply)
    except StateError as refusal:
        return problem(refusal)
    except StoreError as error:
        log.warning("the store refused", operation=endpoint.operation, kind=type(error).__name__)
        return problem(away(error))
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a request failed", operation=endpoint.operation)
        return problem(StateError("server/error", "The server failed; nothing was changed."))


def as_answer(endpoint: Endpoint, reply: Any) -> ASGIApp:
    """A reply, encoded."""
    reply = answered(None, reply)  # type: ignore[arg-type]
    if isinstance(reply, Answer) or callable(reply):
        return reply  # type: ignore[no-any-return]
    headers = (JSON, NO_STORE) if endpoint.no_store else (JSON,)
    return Answer(endpoint.status_of(reply), encode(reply), headers)


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, settings: Any, *, expects: bool) -> bytes:
    """The whole body: JSON by its content type, in time, and not too large."""
    most = settings.body_bytes_max
    said = headers.get(b"content-length")
    if said is not None and int(said) > most:
        raise too_large(most)
    async with asyncio.timeout(settings.body_seconds_max):
        body = await gather(receive, most)
    if expects and (body or said not in (None, b"0")):
        check_media(headers)
    return body


async def gather(receive: Receive, most: int) -> bytes:
    """The body's parts, counted as they come."""
    message: Any = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and message["type"] == "http.request":
        if len(body) > most:
            break
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise StateError("request/malformed", "The connection was closed before the body was complete.")
    if len(body) > most:
        raise too_large(most)
    return body


def too_large(most: int) -> StateError:
    """413, with the limit."""
    return StateError("request/too-large", f"A body may have {most} bytes; send less, or in parts.", limit=most)


def check_media(headers: Mapping[bytes, bytes]) -> None:
    """The body must say that it is JSON, and must not be compressed."""
    media = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
        said = media.decode("latin-1") or "nothing"
        raise StateError("request/media-type", f"The body must be application/json; {said} was said.")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise StateError("request/media-type", "The body must not be compressed.")


def read_query(endpoint: Endpoint, raw: bytes) -> dict[str, Any]:
    """The declared query parameters; one that is not declared is an error, never ignored."""
    values: dict[str, Any] = {query.name: query.default for query in endpoint.query}
    if not raw:
        return values
    declared = {query.name: query for query in endpoint.query}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise StateError("request/malformed", "The query string cannot be read.") from None
    for name, value in pairs:
        query = declared.get(name)
        if query is None:
            known = ", ".join(declared) or "none"
            raise StateError(
                "request/malformed", f"There is no parameter {name!r} here; there are: {known}.", parameter=name
            )
        if "\0" in value:
            raise StateError("request/malformed", f"The parameter {name!r} holds a NUL.", parameter=name)
        values[name] = converted(query, value)
    return values


def converted(query: Query, value: str) -> Any:
    """A query parameter in its type."""
    kind = LIMIT_TYPE if query.type == "limit" else query.type
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise StateError("request/malformed", f"The parameter {query.name!r}: {error}.", parameter=query.name) from None


def check_path(scope: Scope, path: Mapping[str, str]) -> None:
    """Parts of the path are text: no NUL, no bytes that are not UTF-8 (they would fold into one another)."""
    for name, value in path.items():
        if not value or "\0" in value or "\ufffd" in value or len(value) > 256:
            raise StateError("request/malformed", f"The path's {name!r} cannot be read.")


