"""One request on a connection, and its answer.

uvicorn's cycle speaks ASGI. Two things are quicker here, because nearly every request is like that: a body that has
come whole is handed over without waiting for anything, and an answer that is prepared goes out in one writing (each is
a call of the system, and wakes who reads) instead of by two messages that are looked through line by line.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

Header = tuple[bytes, bytes]
EXCHANGE = "holdfast.exchange"
"""Where the scope of a request has the exchange; a request that comes by another server has none."""
CLOSE = b"\r\nconnection: close\r\n"
"""What the head of the last answer on a connection says."""


class Exchange(RequestResponseCycle):
    """What uvicorn's cycle is, made for less: what is the same for nearly all of them stands in the class."""

    access_log = False
    disconnected = response_started = response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = came = 0
    more_body = True
    body: bytes | bytearray = b""  # type: ignore[assignment]
    _told_end = False
    _event: asyncio.Event | None = None

    def __init__(self, connection: Any, scope: Any, *, keep_alive: bool, expects: bool) -> None:
        self.connection, self.scope, self.keep_alive = connection, scope, keep_alive
        self.transport, self.flow, self.logger = connection.line, connection.flow, connection.logger
        self.waiting_for_100_continue = expects
        self.on_response = connection.on_response_complete

    def begin(self, app: Any) -> None:
        """Have `app` answer, in a task of its own, which a drain waits for."""
        connection = self.connection
        self.task = connection.loop.create_task(self.run(app))
        connection.tasks.add(self.task)

    async def run(self, app: Any) -> None:
        """Have `app` answer; what then leads from one part of it to another is let go of, or it would be rubbish that
        only a collection finds."""
        try:
            await self.run_asgi(app)
        finally:
            self.scope.pop(EXCHANGE, None)  # type: ignore[misc]
            self.connection.tasks.discard(self.task)

    @property
    def default_headers(self) -> list[Header]:  # type: ignore[override]
        """What every answer of the server says, as of now."""
        return self.connection.server_state.default_headers  # type: ignore[no-any-return]

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Set when there is something to receive. It is made for whoever has to wait for it."""
        if self._event is None:
            self._event = asyncio.Event()
        return self._event

    def add(self, part: bytes) -> None:
        """A part of the body. Many small ones are grown in place: to copy them each time would hold everybody up.
        `came` is how much came in all."""
        self.came += len(part)
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytearray):
            self.body += part
        else:
            self.body = bytearray(self.body) + part
        self.tell()

    def tell(self) -> None:
        """There is something to receive."""
        if self._event is not None:
            self._event.set()

    def whole(self) -> bytes | None:
        """The body, when it is all there and nothing of it was taken yet; None when it has to be received."""
        if self.more_body or self._told_end:
            return None
        body, self.body, self._told_end = bytes(self.body), b"", True
        return body

    async def receive(self) -> Any:
        """The next part of the body, as far as it has come; once that was told to its end, that the caller is gone."""
        while not (self.disconnected or self.response_complete):
            if self.body or not (self.more_body or self._told_end):
                body, self.body, self._told_end = bytes(self.body), b"", not self.more_body
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            if self.waiting_for_100_continue and self.more_body and not self.transport.is_closing():
                self.waiting_for_100_continue = False
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    def answer(self, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Send a prepared answer, whose length is among its headers; False when that must go by messages."""
        if self.response_started or self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD":
            return False
        head = self.connection.server_state.head(status, headers, last=not self.keep_alive)
        self.keep_alive = CLOSE not in head
        self.response_started = self.response_complete = True
        self.transport.write(head + body)
        self.tell()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True
