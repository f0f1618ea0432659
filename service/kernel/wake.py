"""Long polls: park until a commit wakes the channel, then look again.

A wake-up is a hint, never the truth: whoever is woken runs its command again, and looks by itself now and then in case
a hint was lost on the way from another process.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from heapq import merge
from itertools import count as numbers
from operator import attrgetter
from typing import Any

from backends.protocol import topic_of as topic_of  # waiters and senders must agree
from service.errors import StateError

LOOK_SECONDS = 2.0
PARKED_MAX = 10_000
ALL, ONE_EACH = "*", "work/"
LOOKS, LATE_MAX = 2_000, 1_000
"""How many kinds of waiters are asked in a turn of the loop whether a wake-up is for them, and how many wake-ups of a
topic wait for a later turn: what is beyond is dropped, and its waiters look by themselves."""
places = numbers()


class Parked:
    """One waiter: `accepts(channel)` says whether a wake-up is for it, as for all that are `alike`."""

    __slots__ = ("accepts", "alike", "place", "woken")

    def __init__(self, accepts: Callable[[str], bool], alike: Hashable = None) -> None:
        self.accepts, self.alike, self.place = accepts, self if alike is None else alike, next(places)
        self.woken: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class Wakes:
    """Waiters by topic (the part of a channel before the first `/`), woken in the order in which they came.

    A channel `work/<tenant>/…` wakes one waiter for each time it was woken; any other channel wakes all its waiters,
    and `work/<tenant>/*` everybody in the tenant's line. At most `most` wait at a time; a topic is a tenant's, and its
    line may be as long as there is room left, so that no tenant's waiters keep those of others out. Those that are
    alike are asked once; where many differ, wake-ups are passed on over several turns of the loop, topic by topic.
    """

    def __init__(self, want: Callable[[frozenset[str]], None] = lambda topics: None, most: int = PARKED_MAX) -> None:
        self._want, self._most = want, most
        self._parked: dict[str, dict[Parked, None]] = {}
        self._alike: dict[str, dict[Hashable, dict[Parked, None]]] = {}
        self._late: dict[str, deque[tuple[str, int]]] = {}
        self._count, self._looks = 0, LOOKS
        self.closing = False

    def heard(self, channel: str, count: int) -> None:
        """Commits woke `channel` `count` times (`*`: look again, all of you)."""
        if channel == ALL or channel.endswith("/" + ALL):
            lines = self._parked.values() if channel == ALL else [self._parked.get(topic_of(channel), {})]
            for parked in [one for line in lines for one in line]:
                self._wake(parked, ALL)
            return
        topic = topic_of(channel)
        if topic in self._parked:
            late = self._late.get(topic)
            if late is None and self._looks > 0:
                self._pass_on(topic, channel, count)
            elif late is None:
                self._late[topic] = deque([(channel, count)])
            elif len(late) < LATE_MAX:
                late.append((channel, count))

    def _pass_on(self, topic: str, channel: str, count: int) -> None:
        """Wake those that a channel is for."""
        kinds = self._alike.get(topic, {})
        if self._looks == LOOKS:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._looks -= len(kinds)
        found = [line for line in kinds.values() if next(iter(line)).accepts(channel)]
        for parked in waiting(found):
            self._wake(parked, channel)
            count -= 1
            if not count and channel.startswith(ONE_EACH):
                return

    def _next_turn(self) -> None:
        """Go on with what was left, a wake-up of each topic in turn."""
        self._looks = LOOKS
        while self._late and self._looks > 0:
            topic = next(iter(self._late))
            late = self._late.pop(topic)
            self._pass_on(topic, *late.popleft())
            if late:
                self._late[topic] = late

    @staticmethod
    def _wake(parked: Parked, channel: str) -> None:
        if not parked.woken.done():
            parked.woken.set_result(channel)

    def park(self, topic: str, accepts: Callable[[str], bool], alike: Hashable = None) -> "Place":
        """Take a place before looking, so that nothing committed in between is missed. 503 when there is none. Waiters
        of a topic that say the same `alike` accept the same."""
        if len(self._parked.get(topic, ())) >= self._most - self._count:
            raise StateError("server/busy", f"{self._count} requests wait already; wait elsewhere.", retry_after=5)
        return Place(topic, Parked(accepts, alike), self)

    def enter(self, topic: str, parked: Parked) -> None:
        """Join the line of a topic; the first one there makes other processes tell of it."""
        line = self._parked.setdefault(topic, {})
        line[parked] = None
        self._alike.setdefault(topic, {}).setdefault(parked.alike, {})[parked] = None
        self._count += 1
        if len(line) == 1:
            self._want(frozenset(self._parked))

    def leave(self, topic: str, parked: Parked) -> None:
        """Leave the line; a wake-up that came too late for the one who leaves goes to the next."""
        line, kinds = self._parked[topic], self._alike[topic]
        del line[parked], kinds[parked.alike][parked]
        self._count -= 1
        if not kinds[parked.alike]:
            del kinds[parked.alike]
        if not line:
            del self._parked[topic], self._alike[topic]
            self._want(frozenset(self._parked))
        elif parked.woken.done() and parked.woken.result().startswith(ONE_EACH):
            self.heard(parked.woken.result(), 1)

    def close(self) -> None:
        """Send every waiter home: the server is draining."""
        self.closing = True
        self.heard(ALL, 1)


def waiting(lines: list[dict[Parked, None]]) -> Iterator[Parked]:
    """Those of some lines that were not woken yet, in the order in which they came."""
    for parked in merge(*lines, key=attrgetter("place")):
        if not parked.woken.done():
            yield parked


class Place:
    """A place in the line, left when the `with` ends."""

    def __init__(self, topic: str, parked: Parked, wakes: Wakes) -> None:
        self._topic, self._parked, self._wakes = topic, parked, wakes

    def __enter__(self) -> "Place":
        self._wakes.enter(self._topic, self._parked)
        return self

    def __exit__(self, *_: object) -> None:
        self._wakes.leave(self._topic, self._parked)

    async def rest(self, seconds: float, until: "asyncio.Future[None] | None" = None) -> bool:
        """Wait for a wake-up, or until it is time to look; False when the server is closing or `until` is done."""
        if self._wakes.closing:
            return False
        parked = self._parked
        either: list[asyncio.Future[Any]] = [parked.woken] if until is None else [parked.woken, until]
        await asyncio.wait(either, timeout=min(seconds, LOOK_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        if until is not None and until.done():
            return False
        if parked.woken.done():
            parked.woken = asyncio.get_running_loop().create_future()
        return not self._wakes.closing
