"""Wake-ups between processes: one LISTEN connection, one NOTIFY for all that was woken since the last.

A NOTIFY inside a transaction takes a lock that every committing transaction shares and halves the commit rate, so it
travels beside it: after the commit, on this connection, and only for what another process waits for (each says so now
and then). A wake-up is a hint; whoever waits also looks by himself now and then, so a lost one costs time, never truth.
"""

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from backends.protocol import Heard, topic_of

CHANNEL = "holdfast"
HELLO_SECONDS = 2.0
AGAIN_SECONDS = 0.5
PEER_SECONDS = 7.0
FAREWELL_SECONDS = 1.0
"""What is still to be told when the store is closed is told within this time, or not at all."""
PAYLOAD_BYTES = 7000
OUTGOING_MAX = 10_000
"""Channels that are kept to be told of while nobody can be told; of more, everything is."""
EVERYTHING = "*"
NOTHING: tuple[float, frozenset[str]] = (0.0, frozenset())
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncio.TimeoutError)
"""Whatever ends a session: a host that is away, a standby that refuses, a connection that broke."""


class Listener:
    """`tell` wakes this process at once and the others within a round trip; `healthy` says whether we hear them."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self.heard: list[Heard] = []
        self.healthy = False
        self._me = uuid.uuid4().hex
        self._peers: dict[str, tuple[float, frozenset[str]]] = {}
        self._wanted: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()
        self._outgoing: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to listen; safe to call again."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def tell(self, channels: Mapping[str, int]) -> None:
        """Announce what a commit woke, and how often."""
        for channel, count in channels.items():
            self._hear(channel, count)
            if any(wanted(channel, topics) for _, topics in self._peers.values()):
                if len(self._outgoing) >= OUTGOING_MAX:
                    self._outgoing = Counter({EVERYTHING: 1})
                self._outgoing[channel] += count
                self._news.set()

    def want(self, topics: frozenset[str]) -> None:
        """Tell the others what is waited for here."""
        if topics - self._wanted:
            self._news.set()
        self._wanted = topics

    async def close(self) -> None:
        """Tell what the last commits woke, and end."""
        if self._task is None:
            return
        self._closing = True
        self._news.set()
        await asyncio.wait([self._task], timeout=FAREWELL_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _hear(self, channel: str, count: int) -> None:
        for heard in self.heard:
            heard(channel, count)

    async def _run(self) -> None:
        while not self._closing:
            try:
                await self._session()
            except LOST:
                if not self.healthy:  # the last try failed as well
                    await asyncio.sleep(AGAIN_SECONDS)
                self.healthy = False

    async def _session(self) -> None:
        db = await self._connect()
        try:
            db.add_termination_listener(lambda _: self._news.set())  # to find out now, not at the next hello
            await db.add_listener(CHANNEL, self._receive)
            await self._hello(db)
            self.healthy = True
            self._hear("*", 1)  # whatever was missed while away: everybody looks again
            while not self._closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HELLO_SECONDS):  # wait_for may swallow a cancellation (Python 3.11)
                        await self._news.wait()
                await self._send(db)
        finally:
            db.terminate()

    async def _send(self, db: Any) -> None:
        now = time.monotonic()
        self._peers = {peer: told for peer, told in self._peers.items() if now - told[0] < PEER_SECONDS}
        self._news.clear()
        outgoing, self._outgoing = self._outgoing, Counter()
        try:
            if not outgoing or self._wanted != self._told:
                await self._hello(db)
            for payload in packed([f"{name}={count}" for name, count in outgoing.items()]):
                await self._notify(db, f"wake {self._me} {payload}")
        except LOST:
            self._outgoing.update(outgoing)  # said again on the next connection; a wake-up too many does no harm
            raise

    async def _hello(self, db: Any) -> None:
        """Say that we are here and what is waited for; what does not fit into a message is `*`, everything."""
        self._told = self._wanted
        topics = " ".join(sorted(self._told))
        await self._notify(db, f"hello {self._me} {topics if len(topics) < PAYLOAD_BYTES else EVERYTHING}".rstrip())

    async def _notify(self, db: Any, payload: str) -> None:
        await db.execute("SELECT pg_notify($1, $2)", CHANNEL, payload, timeout=5)

    def _receive(self, _db: Any, _pid: int, _channel: str, payload: str) -> None:
        word, sender, *channels = payload.split(" ")
        if sender == self._me:
            return
        if sender not in self._peers:
            self._news.set()  # a newcomer learns of us at once
        topics = frozenset(channels) if word == "hello" else self._peers.get(sender, NOTHING)[1]
        self._peers[sender] = (time.monotonic(), topics)
        for told in channels if word == "wake" else ():
            name, _, count = told.rpartition("=")
            self._hear(name, int(count))


def wanted(channel: str, topics: frozenset[str]) -> bool:
    """Whether a process that waits for `topics` is told of a channel: of its own, and of what is for everybody."""
    return channel == EVERYTHING or EVERYTHING in topics or topic_of(channel) in topics


def packed(channels: list[str]) -> list[str]:
    """Channel names joined into payloads that NOTIFY accepts (under 8,000 bytes)."""
    out: list[str] = []
    for channel in channels:
        if out and len(out[-1]) + len(channel) < PAYLOAD_BYTES:
            out[-1] += " " + channel
        else:
            out.append(channel)
    return out
