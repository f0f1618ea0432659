"""The server's edge: connections that are slow, idle, too many, or that do not speak HTTP.

uvicorn parses requests and sends answers. What it leaves open is closed here, at no cost to a request that is well: no
timer is set for any of them; once a second one look at every connection sees what it waits for, and for how long.

What cannot be taken is told as a problem document, once whatever is under way on the connection has been answered;
then the caller gets a little time to read it, and the connection ends.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.errors import StateError
from service.http.answer import problem
from service.http.exchange import CLOSE, EXCHANGE, Exchange, Header
from service.kernel import request_id

log = structlog.get_logger()
HEAD_MAX, HEADERS_COUNT_MAX, TRAILERS_MAX = 32_768, 100, 16
PIPELINED_MAX = 16
REFUSED_MAX = 128
"""Connections beyond the most that are told so; those beyond them as well are dropped."""
UNSENT_MAX = COMING_MAX = 268_435_456
"""Bytes of answers that callers have not taken yet, and of bodies that are not all there yet, of all together."""
LINGER_SECONDS, SEND_SECONDS, GRACE_SECONDS = 2.0, 30.0, 2.0
LOOK_SECONDS = 1.0
TAKES_BODY = ("POST", "PUT", "PATCH")
FOREVER = float("inf")


class Limits(msgspec.Struct, frozen=True):
    """What a connection may take: seconds for a head, for a body, between requests; bytes; and how many there are."""

    head_seconds: float
    body_seconds: float
    idle_seconds: float
    body_bytes: int
    connections: int

    @property
    def wire_bytes(self) -> int:
        """A body as it comes: chunks have sizes, and what is not read is not kept."""
        return 2 * self.body_bytes + 65_536


class State(ServerState):
    """What the connections of a server share."""

    default_lines: bytes
    """What every answer says, as lines, with the break before each; `default_count` is how many."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self._came = 0

    @property
    def default_headers(self) -> list[Header]:
        """What every answer says. uvicorn puts another list here, each second; nobody may add to it in place."""
        return self._default_headers

    @default_headers.setter
    def default_headers(self, headers: Sequence[Header]) -> None:
        self._default_headers, self.default_count = list(headers), len(headers)
        self.default_lines = b"".join(b"\r\n" + name + b": " + value for name, value in headers)

    def head(self, status: int, headers: Sequence[Header], *, last: bool) -> bytes:
        """The head of an answer; the `last` one of a connection says so."""
        lines = [name + b": " + value for name, value in headers]
        head = b"\r\n".join([STATUS_LINE[status][:-2] + self.default_lines, *lines, b"", b""])
        if head.count(b"\n") != self.default_count + len(lines) + 2:
            raise ValueError("A header of the answer has more than one line.")
        return head[:-4] + CLOSE + b"\r\n" if last and CLOSE not in head else head

    async def watch(self) -> None:
        """Look at every connection, every second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for connection in list(self.connections):
                try:
                    connection.look(loop.time())  # type: ignore[union-attr]
                except Exception:  # one that cannot be looked at must not hide the others
                    log.exception("a connection could not be looked at")
            self.relieve()
            self.make_room(loop.time())

    def relieve(self) -> None:
        """End connections whose callers do not take their answers while those are too much together: first whoever has
        taken nothing for longest, of equals who has the most to take."""
        connections: Any = self.connections
        slow = [one for one in connections if one.flow.write_paused]
        over = sum(one.unsent for one in slow) - UNSENT_MAX
        ended = 0
        for one in sorted(slow, key=lambda one: (one.since, -one.unsent)):
            if over <= 0:
                break
            over, ended = over - one.unsent, ended + 1
            one.transport.abort()
        if ended:
            log.warning("callers did not take their answers", ended=ended)

    def comes(self, size: int) -> None:
        """So much more came of a body that is not all there: much may come in a second."""
        self._came += size
        if self._came > COMING_MAX // 8:
            self.make_room(asyncio.get_running_loop().time())

    def make_room(self, now: float) -> None:
        """Refuse bodies that are on their way while they are too much together: first whatever has been coming for
        longest, of equals the largest."""
        connections: Any = self.connections
        coming = [one for one in connections if one.coming]
        self._came = 0
        for one in coming:
            one.look(now)
        over, refused = sum(one.coming for one in coming) - COMING_MAX, 0
        for one in sorted(coming, key=lambda one: (one.since, -one.coming)) if over > 0 else ():
            if over <= 0:
                break
            over, refused = over - one.coming, refused + 1
            one.refuse(CROWDED)
        if refused:
            log.warning("too many bodies were on their way", refused=refused)


class Line:
    """The transport as an answer sees it: at its end the caller may still be sending, and must be able to read it."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class Unmeasured(int):
    """The length of an answer to HTTP/1.0, which knows no chunks: as long as it is, to the connection's end."""

    def __lt__(self, other: int) -> bool:
        return False

    def __sub__(self, other: int) -> "Unmeasured":
        return self

    def __ne__(self, other: object) -> bool:
        return False


class Trailers(list[tuple[bytes, bytes]]):
    """Where headers go that come after a body: nowhere, and not for ever."""

    def append(self, pair: tuple[bytes, bytes]) -> None:
        if len(self) >= TRAILERS_MAX:
            raise StateError("request/headers", f"A body may have {TRAILERS_MAX} trailers.", limit=TRAILERS_MAX)
        super().append((b"", b""))


class Connection(HttpToolsProtocol):
    """One connection, held to the server's limits."""

    server_state: State
    line: Line
    cycle: Exchange

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = self.server_state.limits
        self.deaf = self.lingers = False
        self.begun: Any = None
        self.running: Any = None
        self.received = self.bare = 0
        self.carried = False
        self.watched: Any = None
        self.since = 0.0
        self.unsent = 0

    # ── what comes ────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.line = Line(transport, self.close)
        most, count = self.limits.connections, len(self.connections)
        if count > most + min(most, REFUSED_MAX):
            transport.abort()
        elif count > most:
            self.refuse(StateError("server/busy", f"There are {most} connections, as many as may be.", retry_after=1))

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # we speak nothing else; what follows would be in the other tongue
            self.last_one()
        except httptools.HttpParserError as error:
            reason = error.__context__
            self.refuse(reason if isinstance(reason, StateError) else UNREADABLE)
        else:
            begun = self.unfinished()
            if begun is None:
                self.begun = None
            elif begun is not self.begun:
                self.begun, self.received, self.bare = begun, 0, 0
                if begun is self.scope and len(data) > HEAD_MAX:
                    self.received = len(data) - data.rfind(b"\r\n\r\n")
                    self.refuse_excess()
            else:
                self.received += len(data)
                self.bare = 0 if self.carried else self.bare + len(data)
                self.carried = False
                self.refuse_excess()
            if begun is not None and begun is not self.scope:
                self.server_state.comes(len(data))

    def unfinished(self) -> Any:
        """What has begun to come and is not all there: a head's scope, a body's cycle, None between requests."""
        scope, cycle = self.scope, self.cycle
        if scope is None:
            return None
        if cycle is None or cycle.scope is not scope:
            return scope
        return cycle if cycle.more_body else None

    @property
    def coming(self) -> int:
        """How much is there of a body that has not come whole."""
        return self.cycle.came if not self.deaf and self.unfinished() is self.cycle is not None else 0

    def refuse_excess(self) -> None:
        """A head or a body that goes on and on, or what stands between the parts of a body and after them."""
        head = self.begun is self.scope
        most = HEAD_MAX if head else self.limits.wire_bytes
        if self.received > most:
            code = "request/headers" if head else "request/too-large"
            self.refuse(StateError(code, f"There are more than {most} bytes of it, and no end.", limit=most))
        elif self.bare > HEAD_MAX and not head:
            said = f"There are more than {HEAD_MAX} bytes in a row that are none of the body."
            self.refuse(StateError("request/headers", said, limit=HEAD_MAX))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, without the blanks behind it. One too many is refused as it comes: small ones take twenty times
        their bytes, and there may be as many half heads as there are connections."""
        if len(self.headers) >= HEADERS_COUNT_MAX:
            said = f"A request may have {HEADERS_COUNT_MAX} headers."
            raise StateError("request/headers", said, limit=HEADERS_COUNT_MAX)
        self.headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            raise StateError("server/busy", "Wait for answers before sending more requests on one connection.")
        scope: Any = self.scope
        version, url = self.parser.get_http_version(), httptools.parse_url(self.url)
        expects = expects_to_be_told(self.headers, version)
        path = url.path.decode("ascii")
        scope["method"], scope["http_version"] = self.parser.get_method().decode("ascii"), version
        scope["path"], scope["raw_path"] = unquote(path) if "%" in path else path, url.path
        scope["query_string"], scope["headers"] = url.query or b"", self.headers
        self.headers, before = Trailers(), self.cycle
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        self.cycle = exchange = Exchange(self, scope, keep_alive=keep_alive, expects=expects)
        scope[EXCHANGE] = exchange
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_body(self, body: bytes) -> None:
        self.carried, cycle = True, self.cycle
        if not cycle.response_complete:
            cycle.add(body)
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self.cycle.more_body = False
        self.cycle.tell()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.lingers or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _start_asgi_task(self, exchange: Any, app: Any) -> None:
        """Begin a request; once the answer to the one before is taken, for this one's may be as large."""
        if self.flow.write_paused:
            self.flow.pause_reading()
            self.pipeline.append((exchange, app))
            return
        if (version := exchange.scope["http_version"]) != "1.1":
            exchange.keep_alive, exchange.chunked_encoding = False, False
            exchange.expected_content_length = Unmeasured()
            app = app if version == "1.0" else partial(refused, UNREADABLE)
        self.running = exchange
        exchange.begin(app)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.pipeline and self.running.response_complete and not (self.lingers or self.transport.is_closing()):
            self._start_asgi_task(*self.pipeline.pop())

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn tells the request that came last; the one under way may have others behind it."""
        super().connection_lost(exc)
        if self.running is not None and not self.running.response_complete:
            self.running.disconnected = True
            self.running.message_event.set()

    # ── what it waits for ─────────────────────────────────────────────────────────────────────────────────────────

    def look(self, now: float) -> None:
        """Give up on what has been waited for too long; called every second."""
        what, seconds = self.waits_for()
        if what is None or what is not self.watched:
            self.watched, self.since = what, now
        elif now - self.since >= seconds:
            self.give_up()

    def waits_for(self) -> tuple[Any, float]:
        """Something that is the same object as long as the same thing is waited for, and how long it may be."""
        limits, begun, cycle = self.limits, self.unfinished(), self.cycle
        before, self.unsent = self.unsent, self.transport.get_write_buffer_size()
        if self.unsent:
            return self.flow if self.unsent >= before else None, SEND_SECONDS
        if self.lingers or self.transport.is_closing():
            return self.line, LINGER_SECONDS
        if begun is not None and not self.deaf and not self.flow.read_paused:
            limit = limits.head_seconds if begun is self.scope else limits.body_seconds + GRACE_SECONDS
            return begun, limit
        if cycle is None:
            return self, limits.head_seconds
        return (cycle, limits.idle_seconds) if cycle.response_complete else (None, FOREVER)

    def give_up(self) -> None:
        """End the connection; whoever has sent half a head is told why."""
        if self.watched is self.scope and self.scope is not None and not self.lingers:
            seconds = self.limits.head_seconds
            self.refuse(StateError("request/timeout", f"The headers did not come within {seconds:g} seconds."))
        elif self.watched is self.cycle and self.cycle is not None and self.cycle.response_complete:
            self.transport.close()
        else:
            self.transport.abort()

    # ── how it ends ───────────────────────────────────────────────────────────────────────────────────────────────

    def refuse(self, refusal: StateError) -> None:
        """Take no more from this caller, and say why: now, or instead of the request that is broken."""
        self.deaf = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return self.tell(refusal)
        cycle.keep_alive = False
        if not cycle.more_body or cycle.scope is not self.scope:
            return None
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline[0] = (cycle, partial(refused, refusal))
        elif cycle.scope["method"] in TAKES_BODY and not cycle.response_started:
            cycle.disconnected = True
            cycle.message_event.set()
            self.tell(refusal)
        return None

    def tell(self, refusal: StateError) -> None:
        """Send a refusal that no application has made."""
        begun = request_id.begin(())
        answer = problem(refusal)
        head = self.server_state.head(answer.status, answer.all_headers(), last=True)
        request_id.end(begun)
        self.transport.write(head + answer.body)
        self.linger()

    def last_one(self) -> None:
        """Answer what has come, and take nothing more."""
        self.deaf = True
        self.cycle.keep_alive = False

    def close(self) -> None:
        """End after an answer: at once, or once the caller, who is still sending, has had time to read it."""
        if self.unfinished() is None and not self.deaf:
            self.transport.close()
        else:
            self.linger()

    def linger(self) -> None:
        """Send no more, read and drop what still comes; closing now would take the answer from who has not read it."""
        if self.transport.can_write_eof():
            self.deaf = self.lingers = True
            self.flow.resume_reading()
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()
        else:
            self.transport.close()


def expects_to_be_told(headers: Sequence[Header], version: str) -> bool:
    """Whether the caller waits for a 100 before it sends the body, which HTTP/1.0 does not know; raises for a transfer
    coding that we do not know."""
    said = dict(headers)
    if b"transfer-encoding" in said:
        for name, value in headers:
            if name == b"transfer-encoding" and value.lower() != b"chunked":
                raise StateError("request/malformed", "A body comes as it is or in chunks, in no other coding.")
    return said.get(b"expect", b"").lower() == b"100-continue" and version == "1.1"


async def refused(refusal: StateError, scope: Any, receive: Any, send: Any) -> None:
    """An application that answers one request so, in its turn."""
    begun = request_id.begin(scope["headers"])
    await problem(refusal)(scope, receive, send)
    request_id.end(begun)


CROWDED = StateError(
    "server/busy", "Too many large bodies are on their way; send this one again, and faster.", retry_after=1
)
UNREADABLE = StateError("request/malformed", "This is not a request of HTTP/1.1 that can be read.")
