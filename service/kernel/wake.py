"""Long polls: park until a commit wakes the channel, then look again.

A wake-up is a hint, never the truth: whoever is woken runs its command again, and looks by itself now and then in case
a hint was lost on the way from another process. Who rests may be held instead, and be served by who would have woken it
(`kernel.handover`).
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from heapq import merge
from itertools import count as numbers
from operator import attrgetter
from typing import Any

from backends.protocol import topic_of as topic_of  # waiters and senders must agree
from service.errors import StateError
from service.kernel.command import Request

LOOK_SECONDS = 2.0
"""After so long at most, and half of it at least, a waiter looks by itself: not all at once who began at once."""
PARKED_MAX = 10_000
ALL, ONE_EACH = "*", "work/"
KINDS_MAX = 64
"""How many kinds of waiters are asked who may be held, over all channels that a command wakes."""
LOOKS, LATE_MAX = 2_000, 1_000
"""How many kinds of waiters are asked in a turn of the loop whether a wake-up is for them, and how many wake-ups of a
topic wait for a later turn: what is beyond is dropped, and its waiters look by themselves."""
places = numbers()


def of_channel(channel: str) -> tuple[str, Callable[[str], bool], str]:
    """Where one parks who waits for a channel: the topic, what wakes it, and who is alike."""
    return topic_of(channel), channel.__eq__, channel


class Parked:
    """One waiter: `accepts(channel)` says whether a wake-up is for it, as for all that are `alike`. One that waits to
    have a `request` decided, which takes up to `most` wake-ups, may be held, to be served by who would wake it."""

    __slots__ = ("accepts", "alike", "asked", "held", "most", "place", "request", "rests", "woken")

    def __init__(
        self,
        accepts: Callable[[str], bool],
        alike: Hashable = None,
        request: Request | None = None,
        most: int = 1,
        asked: bool = True,
    ) -> None:
        self.accepts, self.alike, self.place = accepts, self if alike is None else alike, next(places)
        self.request, self.most, self.asked = request, most, asked
        self.woken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.held: asyncio.Future[Any] | None = None
        self.rests = False

    def wake(self, channel: str) -> None:
        """Let it look, if it was not woken before."""
        if not self.woken.done():
            self.woken.set_result(channel)

    def stir(self, *_: Any) -> None:
        """Let it see what time it is, and whether anybody still waits for its answer."""
        self.wake("")

    def serve(self, outcome: Any) -> None:
        """Answer one that is held."""
        if self.held is not None and not self.held.done():
            self.held.set_result(outcome)


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

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._count

    def heard(self, channel: str, count: int) -> None:
        """Commits woke `channel` `count` times (`*`: look again, all of you)."""
        if channel == ALL or channel.endswith("/" + ALL):
            lines = self._parked.values() if channel == ALL else [self._parked.get(topic_of(channel), {})]
            for parked in [one for line in lines for one in line]:
                parked.wake(ALL)
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
            parked.wake(channel)
            count -= 1
            if not count and channel.startswith(ONE_EACH):
                return

    def hold(self, channels: Mapping[str, int], most: int, may: Callable[[Request], bool]) -> list[tuple[Parked, str]]:
        """Hold those whom so many wake-ups of channels would wake, and who have a request that may be decided instead;
        at most so many. None who looks just then, which may be given something: it would be given twice as much. Where
        many differ, or there are many channels, the rest is asked in its turn."""
        found: list[tuple[Parked, str]] = []
        left = KINDS_MAX
        for channel, count in channels.items():
            each = channel.startswith(ONE_EACH) and not channel.endswith("/" + ALL)
            kinds = self._alike.get(topic_of(channel), {}) if each else {}
            left -= len(kinds)
            if left < 0 or len(found) == most:
                break
            for parked in waiting([line for line in kinds.values() if next(iter(line)).accepts(channel)]):
                if parked.rests and parked.request is not None and may(parked.request):
                    parked.held = asyncio.get_running_loop().create_future()
                    found.append((parked, channel))
                    count -= parked.most
                    if count <= 0 or len(found) == most:
                        break
        return found

    def let_go(self, parked: Parked, channel: str) -> None:
        """Hold one no longer: it has its answer, or looks by itself. If it has left without one, the next one looks."""
        answered = parked.held is not None and parked.held.done()
        stays = parked in self._parked.get(topic_of(channel), ()) and not parked.woken.cancelled()
        parked.serve(None)
        if answered or stays:
            parked.wake(channel)
        else:
            self.heard(channel, 1)

    def _next_turn(self) -> None:
        """Go on with what was left, a wake-up of each topic in turn."""
        self._looks = LOOKS
        while self._late and self._looks > 0:
            topic = next(iter(self._late))
            late = self._late.pop(topic)
            self._pass_on(topic, *late.popleft())
            if late:
                self._late[topic] = late

    def park(
        self,
        topic: str,
        accepts: Callable[[str], bool],
        alike: Hashable = None,
        request: Request | None = None,
        most: int = 1,
        asked: bool = True,
    ) -> "Place":
        """Take a place before looking, so that nothing committed in between is missed. 503 when there is none. Waiters
        of a topic that say the same `alike` accept the same. A `request` may be decided by who would wake the waiter;
        it takes up to `most` of what there is. What nobody `asked` for, the service's own, is neither counted nor
        refused."""
        if asked and len(self._parked.get(topic, ())) >= self._most - self._count:
            raise StateError("server/busy", f"{self._count} requests wait already; wait elsewhere.", retry_after=5)
        return Place(topic, Parked(accepts, alike, request, most, asked), self)

    def enter(self, topic: str, parked: Parked) -> None:
        """Join the line of a topic; the first one there makes other processes tell of it."""
        line = self._parked.setdefault(topic, {})
        line[parked] = None
        self._alike.setdefault(topic, {}).setdefault(parked.alike, {})[parked] = None
        self._count += parked.asked
        if len(line) == 1:
            self._want(frozenset(self._parked))

    def leave(self, topic: str, parked: Parked) -> None:
        """Leave the line; a wake-up that came too late for the one who leaves goes to the next."""
        line, kinds = self._parked[topic], self._alike[topic]
        del line[parked], kinds[parked.alike][parked]
        self._count -= parked.asked
        if not kinds[parked.alike]:
            del kinds[parked.alike]
        if not line:
            del self._parked[topic], self._alike[topic]
            self._want(frozenset(self._parked))
        elif parked.woken.done() and not parked.woken.cancelled() and parked.woken.result().startswith(ONE_EACH):
            self.heard(parked.woken.result(), 1)

    def close(self) -> None:
        """Send every waiter home: the server is draining."""
        self.closing = True
        self.heard(ALL, 1)


def waiting(lines: list[dict[Parked, None]]) -> Iterator[Parked]:
    """Those of some lines that were not woken yet and are not held, in the order in which they came."""
    for parked in merge(*lines, key=attrgetter("place")):
        if parked.held is None and not parked.woken.done():
            yield parked


class Place:
    """A place in the line, left when the `with` ends. `answer` is what came of the request of one who was held."""

    def __init__(self, topic: str, parked: Parked, wakes: Wakes) -> None:
        self._topic, self._parked, self._wakes = topic, parked, wakes
        self._told = ""
        self.answer: Any = None

    def __enter__(self) -> "Place":
        self._wakes.enter(self._topic, self._parked)
        return self

    def __exit__(self, _kind: object = None, error: object = None, _trace: object = None) -> None:
        self._wakes.leave(self._topic, self._parked)
        if error is not None and self._told.startswith(ONE_EACH):  # it could not look: the next one does
            self._wakes.heard(self._told, 1)

    async def rest(self, seconds: float, until: "asyncio.Future[None] | None" = None) -> bool:
        """Wait for a wake-up, or until it is time to look; False when the server is closing or `until` is done."""
        if self._wakes.closing:
            return False
        parked, loop, self._told = self._parked, asyncio.get_running_loop(), ""
        timer = loop.call_later(min(seconds, random.uniform(LOOK_SECONDS / 2, LOOK_SECONDS)), parked.stir)
        if until is not None:
            until.add_done_callback(parked.stir)
        parked.rests = True
        try:
            await parked.woken
        finally:
            parked.rests = False
            timer.cancel()
            if until is not None:
                until.remove_done_callback(parked.stir)
        if until is not None and until.done():
            return False
        if parked.held is not None:
            if not parked.held.done():  # whatever the time: its answer is being committed
                await asyncio.wait([parked.held])
            self.answer, parked.held = parked.held.result(), None
        self._told, parked.woken = parked.woken.result(), loop.create_future()
        return not self._wakes.closing
