"""An endpoint: method, path, permission, body, answer and errors, declared once.

The server, the OpenAPI document and the tests that try every operation with every role all read the same declaration.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from litestar.types import Receive

from backends.protocol import StateBackend, Work
from service.errors import StateError, invalid
from service.http.answer import JSON, NO_STORE, Answer
from service.http.crowded import Crowded
from service.http.misfits import located as located
from service.http.misfits import misfits
from service.http.stream import hung_up
from service.kernel.command import Origin, Replayed, Request
from service.kernel.json import check, fingerprint
from service.kernel.page import LIMIT_DEFAULT, Cursors
from service.kernel.principal import Principal
from service.kernel.run import Kernel
from service.kernel.turns import Turns
from service.kernel.wake import Wakes

T = TypeVar("T")
PUBLIC = "public"
"""The permit of endpoints that need no token."""
REPLAYED = (b"idempotent-replayed", b"true")
"""The header of an answer that was stored by an earlier request."""


class Query(msgspec.Struct, frozen=True):
    """A query parameter: its type (a msgspec annotation), default and meaning."""

    name: str
    type: Any
    default: Any
    meaning: str


LIMIT = Query("limit", "limit", LIMIT_DEFAULT, "Most items to answer, 1–1,000.")
CURSOR = Query("cursor", str, None, "`next_cursor` of the page before.")


class Services(msgspec.Struct):
    """What endpoints work with; made once by `main`. `introduced` is there where somebody is told of the start, and set
    once that is done."""

    kernel: Kernel
    backend: StateBackend
    wakes: Wakes
    cursors: Cursors
    settings: Any
    scans: Turns
    tokens: Any = None
    throughput: Any = None
    lease: Any = None
    lines: dict[str, Any] = {}
    crowded: Crowded = msgspec.field(default_factory=Crowded)
    draining: bool = False
    introduced: asyncio.Event | None = None
    extra: dict[str, Any] = {}


class Call:
    """One request: who asks, the path's parts, the query, the body; `headers` are lower-case bytes, `scope` ASGI's."""

    __slots__ = ("_receive", "body", "endpoint", "headers", "path", "query", "scope", "services", "who")

    def __init__(
        self,
        services: Services,
        endpoint: "Endpoint",
        who: Principal,
        path: Mapping[str, str],
        query: dict[str, Any],
        headers: Mapping[bytes, bytes],
        body: bytes,
        receive: Receive,
        scope: Any,
    ) -> None:
        self.services, self.endpoint, self.who, self.path = services, endpoint, who, path
        self.query, self.headers, self.body, self._receive, self.scope = query, headers, body, receive, scope

    async def gone(self) -> None:
        """Return once the caller has hung up; for a handler that waits. The body has been read before."""
        await hung_up(self._receive)

    def source(self) -> str:
        """The address that the request came from."""
        return str(self.services.tokens.sources.of(self.scope))

    async def scan(self, work: Work[T]) -> T:
        """Read what may take long, when it is the tenant's turn."""
        async with self.services.scans.of(self.who.tenant_id):
            return await self.services.backend.read(work, tenants=self.who.reach, scan=True)

    def fingerprint(self, *asked: str) -> str:
        """What an Idempotency-Key stands for: the request, and what the token may see of an answer by its role and
        queues."""
        return fingerprint(self.endpoint.operation, *asked, self.body, self.who.role, *self.who.queues)

    async def run(self, command: Any) -> Any:
        """Run a command, under the request's Idempotency-Key if it has one."""
        return await self.services.kernel.submit(self.request(command))

    def request(self, command: Any) -> Request:
        """A command as the caller asks for it."""
        key = self.headers.get(b"idempotency-key")
        if key is None:
            return Request(self.who, command, origin=Origin(self.source))
        asked = repr((sorted(self.path.items()), sorted(self.query.items())))
        return Request(
            self.who,
            command,
            idempotency_key(key),
            self.fingerprint(asked),
            self.endpoint.status_of,
            Origin(self.source),
        )


def idempotency_key(value: bytes) -> str:
    """The key as text; 1–255 printable ASCII characters."""
    text = value.decode("latin-1")
    if not 1 <= len(text) <= 255 or not text.isascii() or not text.isprintable():
        raise StateError("request/malformed", "An Idempotency-Key is 1–255 printable ASCII characters.")
    return text


Handle = Callable[[Call], Awaitable[Any]]


class Endpoint(msgspec.Struct, frozen=True):
    """One operation. `handle` gives a Struct to encode, a stored answer, or an `Answer` of its own.

    `writes` says that a command checks the caller's standing inside its transaction; otherwise it is read beforehand.
    `item` is what a `Page` or a `Batch` of the reply holds; `bare` says that the body may be left out.
    """

    method: str
    path: str
    operation: str
    permit: str
    summary: str
    handle: Handle
    reply: Any = None
    body: Any = None
    status: int = 200
    created: bool = False
    writes: bool = True
    query: tuple[Query, ...] = ()
    errors: tuple[str, ...] = ()
    media: str = "application/json"
    item: Any = None
    bare: bool = False

    def status_of(self, reply: Any) -> int:
        """The status of an answer: 201 when something was created, if the operation creates."""
        if self.created and getattr(reply, "created", True):
            return 201
        return self.status


def command(kind: type, **path: str) -> Handle:
    """A handler that decodes the body as `kind`, fills in fields from the path (`id="id"`), and runs it."""
    decoder: Any = msgspec.json.Decoder(kind)

    async def handle(call: Call) -> Any:
        made = decode(decoder, call.body) if call.body or not call.endpoint.bare else kind()
        for field, part in path.items():
            fill(made, field, call.path[part])
        return await call.run(made)

    return handle


def decode(decoder: Any, body: bytes) -> Any:
    """The body as a Struct: 400 for what is not JSON, 422 with all that does not fit, each with its place."""
    check(body)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            wrong = misfits(decoder.type, body, str(error))
    except msgspec.DecodeError as error:
        said = f"The body is not JSON: {error}." if body else "The body is empty; where nothing need be said, send {}."
        raise StateError("request/json", said) from None
    raise invalid(wrong)


def fill(made: Any, field: str, value: str) -> None:
    """Put a part of the path into a command; a body that says something else is refused."""
    said = getattr(made, field)
    if said not in ("", value):
        raise invalid([(f"/{field}", f"the path says {value!r}, the body {said!r}; leave it out of the body")])
    msgspec.structs.force_setattr(made, field, value)


def answered(endpoint: Endpoint, reply: Any) -> Any:
    """A stored answer as it was sent the first time."""
    if isinstance(reply, Replayed):
        headers = [JSON, REPLAYED, NO_STORE]
        return Answer(reply.status, reply.body, headers)
    return reply
