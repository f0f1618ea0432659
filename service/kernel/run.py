"""From commands to commits: requests that arrive while a commit is under way gather and go together in the next one.

One batch is one transaction: standings and rows loaded, each command decided in the order of arrival over the same
working set, everything written once. A refusal drops only its own overlay. If the store objects, the batch is
undone and its halves are tried apart, so that one bad command cannot fail the others. If somebody holds a row for too
long, tenants are tried apart (`apart.py`). At low load a batch is one command and nothing waits.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from time import perf_counter
from typing import Any

import structlog
from msgspec.structs import replace

from backends.errors import (
    Conflict,
    Corrupt,
    Full,
    Locked,
    OutcomeUnknown,
    SchemaMismatch,
    StoreError,
    TooSlow,
    Unavailable,
)
from backends.protocol import Read, Row, StateBackend, Tenants, Tx
from service.errors import StateError
from service.kernel import idempotency
from service.kernel.apart import MOST, Apart, Haste, parts
from service.kernel.command import Chooser, PutOff, Replayed, Request, Rule
from service.kernel.events import Logged
from service.kernel.handover import Along, told_of
from service.kernel.metrics import Metrics
from service.kernel.principal import SYSTEM, Principal, Standing
from service.kernel.seldom import Seldom
from service.kernel.standing import Guesses, kept_at, reading, standings_in
from service.kernel.tables import Key, Wanted
from service.kernel.view import Missing, RowKey, View
from service.kernel.wake import Wakes
from service.kernel.working_set import Schema, WorkingSet

log = structlog.get_logger()
ROUNDS = 1_000
CONFLICTS = 5
OBJECTED_MS = 1_000
"""Time between two lines of the log of the same objection of the store."""
SHARE, FEW, COMPANY = 8, 4, 16
"""A tenant in company fills at most an eighth of a batch and takes no more of it than the next busiest, but four in any
case; it is in company until sixteen batches were of it alone."""
PATIENCE = 0.01
"""Seconds after which few wait no longer for a batch under way: it may be a large one, or be held up by a lock."""
LONG = 0.02
"""Seconds of deciding after which a batch is committed as far as it is: who is left goes with the next one, and others
have their turn in between."""
PACE = 4
"""A batch may be a quarter larger than the one before it, up to the most, once one was too large to decide in time."""
CLOSE_SECONDS = 5.0
Outcome = Any
"""A reply, the `StateError` that refused, or `PutOff`."""
Group = tuple[Chooser, Any]
"""What commands that choose together have in common."""


Meter = Callable[[int, Counter[Key]], None]
"""Told after each commit when it was (milliseconds) and what it did, as `Table.metered` names it."""


def said_under(request: Request) -> tuple[str, str] | None:
    """Whose idempotency key a request has, and which; None if it has none."""
    return None if request.idempotency_key is None else (request.who.tenant_id, request.idempotency_key)


class Kernel:
    """Runs commands on a backend. `run` is all that a route, a sweep or a test needs."""

    def __init__(
        self,
        backend: StateBackend,
        schema: Schema,
        rules: Mapping[type, Rule],
        *,
        batch_max: int = 64,
        waiting_max: int = 10_000,
    ) -> None:
        self.backend, self.schema, self.rules = backend, schema, rules
        self._guesses = Guesses()
        self._batch_max, self._waiting_max, self._fits = batch_max, waiting_max, batch_max
        self._waiting: dict[str, deque[tuple[Request, asyncio.Future[Outcome]]]] = {}
        self._count = self._company = self._flying = self._begun = 0
        self._apart, self._lately_apart, self._flying_apart = Apart(backend), False, 0
        self.meter: Meter = unmetered
        self.metrics = Metrics()
        self.objected = Seldom(OBJECTED_MS)
        self.wakes = Wakes()
        self._lanes, self._patient = backend.lanes, False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many commands wait for a transaction."""
        return self._count

    async def run(self, who: Principal, command: Any) -> Any:
        """Run one command; its reply, or the `StateError` that refused it."""
        return await self.submit(Request(who, command))

    def submit(self, request: Request) -> asyncio.Future[Outcome]:
        """Let a request join the next batch of its backend.

        A tenant may have as many waiting as there is room left: alone it fills half of the room, beside another a
        third, and whoever comes next still finds some.
        """
        queue = self._waiting.get(request.who.tenant_id)
        if (0 if queue is None else len(queue)) >= self._waiting_max - self._count:
            raise StateError(
                "server/busy", f"{self._count} commands wait already; slow down and try again.", retry_after=1
            )
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if queue is None:
            queue = self._waiting[request.who.tenant_id] = deque()
        queue.append((request, future))
        self._count += 1
        self._begin()
        return future

    def _begin(self, *, hurry: bool = False) -> None:
        """Let a free lane take what waits; beside a batch under way only if no fewer wait than that one holds.

        A batch of few costs the store nearly what a large one does, and those who wait soon find company.
        """
        if not (self._lanes and self._count) or self._all_stay():
            return
        if self._count < self._flying and not hurry:
            if not self._patient:
                self._patient = True
                asyncio.get_running_loop().call_later(PATIENCE, self._hurry, self._begun)
            return
        self._lanes -= 1
        task = asyncio.get_running_loop().create_task(self._drain())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hurry(self, begun: int) -> None:
        """Wait no longer, if no batch was begun meanwhile."""
        self._patient = False
        self._begin(hurry=begun == self._begun)

    async def _drain(self) -> None:
        try:
            while self._count and not self._all_stay():
                batch = self._next_batch()
                apart, beside = (1, 0) if self._lately_apart else (0, len(batch))
                self._flying, self._begun = self._flying + beside, self._begun + 1
                self._flying_apart += apart
                try:
                    outcomes = await self.execute([request for request, _ in batch], whole=False)
                except Exception as error:  # whatever it was, nobody waits for ever
                    outcomes = [error] * len(batch)
                finally:
                    self._flying -= beside
                    self._flying_apart -= apart
                self._pace(len(batch), self._put_back(batch, outcomes))
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    if future.done() or isinstance(outcome, PutOff):  # the caller went away, or waits on
                        continue
                    if isinstance(outcome, BaseException):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
                if self._count < self._flying:
                    break
                if self.backend.serial:  # it decides without ever waiting: whoever has an answer sends it first
                    await asyncio.sleep(0)
        finally:
            self._lanes += 1
        self._begin()

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Outcome]]]:
        """As many requests as fit, one from each waiting tenant in turn, so that a flood of one cannot fill the batch.

        Where others ask too, or did a few batches ago, the busiest has little more than they: who asks for little does
        not wait for a batch that a flood has made long. The system's own act for every tenant: when they are first in
        line they go, and by themselves.
        """
        batch: list[tuple[Request, asyncio.Future[Outcome]]] = []
        first, self._lately_apart = self._next_in_line(), False
        if first in self._apart:
            return self._batch_apart(first)
        aside = {one: self._waiting.pop(one) for one in self._apart.among(self._waiting)}
        system = self._waiting.pop(SYSTEM, None)
        line = {SYSTEM: system} if system is not None and first == SYSTEM else self._waiting
        self._company = COMPANY if len(line) > 1 else max(0, self._company - 1)
        most = max(1, self._fits // SHARE) if self._company else self._fits
        taken: Counter[str] = Counter()
        served: dict[str, deque[tuple[Request, asyncio.Future[Outcome]]]] = {}
        while line and len(batch) < self._fits:
            tenant = next(iter(line))
            queue = line.pop(tenant)
            if not line and self._company:
                most = min(most, max(FEW, *(taken[other] for other in taken if other != tenant), 0))
            share = 1 if line else max(0, min(self._fits - len(batch), most - taken[tenant]))
            taken[tenant] += share
            while queue and share:
                batch.append(queue.popleft())
                share -= 1
            if queue:  # to the back of the line, of this batch or the next
                (line if line and taken[tenant] < most else served)[tenant] = queue
        line |= served
        if line is not self._waiting:
            self._waiting |= line
        elif system is not None:
            self._waiting = {SYSTEM: system, **self._waiting}
        if aside:
            self._waiting = aside | self._waiting
        self._count -= len(batch)
        return batch

    def _next_in_line(self) -> str:
        """Whose turn it is: the first in line, but never two of those that go apart one after the other or side by
        side while anybody else waits."""
        first = next(iter(self._waiting))
        if (self._lately_apart or self._flying_apart) and first in self._apart:
            return next((one for one in self._waiting if one not in self._apart), first)
        return first

    def _batch_apart(self, tenant_id: str) -> list[tuple[Request, asyncio.Future[Outcome]]]:
        """Some requests of a tenant that goes apart; what is left of them goes to the back of the line."""
        queue, self._lately_apart = self._waiting.pop(tenant_id), True
        batch = [queue.popleft() for _ in range(min(len(queue), MOST))]
        if queue:
            self._waiting[tenant_id] = queue
        self._count -= len(batch)
        return batch

    def _all_stay(self) -> bool:
        """Whether nobody waits but tenants that go apart, while one of these is under way: the other lanes are not
        theirs."""
        return bool(self._flying_apart) and all(one in self._apart for one in self._waiting)

    def _put_back(self, batch: Sequence[tuple[Request, asyncio.Future[Outcome]]], outcomes: Sequence[Outcome]) -> int:
        """Let those that were put off wait again, before those of their tenants that came after them; how many of them
        there was no time for."""
        waiting = [(one.request, batch[at][1]) for at, one in enumerate(outcomes) if isinstance(one, PutOff)]
        for request, future in reversed(waiting):
            self._waiting.setdefault(request.who.tenant_id, deque()).appendleft((request, future))
        self._count += len(waiting)
        return sum(not request.again for request, _ in waiting)

    def _pace(self, tried: int, late: int) -> None:
        """Take no more next time than could be decided now, for what is put off was loaded in vain, but no less than
        half, for it may have been a hiccup; then more again, step by step."""
        more = min(self._batch_max, self._fits + self._fits // PACE + 1)
        self._fits = max(tried - late, tried // 2, 1) if late else more

    async def execute(
        self, batch: Sequence[Request], *, whole: bool = True, haste: Haste | None = None
    ) -> list[Outcome]:
        """Run a batch: the `whole` of it, or what is decided in one transaction."""
        outcomes = await self._tried(batch, haste)
        while whole and (left := [place for place, outcome in enumerate(outcomes) if isinstance(outcome, PutOff)]):
            later = await self._tried([outcomes[place].request for place in left], haste)
            for place, outcome in zip(left, later, strict=True):
                outcomes[place] = outcome
        return outcomes

    async def _tried(self, batch: Sequence[Request], haste: Haste | None) -> list[Outcome]:
        """Run a batch in one transaction; halve it when the store objects, and go apart when somebody holds a row."""
        tenants = kept_at([request.who for request in batch])
        if haste is None and self._apart and batch[0].who.tenant_id in self._apart:
            haste = Haste()
        for attempt in range(CONFLICTS):
            try:
                outcomes, done = await self._written(batch, tenants, haste)
            except Conflict as error:
                self.metrics.objections[type(error).__name__] += 1
                if len(batch) > 1:
                    return await self._halves(batch, haste)
                if attempt == CONFLICTS - 1:
                    log.warning("a command met a conflict each time it was tried", error=str(error), exc_info=True)
                    return [away(error)] * len(batch)
            except StoreError as error:
                self.metrics.objections[type(error).__name__] += 1
                if type(error) is StoreError and len(batch) > 1:  # it objects to a row; it is not away
                    return await self._halves(batch, haste)
                if isinstance(error, Locked):
                    if haste is not None:
                        haste.waited()
                    if len(batch) > 1:
                        return await self._in_parts(batch, haste or Haste())
                    self._apart.met(batch[0].who.tenant_id)
                self._warn_of(error)
                return [away(error)] * len(batch)
            except Exception:
                log.exception("a batch failed", commands=[type(request.command).__name__ for request in batch])
                if len(batch) == 1:
                    return [StateError("server/error", "The server failed; nothing was changed.")]
                return [(await self.execute([request], haste=haste))[0] for request in batch]
            else:
                if not self.backend.serial:
                    self._doubt(batch, outcomes, done)
                return outcomes
        raise AssertionError("unreachable")

    def _warn_of(self, error: StoreError) -> None:
        """A line of the log: one a second of what a store that is away, or full, says to each batch."""
        kind, said = type(error).__name__, str(error)
        if refused := self.objected.count((kind, said), self.backend.now()):
            cause = repr(error.__cause__)
            log.warning("the store refused a batch", error=said, kind=kind, cause=cause, refused=refused)

    async def _written(
        self, batch: Sequence[Request], tenants: Tenants, haste: Haste | None
    ) -> tuple[list[Outcome], WorkingSet]:
        """Run a batch in one transaction; with those along whom a lone command wakes, and without if the store objects.

        Whom many commands wake looks with the next batch: in company a look costs less than it does behind each batch.
        """
        run, write = self._transaction, partial(self.backend.write, tenants=tenants)
        writing = write if haste is None else partial(write, lock_ms=haste.lock_ms)
        lone, begun = not self._count and sum(not request.behind for request in batch) == 1, perf_counter()
        with Along(self.wakes, tenants) as along:
            try:
                outcomes, sets = await writing(partial(run, batch=batch, along=along if lone else None))
                along.serve()
            except Exception as error:
                if not along or (isinstance(error, StoreError) and type(error) not in (StoreError, Conflict, Locked)):
                    raise
                if isinstance(error, Locked):  # it has waited already
                    writing = partial(write, lock_ms=(haste or Haste()).lock_ms)
                outcomes, sets = await writing(partial(run, batch=batch, along=None))
        commands = [type(request.command) for request in batch]
        self.metrics.wrote(commands, perf_counter() - begun)
        for done in sets:
            self.meter(*done.measured())
        return outcomes, sets[0]

    def _doubt(self, batch: Sequence[Request], outcomes: list[Outcome], done: WorkingSet) -> None:
        """Put off what was refused, so that it is decided again in a later batch, where a row that it asked for was not
        there: somebody may have committed it after that was read and before the rest was.

        What is done on such a picture, the store objects to; a refusal does nothing that it could object to. So would
        the repeat of a request be refused for what the first did, which commits just then with its Idempotency-Key.
        """
        refused = [i for i, one in enumerate(outcomes) if isinstance(one, StateError) and not batch[i].again]
        for i, standing in zip(refused, self._guesses.of([batch[i].who for i in refused]), strict=True):
            if any(done.lacks(wanted) for wanted in self._wanted([batch[i]], [standing])):
                outcomes[i] = PutOff(replace(batch[i], again=True))

    async def _halves(self, batch: Sequence[Request], haste: Haste | None) -> list[Outcome]:
        middle = len(batch) // 2
        halves = batch[:middle], batch[middle:]
        return [outcome for half in halves for outcome in await self.execute(half, haste=haste)]

    async def _in_parts(self, batch: Sequence[Request], haste: Haste) -> list[Outcome]:
        """Run a batch again that met a row which somebody holds, each part by itself."""
        outcomes: list[Outcome] = [None] * len(batch)
        for part in parts(batch):
            told = await self._tried([batch[index] for index in part], haste)
            for index, outcome in zip(part, told, strict=True):
                outcomes[index] = outcome
        return outcomes

    async def _transaction(
        self, tx: Tx, batch: Sequence[Request], along: Along | None
    ) -> tuple[list[Outcome], list[WorkingSet]]:
        behind = [request for request in batch if request.behind]
        front = [request for request in batch if not request.behind] if behind else batch
        outcomes, base = await self._decided(tx, front)
        company, sets = list[Request](), [base]
        if along is not None:  # what was given up is mostly taken by who comes behind
            company = along.called(base.wakes if behind else list(told_of(sets)))
        if behind or company:
            later, beside = await self._decided(tx, [*behind, *company])
            sets.append(beside)
            if along is not None:
                along.decided(later[len(behind) :])
            in_turn = {False: iter(outcomes), True: iter(later)}
            outcomes = [next(in_turn[request.behind]) for request in batch]
        for channel in told_of(sets):
            tx.wake(channel)
        return outcomes, sets

    async def _decided(self, tx: Tx, batch: Sequence[Request]) -> tuple[list[Outcome], WorkingSet]:
        """Load, decide, write; the outcomes, and what it was decided over."""
        base, whos = WorkingSet(self.schema, tx.now), [request.who for request in batch]
        chosen, found = await self._point_out(tx, batch)
        guessed = self._guesses.of(whos)
        wanted, groups = chain(self._wanted(batch, guessed), found), self._groups(batch, pointing=False)
        ahead = self._ahead(batch, groups)
        beside = chain.from_iterable(reads for _, reads in ahead.values())
        stands, *looked = await base.load(tx, wanted, reading(whos), *beside)
        standings = standings_in(stands, whos)
        if [one.limits for one in guessed] != [one.limits for one in standings]:
            await base.load(tx, self._wanted(batch, standings))
            self._guesses.learn(whos, standings)
        seen = {group: (asks, [looked.pop(0) for _ in reads]) for group, (asks, reads) in ahead.items()}
        await self._choose(tx, base, batch, groups, chosen, seen)
        outcomes: list[Outcome] = [None] * len(batch)
        todo = list(range(len(batch)))
        ids: dict[int, list[str]] = {}
        until, decided = perf_counter() + LONG, 0
        for _ in range(ROUNDS):
            missing: list[Wanted] = []
            again = []
            undecided = set[tuple[str, str] | None]()
            for index in todo:
                if decided and index != todo[0] and perf_counter() > until:
                    outcomes[index] = PutOff(batch[index])
                    continue
                if (under := said_under(batch[index])) is not None and under in undecided:
                    again.append(index)  # behind the one that it repeats
                    continue
                view = View(base, batch[index].who, standings[index], tx.now)
                view.origin = batch[index].origin
                view.chosen = chosen.get(index, [])
                view.ids = ids.get(index, view.ids)
                try:
                    outcomes[index] = self._decide(view, batch[index])
                    base.keep(view)
                    decided += 1
                except StateError as refusal:
                    outcomes[index] = refusal
                    decided += 1
                except Missing as error:
                    missing += error.wanted
                    ids[index] = view.ids
                    again.append(index)
                    undecided.add(under)
            if not again:
                break
            asked = perf_counter()
            await base.load(tx, missing)
            until += perf_counter() - asked  # a round of reads costs the batch the same, however many decide after it
            todo = again
        else:
            raise RuntimeError("a decision kept asking for more rows")
        look_again(batch, outcomes, chosen)
        await base.flush(tx)
        if base.freed:
            await base.find_heirs(tx)
        return outcomes, base

    def _wanted(self, batch: Sequence[Request], standings: Sequence[Standing]) -> Iterable[Wanted]:
        for request, standing in zip(batch, standings, strict=True):
            if request.idempotency_key is not None:
                yield idempotency.IdempotencyKey, (request.who.tenant_id, request.idempotency_key)
            yield from self.rules[type(request.command)].keys(request.command, request.who, standing)

    def _groups(self, batch: Sequence[Request], pointing: bool) -> dict[Group, list[int]]:
        """The commands that choose together, by index."""
        groups: dict[Group, list[int]] = {}
        for index, request in enumerate(batch):
            chooser = self.rules[type(request.command)].chooser
            if chooser is not None and (chooser.keys is not None) is pointing:
                groups.setdefault((chooser, chooser.group(request.command, request.who)), []).append(index)
        return groups

    @staticmethod
    def _ahead(batch: Sequence[Request], groups: Mapping[Group, list[int]]) -> dict[Group, tuple[Any, list[Read]]]:
        """What commands that choose together may read before anything is locked."""
        return {
            group: group[0].ahead([batch[i].command for i in members], [batch[i].who for i in members])
            for group, members in groups.items()
            if group[0].ahead is not None
        }

    async def _point_out(self, tx: Tx, batch: Sequence[Request]) -> tuple[dict[int, list[RowKey]], list[Wanted]]:
        """Let the database point at rows, before anything is locked; they are loaded in order with the rest."""
        chosen: dict[int, list[RowKey]] = {}
        wanted: list[Wanted] = []
        for (chooser, _), members in self._groups(batch, True).items():
            rows = await chooser.choose(tx, [batch[i].command for i in members], [batch[i].who for i in members])
            for index, own in zip(members, rows, strict=True):
                named = [chooser.keys(values) for values in own] if chooser.keys else []
                chosen[index] = [keys[0] for keys in named]
                wanted += [key for keys in named for key in keys]
        return chosen, wanted

    async def _choose(
        self,
        tx: Tx,
        base: WorkingSet,
        batch: Sequence[Request],
        groups: Mapping[Group, list[int]],
        chosen: dict[int, list[RowKey]],
        seen: Mapping[Group, tuple[Any, list[list[Row]]]],
    ) -> None:
        """Let the database choose rows and lock them without waiting, after everything else is locked."""
        for group, members in groups.items():
            chooser, asked = group[0], ([batch[i].command for i in members], [batch[i].who for i in members])
            rows = await chooser.choose(tx, *asked, *seen.get(group, ()))
            for index, own in zip(members, rows, strict=True):
                chosen[index] = base.take(self.schema.tables[chooser.row], own, whole=chooser.whole)

    def _decide(self, view: View, request: Request) -> Outcome:
        refuse_if_out(view.who, view.standing, view.now)
        if (before := idempotency.recall(view, request)) is not None:
            return before
        rule = self.rules[type(request.command)]
        if not rule.while_suspended:
            refuse_if_suspended(view.who, view.standing)
        reply = rule.decide(view, request.command)
        if view.events:
            view.tell(Logged())
        idempotency.remember(view, request, reply)
        return reply

    async def close(self) -> None:
        """Wait for what is in flight, but no longer than is fit for a store that does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._tasks:
                    await asyncio.gather(*self._tasks, return_exceptions=True)


def look_again(batch: Sequence[Request], outcomes: list[Outcome], chosen: Mapping[int, Sequence[RowKey]]) -> None:
    """Put off who was given nothing where rows that were chosen for the tenant were not taken: a command before had
    changed them, or they were chosen for one that was refused or answered as before. There may be others."""
    left = {batch[i].who.tenant_id for i, rows in chosen.items() if rows and empty_handed(outcomes[i])}
    for i, request in enumerate(batch):
        if request.who.tenant_id in left and nothing(outcomes[i]) and not request.again:
            outcomes[i] = PutOff(replace(request, again=True))


def empty_handed(outcome: Outcome) -> bool:
    """Whether a command took nothing of what was chosen for it."""
    return isinstance(outcome, StateError | Replayed) or nothing(outcome)


def nothing(outcome: Outcome) -> bool:
    """Whether it says itself that nothing happened."""
    return bool(getattr(outcome, "nothing_happened", False))


def unmetered(_now: int, _measured: Counter[Key]) -> None:
    """Nobody asks how much is done."""


def refuse_if_out(who: Principal, standing: Standing, now: int) -> None:
    """Refuse a token that was revoked or has expired, as the transaction itself sees it."""
    if who.token_id is None:
        return
    if standing.revoked_at is not None:  # whatever the clock says now: a revoked token never works again
        raise StateError("auth/revoked", "The token was revoked; use another one.")
    if standing.expires_at is not None and standing.expires_at <= now:
        raise StateError(
            "auth/expired", "The token has expired; mint or rotate to a new one.", expired_at=standing.expires_at
        )


def refuse_if_suspended(who: Principal, standing: Standing) -> None:
    """A tenant that is not active is only read."""
    if standing.status == "active" or who.tenant_id == SYSTEM:
        return
    code = "tenant/archived" if standing.status in ("archived", "deleting") else "tenant/suspended"
    raise StateError(
        code, f"The tenant is {standing.status}: it can be read, not changed. Ask an administrator to resume it."
    )


def is_held(told: Any) -> bool:
    """Whether a command failed because somebody held a row that its batch needed: without that it can be done."""
    return isinstance(told, StateError) and isinstance(told.__cause__, Locked)


def away(error: StoreError) -> StateError:
    """The answer for a store that could not do it, and why."""
    answer = told_of_store(error)
    answer.__cause__ = error
    return answer


def told_of_store(error: StoreError) -> StateError:
    """What a caller is told."""
    if isinstance(error, Full):
        return StateError("store/full", "The store has no room; nothing was changed. Free space and try again.")
    if isinstance(error, TooSlow):
        return StateError(
            "request/too-slow",
            "The store was still looking when the time for one statement was over. Ask for less, or more exactly.",
        )
    if isinstance(error, OutcomeUnknown):
        return StateError(
            "store/outcome-unknown",
            "The connection to the store was lost during the commit: the change is whole or absent. Repeat the request "
            "with the same ids or Idempotency-Key to find out.",
            retry_after=1,
        )
    if isinstance(error, Corrupt):
        return StateError(
            "store/corrupt",
            "The store is damaged; nothing was changed. An operator must restore a backup.",
            retry_after=30,
        )
    if isinstance(error, SchemaMismatch):
        return StateError("store/unavailable", "The store's schema does not fit this server.", retry_after=30)
    if isinstance(error, Unavailable | Conflict):
        return StateError(
            "store/unavailable", "The store is away or busy; nothing was changed. Try again.", retry_after=1
        )
    return StateError("server/error", "The store refused a statement; nothing was changed.")
