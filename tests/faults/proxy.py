"""A way to Postgres that breaks when it is told to: before, during or after a COMMIT, or anywhere.

It knows of the protocol how messages are framed, and nothing else: a type byte and a length, but for the first of a
connection, which has no type. TLS is not spoken, so the URL through it says `sslmode=disable`.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT, LISTEN = b"COMMIT", b"LISTEN"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through the proxy: both ends, until either breaks."""

    def __init__(self, client: Pair, server: Pair) -> None:
        self.client, self.server = client, server
        self.said: set[bytes] = set()
        self.answer_is_due = False

    def cut(self) -> None:
        """Break it: the client finds out at once, the server once it has read what was passed on."""
        self.client[1].transport.abort()
        self.server[1].close()


class Proxy:
    """Listens on `port` and passes on to the server of a URL, except where it is armed to `cut`.

    `cuts` counts the cuts that were made, by moment; `links` are the connections that stand.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.port = 0
        self.links: list[Link] = []
        self.cuts: Counter[str] = Counter()
        self.closed_to: bytes | None = None
        """Whoever sends this is cut each time, before it is passed on."""
        self._armed: deque[tuple[str, bytes]] = deque()
        self._bytes_left: int | None = None

    @property
    def url(self) -> str:
        """The URL of the same database, through here."""
        parts = urlsplit(self._url)
        return f"postgresql://{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}{parts.path}?sslmode=disable"

    def cut(self, moment: str, marker: bytes = COMMIT) -> None:
        """Cut one connection at the next message from a client that holds `marker`.

        `before` it is passed on, with `half` of it passed on, `during` the server's work on it, or `after` the server
        has said that it is done.
        """
        self._armed.append((moment, marker))

    def cut_anywhere(self, after: int) -> None:
        """Cut the connection that passes the byte with this number, counted over all of them from now on."""
        self._bytes_left = after

    def cut_all(self) -> None:
        """Cut every connection that stands, whatever it is doing."""
        self.cuts["all"] += 1
        for link in list(self.links):
            link.cut()

    def that_said(self, marker: bytes) -> list[Link]:
        """The connections whose clients have sent `marker`; only LISTEN and COMMIT are kept."""
        return [link for link in self.links if marker in link.said]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its last."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            link = Link((reader, writer), await self._open())
            self.links.append(link)
            try:
                await asyncio.gather(self._up(link), self._down(link))
            finally:
                link.cut()
                self.links.remove(link)
        writer.close()

    async def _open(self) -> Pair:
        parts = urlsplit(self._url)
        if folder := parse_qs(parts.query).get("host"):
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{parts.port or 5432}")
        return await asyncio.open_connection(parts.hostname, parts.port or 5432)

    async def _up(self, link: Link) -> None:
        await self._pass(link, await untyped(link.client[0]), link.server[1])
        while True:
            frame = await typed(link.client[0])
            link.said.update(word for word in (LISTEN, COMMIT) if word in frame)
            if self.closed_to is not None and self.closed_to in frame:
                return link.cut()
            moment = self._due(frame)
            if moment is None:
                await self._pass(link, frame, link.server[1])
                continue
            link.server[1].write({"before": b"", "half": frame[: len(frame) // 2]}.get(moment, frame))
            if moment != "after":
                self.cuts[moment] += 1
                return link.cut()
            link.answer_is_due = True

    async def _down(self, link: Link) -> None:
        while True:
            frame = await typed(link.server[0])
            if link.answer_is_due and frame[:1] == b"C":
                self.cuts["after"] += 1
                return link.cut()
            await self._pass(link, frame, link.client[1])

    def _due(self, frame: bytes) -> str | None:
        """The moment of the cut that is armed for this message."""
        if self._armed and self._armed[0][1] in frame:
            return self._armed.popleft()[0]
        return None

    async def _pass(self, link: Link, frame: bytes, to: asyncio.StreamWriter) -> None:
        if self._bytes_left is not None:
            self._bytes_left -= len(frame)
            if self._bytes_left < 0:
                to.write(frame[: self._bytes_left])
                self._bytes_left = None
                self.cuts["anywhere"] += 1
                link.cut()
                return
        to.write(frame)
        await to.drain()


async def untyped(reader: asyncio.StreamReader) -> bytes:
    """The first message of a connection: a length that counts itself, and so many bytes."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head) - 4)


async def typed(reader: asyncio.StreamReader) -> bytes:
    """Any other message: a type, a length that counts itself, and so many bytes."""
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server of `url`, until the `with` ends."""
    proxy = Proxy(url)
    running: set[Any] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        await proxy.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut_all()
        await asyncio.gather(*running)
