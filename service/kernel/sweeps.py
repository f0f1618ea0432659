"""Sweeps: what happens because time passes. Each is a command like any other, run by the service for itself.

One process at a time sweeps, by a lease in the database (`kernel.lease`), which is looked at before each page. A page
that a paused process still carries out does no harm: its commands are judged by the rows that they lock, and find done
what was done meanwhile. A sweep that finds nothing costs a read, not a write.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from backends.errors import StoreError
from backends.protocol import StateBackend
from service.errors import StateError
from service.kernel.lease import CHANNEL, LEASE_MS, Lease
from service.kernel.metrics import Metrics
from service.kernel.wake import Place, Wakes, topic_of

log = structlog.get_logger()
ALL = "all"
LOOKS = 8
"""How many times in the length of a lease a process looks after it."""


class Sweep(msgspec.Struct, frozen=True):
    """`run(services)` does what is due, `every_ms` apart. True says that there may be more: then it goes on at once,
    after a turn of the other sweeps."""

    name: str
    every_ms: int
    run: Callable[[Any], Awaitable[Any]]


class Sweeper:
    """Runs sweeps while it holds the lease."""

    def __init__(
        self,
        backend: StateBackend,
        services: Any,
        sweeps: Sequence[Sweep],
        interval_ms: int,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self.backend, self.services, self.sweeps = backend, services, sweeps
        self.lease = Lease(backend, lease_ms)
        self._interval_ms, self._look_seconds = interval_ms, lease_ms / 1000 / LOOKS
        self._metrics: Metrics = services.kernel.metrics
        self._due: dict[str, int] = {}
        self._taken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._off: set[str] = set()
        """What is put off, as was told: sweeps by their names, or `ALL`."""

    def start(self) -> None:
        """Begin to sweep in the background."""
        self._tasks = [asyncio.create_task(self._look_after()), asyncio.create_task(self._forever())]

    async def close(self) -> None:
        """Stop, and let go of the lease. Where the database is away it runs out by itself."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(self._look_seconds * LOOKS):
                    await self.lease.release()

    async def _look_after(self) -> None:
        """Renew the lease while it is held, wait for it otherwise: until it is let go of, or its time is over."""
        away = False
        wakes: Wakes = self.services.wakes
        with wakes.park(topic_of(CHANNEL), lambda _channel: True, asked=False) as place:
            while True:
                before = self.lease.held
                away = await self._ask(away)
                if self.lease.held and not before:
                    self._taken.set()
                await rest(None if self.lease.held else place, self._look_seconds)

    async def _ask(self, away: bool) -> bool:
        """Renew the lease or ask for it; whether the store was away, which is told when it changes."""
        try:
            async with asyncio.timeout(self._look_seconds * LOOKS / 2):
                await self.lease.keep()
        except (StoreError, TimeoutError) as error:
            if not away:
                log.warning("the lease of the sweeps cannot be asked for; it is tried on", error=str(error))
            return True
        except Exception:
            log.exception("the lease of the sweeps could not be asked for")
            return away
        if away:
            log.info("the lease of the sweeps can be asked for again")
        return False

    async def _forever(self) -> None:
        more = False
        while True:
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_ms / 1000):
                        await self._taken.wait()
            self._taken.clear()
            try:
                more = self.lease.held and await self.round()
                self._goes_on(ALL)
            except StoreError as error:
                more = False
                self._put_off(ALL, error)
            except Exception:
                more = False
                log.exception("the sweeps failed")

    async def round(self) -> bool:
        """A page of everything that is due, if this process holds the lease; whether there may be more. A sweep that
        fails does not keep others waiting."""
        more = False
        for sweep in self.sweeps:
            now = self.backend.now()
            if 0 < self._due.get(sweep.name, 0) - now <= sweep.every_ms:  # further ahead: the clock was set back
                continue
            if not await self.lease.keep():
                return False
            self._due[sweep.name] = now + sweep.every_ms
            if await self._run(sweep):
                self._due[sweep.name], more = now, True
        return more

    async def _run(self, sweep: Sweep) -> bool:
        try:
            more = bool(await sweep.run(self.services))
        except (StoreError, StateError) as error:
            self._put_off(sweep.name, error)
        except Exception:
            log.exception("a sweep failed", sweep=sweep.name)
        else:
            self._goes_on(sweep.name)
            self._metrics.swept[sweep.name] = self.backend.now()
            return more
        self._metrics.put_off[sweep.name] += 1
        return False

    def _put_off(self, name: str, error: Exception) -> None:
        """Tell, the first time, that it cannot be done now."""
        if name not in self._off:
            self._off.add(name)
            log.warning("a sweep was put off", sweep=name, error=str(error))

    def _goes_on(self, name: str) -> None:
        """Tell that it can be done again."""
        if name in self._off:
            self._off.discard(name)
            log.info("a sweep goes on", sweep=name)


async def rest(place: Place | None, seconds: float) -> None:
    """Wait so long, or until who stands in `place` is woken."""
    if place is None or not await place.rest(seconds):
        await asyncio.sleep(seconds)
