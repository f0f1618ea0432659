"""The server: every endpoint behind one lean path of authenticate, permit, read, handle, answer.

Litestar routes; nothing of it stands between a request and its handler. What the framework itself refuses (no such
route, no such method) becomes a problem document like everything else.
"""

import asyncio
import errno
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from backends.errors import StoreError
from service.errors import StateError
from service.http.answer import JSON, NO_STORE, Answer, Header, encode, from_http, problem, with_header
from service.http.body import read_body
from service.http.endpoint import PUBLIC, Call, Endpoint, Query, Services, answered, idempotency_key
from service.http.exchange import EXCHANGE
from service.http.misfits import choices, one_of
from service.http.routes import Routes
from service.http.stream import NDJSON, Stream, nothing
from service.http.texts import of_text
from service.http.words import in_words
from service.kernel import request_id
from service.kernel.page import LIMIT_MAX
from service.kernel.principal import Principal
from service.kernel.run import away

log = structlog.get_logger()
ANYBODY = Principal("", "anybody")
PATH_MAX, PART_MAX, HEADERS_MAX = 2_048, 256, 32_768
STREAMS = ("text/event-stream", NDJSON)
"""What has no end that is known before; of it HEAD makes nothing."""
CUT_SHORT = "The server is going away; whether the request was carried out is not known. Repeat it with the same ids."
ONCE = frozenset(
    {b"host", b"authorization", b"content-length", b"content-type", b"content-encoding", b"idempotency-key",
     b"if-match", b"last-event-id", b"holdfast-tenant", b"holdfast-reason"}
)  # fmt: skip
"""Headers that may come once."""
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*").fullmatch
LIMIT_TYPE = Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)]


def build(services: Services, endpoints: Sequence[Endpoint]) -> ASGIApp:
    """The ASGI application that serves `endpoints`."""
    by_path: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in endpoints:
        by_path[endpoint.path][endpoint.method] = endpoint
    handlers = [serve(services, path, methods) for path, methods in by_path.items()]
    app = Bare(
        handlers,
        openapi_config=None,
        exception_handlers={HTTPException: framework_error, Exception: framework_error},
        logging_config=None,
        debug=False,
    )

    routes = Routes(endpoints)

    async def edge(scope: Any, receive: Receive, send: Send) -> None:
        """Every request; one that is cut short at the end of the drain is no accident."""
        begun = request_id.begin(scope["headers"])
        try:
            await (await answered_straight(scope, receive) or app)(scope, receive, send)
        except asyncio.CancelledError:
            if not services.draining:
                raise
        except Exception as error:  # while it was being sent: the server cuts the connection off
            log.error("an answer could not be sent", exc_info=error)
            raise
        finally:
            request_id.end(begun)

    async def answered_straight(scope: Any, receive: Receive) -> ASGIApp | None:
        """The answer to what has one of the usual shapes; None for what is the router's, which remembers every path
        that it has seen: one that is too long must not get there."""
        path = scope["path"]
        if len(path) > PATH_MAX:
            said = f"A path may have {PATH_MAX} characters."
            return problem(StateError("request/too-long", said, limit=PATH_MAX))
        if spelt_otherwise(path, scope.get("raw_path") or b""):
            return problem(from_http(404))
        found = routes.find(scope["method"], path)
        if found is None:
            return None
        endpoint, scope["path_params"] = found
        try:
            return await respond(services, endpoint, scope, receive)
        except Exception as error:
            log.error("a request failed outside its handler", exc_info=error)
            return problem(from_http(500))

    return edge


def spelt_otherwise(path: str, raw: bytes) -> bool:
    """Whether a path is that of another but for its slashes: the router would serve it, and whoever guards paths in
    front of the server might not know it."""
    return "//" in path or (path[-1:] == "/" and path != "/") or (b"%" in raw and b"%2f" in raw.lower())


class Bare(Litestar):
    """Litestar without the plugins that it adds for libraries that happen to be installed: nothing here speaks pydantic
    or attrs, and to import them is a tenth of a start."""

    @staticmethod
    def _get_default_plugins(plugins: list[Any]) -> list[Any]:
        return plugins


def litestar_path(path: str) -> str:
    """`/v1/executions/{id}` as Litestar writes it."""
    return path.replace("}", ":str}")


def framework_error(_request: Request[Any, Any, Any], error: Exception) -> Any:
    """The framework's own refusal, or an accident beyond `respond`, as a problem document."""
    status = getattr(error, "status_code", 500)
    if status >= 500:
        log.error("a request failed outside its handler", exc_info=error)
    allow = (getattr(error, "headers", None) or {}).get("allow", "")
    answer = problem(from_http(status), allowing(allow.split(", ")) if status == 405 else ())
    skipped = (b"content-type", b"content-length")
    headers = {name.decode(): value.decode() for name, value in answer.all_headers() if name not in skipped}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/problem+json")


def allowing(methods: Iterable[str]) -> list[Header]:
    """`Allow`: what the path does take. What can be read can be asked for its head alone."""
    found = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return [(b"allow", ", ".join(sorted(found)).encode())]


def serve(services: Services, path: str, methods: Mapping[str, Endpoint]) -> HTTPRouteHandler:
    """The handler of one path: it takes the bare request and gives a prepared ASGI answer, with nothing in between."""

    async def handler(request: Request[Any, Any, Any]) -> ASGIApp:
        method = request.scope["method"]
        if method == "OPTIONS":
            return Answer(200, b"", allowing(methods))
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            return problem(from_http(405), allowing(methods))
        answer = await respond(services, endpoint, request.scope, request.receive)
        if method == "HEAD" and endpoint.media in STREAMS and not isinstance(answer, Answer):
            return Stream(nothing(), ((b"content-type", endpoint.media.encode()), NO_STORE))
        return answer

    taken: list[Any] = [*sorted({*methods, "HEAD"} if "GET" in methods else methods), "OPTIONS"]
    return HTTPRouteHandler(litestar_path(path), http_method=taken, status_code=200)(handler)


async def respond(services: Services, endpoint: Endpoint, scope: Any, receive: Receive) -> ASGIApp:
    """One request from its first byte to its answer, counted."""
    begun = perf_counter()
    answer = await answer_of(services, endpoint, scope, receive)
    status = answer.status if isinstance(answer, Answer) else endpoint.status
    services.kernel.metrics.answered(endpoint.operation, status, perf_counter() - begun)
    return answer


async def answer_of(services: Services, endpoint: Endpoint, scope: Any, receive: Receive) -> ASGIApp:
    """The answer to a request, whatever becomes of it."""
    who = ANYBODY
    try:
        headers = read_headers(scope)
        if endpoint.permit != PUBLIC:
            who = await services.tokens.authenticate(scope, headers, endpoint)
        query = read_query(endpoint, scope.get("query_string", b""))
        body = b""
        if endpoint.method not in ("GET", "DELETE", "HEAD"):
            body = await read_body(
                headers, receive, services.settings, expects=endpoint.body is not None, exchange=scope.get(EXCHANGE)
            )
            if (key := headers.get(b"idempotency-key")) is not None:
                idempotency_key(key)
        path = scope["path_params"]
        if path:
            check_path(scope, path)
        reply = await endpoint.handle(Call(services, endpoint, who, path, query, headers, body, receive, scope))
        answer = as_answer(endpoint, reply)
        warning = None if who is ANYBODY else services.tokens.warning(who)
        return answer if warning is None else with_header(answer, warning)
    except StateError as refusal:
        if refusal.code == "server/busy" and who is not ANYBODY:
            services.crowded.refuse(who.tenant_id or "system", refusal.detail, services.backend.now())
        refusal.__traceback__ = None  # its frames lead back to it: rubbish that only a collection finds
        return problem(refusal)
    except StoreError as error:
        warn_of(services, endpoint.operation, error)
        return problem(away(error))
    except asyncio.CancelledError:
        if not services.draining:
            raise
        return problem(StateError("server/draining", CUT_SHORT, retry_after=1))
    except Exception as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            log.error("no more files may be open", operation=endpoint.operation)
            return problem(StateError("server/busy", "The server has too many files open.", retry_after=1))
        log.exception("a request failed", operation=endpoint.operation)
        return problem(StateError("server/error", "The server failed; nothing was changed."))


def warn_of(services: Services, operation: str, error: StoreError) -> None:
    """A line of the log: one a second of the same objection to the same operation."""
    kind, said = type(error).__name__, str(error)
    if refused := services.kernel.objected.count((operation, kind, said), services.backend.now()):
        log.warning("the store refused", operation=operation, kind=kind, error=said, refused=refused)


def as_answer(endpoint: Endpoint, reply: Any) -> ASGIApp:
    """A reply, encoded."""
    reply = answered(endpoint, reply)
    if isinstance(reply, Answer) or callable(reply):
        return reply  # type: ignore[no-any-return]
    headers = (JSON,) if endpoint.permit == PUBLIC else (JSON, NO_STORE)
    return Answer(endpoint.status_of(reply), encode(reply), headers)


def read_headers(scope: Any) -> dict[bytes, bytes]:
    """The headers by their names, in lower case; 400 for one that came twice though it may only come once."""
    pairs = scope["headers"]
    headers = dict(pairs)
    if len(headers) != len(pairs):
        refuse_twice([name for name, _ in pairs])
    if (host := headers.get(b"host")) is None:
        if scope["http_version"] == "1.1":
            raise StateError("request/malformed", "A request of HTTP/1.1 must have a Host header.")
    elif HOST(host) is None:
        raise StateError("request/malformed", "The Host header names no host; it is a name or an address, and a port.")
    if sum(map(len, headers.values())) > HEADERS_MAX:
        raise StateError("request/headers", f"The headers may have {HEADERS_MAX} bytes together.", limit=HEADERS_MAX)
    return headers


def refuse_twice(names: Sequence[bytes]) -> None:
    """Of two values that mean one thing, none is better than the other."""
    for name in ONCE.intersection(names):
        if names.count(name) > 1:
            code = "auth/malformed" if name == b"authorization" else "request/malformed"
            raise StateError(code, f"The header {name.decode()!r} was sent more than once.")


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
    if len(dict(pairs)) != len(pairs):
        raise StateError("request/malformed", "A parameter was sent more than once; each has one value.")
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
        return of_text(value, kind)
    except msgspec.ValidationError as error:
        said = f"The parameter {query.name!r}: {in_words(str(error))}{one_of(choices(kind))}."
        raise StateError("request/malformed", said, parameter=query.name) from None


def check_path(scope: Scope, path: Mapping[str, str]) -> None:
    """Parts of the path are text: not too long, no NUL, no bytes that are not UTF-8 (they fold into one another)."""
    for name, value in path.items():
        if len(value) > PART_MAX:
            said = f"The path's {name!r} has {len(value)} characters; {PART_MAX} are allowed."
            raise StateError("request/too-long", said, limit=PART_MAX)
        if not value or "\0" in value or "\ufffd" in value:
            raise StateError("request/malformed", f"The path's {name!r} cannot be read.")
