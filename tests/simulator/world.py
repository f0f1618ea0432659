"""A world in one seed: processes of the service over one database, clients, a clock, and everything that goes wrong.

One step is one thing that happens: a statement is done (or waits, or is the one that loses), a client asks, an answer
arrives or is lost, a process dies or comes back, the clock moves. What happens next is drawn from the seed, and nothing
else: a process runs until it waits for the database, then it is again anybody's turn.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec

from backends.errors import StoreError
from service import capabilities
from service.alarms import sweeps as alarms
from service.errors import StateError
from service.history.model import Appended
from service.kernel.command import Replayed, Request
from service.kernel.principal import SYSTEM, Principal
from service.kernel.run import Kernel
from service.kernel.sweeps import Sweeper
from service.kernel.wake import LOOK_SECONDS, Wakes
from service.tenants.model import UpdateTenant
from service.tokens.model import MintToken, RevokeToken
from service.work.model import ClaimWork
from service.work.sweeps import SWEEPS
from service.work.waiting import alike, waits_for
from tests.simulator import flows, plans
from tests.simulator.asks import OPS, Ask, Asker, Lore, shown
from tests.simulator.backend import SimulatedBackend
from tests.simulator.database import Database
from tests.simulator.ledger import Ledger, Violation, must
from tests.simulator.loop import Loop, running
from tests.simulator.occurrences import Occurrences

BEGIN = 1_800_000_000_000
TENANTS = ("acme", "globex")
TOKENS = 3
SENDINGS = 6
WAITS = 0.3
"""How often a claim waits for something to come."""
BEHIND = 0.3
"""How often a claim is decided behind the others of its batch."""
LEAP = 0.3
"""How often the clock moves as far as schedules count, in a world of workflows."""
AWAY = frozenset({"store/unavailable", "store/outcome-unknown", "store/full", "server/busy"})
"""Refusals after which the same request may be sent again."""
LATEST = frozenset({"auth/revoked", "tenant/suspended"})
ADMIN = Principal(SYSTEM, "admin")


class Shape(msgspec.Struct, frozen=True):
    """What kind of world a seed makes: how many of each, and how often what goes wrong (per step)."""

    processes: int
    lanes: int
    batch_max: int
    clients: int
    crash: float
    cut: float
    full: float
    restart: float
    lost: float
    jump: float
    skew_ms: int
    limits: dict[str, dict[str, int]]
    weights: dict[str, float]
    engine: bool = False
    """Whether its clients drive workflows."""

    @staticmethod
    def drawn(chance: random.Random) -> "Shape":
        """A shape by chance: worlds differ much, so that each has something that happens often in it."""

        def often(most: float) -> float:
            return chance.choice((0.0, most / 8, most))

        tight = {"running_executions": 4, "ready_work_items": 5, "tokens": TOKENS + 2}
        limits = {tenant: chance.choice(({}, {}, tight)) for tenant in TENANTS}
        return Shape(
            processes=chance.randint(1, 4), lanes=chance.randint(1, 3), batch_max=chance.choice((1, 3, 64)),
            clients=chance.randint(4, 16), crash=often(0.004), cut=often(0.02), full=often(0.02),
            restart=often(0.001), lost=often(0.05), jump=often(0.004), skew_ms=chance.choice((0, 0, 40)),
            limits=limits, weights={op: weight * chance.choice((0.3, 1, 1, 3)) for op, (_, weight) in OPS.items()},
        )  # fmt: skip


class Process:
    """A process of the service: its own loop, kernel and memory, over the common database."""

    def __init__(self, world: "World", name: str) -> None:
        self.name, self.loop, shape = name, Loop(), world.shape  # type: ignore[abstract]  # as much as is asked for
        skew = world.random.randint(-shape.skew_ms, shape.skew_ms)

        def clock() -> int:
            world.ledger.now_max = max(world.ledger.now_max, world.now + skew)
            return world.now + skew

        self.backend = SimulatedBackend(world.database, name, shape.lanes, clock, self.loop)
        self.kernel = Kernel(self.backend, capabilities.schema(), capabilities.rules(), batch_max=shape.batch_max)
        self.kernel.wakes = self.wakes = Wakes()
        self.backend.subscribe(self.wakes.heard)
        services = SimpleNamespace(backend=self.backend, kernel=self.kernel, lines={})
        self.sweeper = Sweeper(self.backend, services, [*SWEEPS[:2], *alarms.SWEEPS], 0)
        self.sweeper.lease.holder = name
        self.sweeping: asyncio.Task[None] | None = None
        self.counts = world.counts

    async def waited(self, request: Request) -> Any:
        """What comes of a claim that waits until it is woken, or served by who would wake it, or time passes."""
        made, who = request.command, request.who
        topic, accepts = f"work/{who.tenant_id}", waits_for(made, who)
        place = self.wakes.park(topic, accepts, alike(made, who), request, made.max_items).__enter__()
        await place.rest(LOOK_SECONDS)
        self.counts["claims handed over"] += place.answer is not None
        found = place.answer or await self.kernel.submit(request)
        place.__exit__()  # no `with`: whoever is in a process that dies leaves nothing tidy
        return found

    def sweep(self) -> None:
        """A round of sweeps, unless the last one still goes on."""
        if self.sweeping is None or self.sweeping.done():
            self.sweeping = self.loop.create_task(quietly(self.sweeper))


async def quietly(sweeper: Sweeper) -> None:
    """One round; a store that is away is for the next one."""
    try:
        await sweeper.round()
    except StoreError:
        return


class Client:
    """Somebody who asks one thing at a time."""

    def __init__(self, name: str, lore: Lore) -> None:
        self.name, self.lore = name, lore
        self.ask: Ask | None = None
        self.process: Process | None = None
        self.answered = False
        self.outcome: Any = None


class World:
    """Everything, and `step`."""

    def __init__(self, seed: int, shape: Mapping[str, Any]) -> None:
        self.random = random.Random(seed)
        self.shape = msgspec.structs.replace(Shape.drawn(self.random), **shape)
        self.now = BEGIN
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self.database = Database(self.random)
        self.ledger = Ledger(self.database, self.shape.limits)
        ops = {**flows.OPS, **plans.OPS} if self.shape.engine else OPS
        self.asker = Asker(self.random, ops, lambda: self.now)
        self.occurrences = Occurrences(self.database, self.shape.limits)
        self.ledger.also.append(self.occurrences.committed)
        self.say: Any = None
        self.unexpected: list[str] = []
        self._live: dict[str, list[str]] = {tenant: [f"k-{tenant}-{n}" for n in range(TOKENS)] for tenant in TENANTS}
        self._revoked: set[str] = set()
        self._suspended: dict[str, bool] = {}
        self._deliveries: dict[tuple[str, str, int], int] = {}
        self._stock()
        self.processes = [Process(self, f"p{number}") for number in range(self.shape.processes)]
        self._born = self.shape.processes
        lores = {tenant: Lore(tenant) for tenant in TENANTS}
        self.clients = [
            Client(f"c{number}", lores[TENANTS[number % len(TENANTS)]]) for number in range(self.shape.clients)
        ]
        self.idle = list(self.clients)
        self.mail: list[Client] = []
        self.lost: list[Client] = []
        self.database.rates.cut, self.database.rates.full = self.shape.cut, self.shape.full
        self._ops, self._weights = list(ops), [self.shape.weights.get(op, ops[op][1]) for op in ops]
        self._calm = False

    def _stock(self) -> None:
        """The rows with which a world begins."""
        tables = self.database.tables
        common = {"status": "active", "version": 1, "created_at": BEGIN, "updated_at": BEGIN}
        tables["tenants"].put(
            common | {"tenant_id": name, "name": name, "limits": limits_of(self.shape.limits.get(name, {}))}
            for name in ("", *TENANTS)
        )
        for tenant, names in self._live.items():
            made = {"role": "owner", "queues": "[]", "networks": "[]", "verifier": "v", "reject_tag": b"t"}
            tables["tokens"].put(
                made | {"tenant_id": tenant, "id": name, "name": name, "created_at": BEGIN} for name in names
            )
            self.ledger.tokens[tenant] = len(names)

    # ── steps ──

    def step(self) -> None:
        """One thing happens."""
        self.steps += 1
        if self.random.random() < 0.02:
            self._time()
        elif not self._calm and self.random.random() < 0.02:
            self._trouble()
        else:
            self._work()
        if self.unexpected:
            raise Violation(self.unexpected[0])

    def _work(self) -> None:
        """A client asks, an answer comes, or the database does something."""
        value = self.random.random()
        if value < 0.15 and self.idle and not self._calm:
            self._ask(self.idle.pop(self.random.randrange(len(self.idle))))
        elif value < 0.2 and self.lost:
            self._send(self.lost.pop(self.random.randrange(len(self.lost))))
        elif value < 0.4 and self.mail:
            self._deliver(self.mail.pop(self.random.randrange(len(self.mail))))
        elif self.database.running:
            self.database.step()
            self._drain()
        elif self.mail:
            self._deliver(self.mail.pop(self.random.randrange(len(self.mail))))
        elif self.lost:
            self._send(self.lost.pop(self.random.randrange(len(self.lost))))
        elif self.idle and not self._calm:
            self._ask(self.idle.pop(self.random.randrange(len(self.idle))))
        else:
            must(not self.database.waiting, "everybody waits:", self.database.waiting)
            for process in self.processes:
                process.loop.pass_time()
                process.loop.drain()

    def _time(self) -> None:
        """The clock moves a little, and somebody sweeps."""
        self.now += self.random.choice((0, 1, 1, 5, 30))
        if self.shape.engine and self.random.random() < LEAP:
            self.now += self.random.choice((300, 1_000, 2_600))
        process = self.random.choice(self.processes)
        process.loop.pass_time()
        with running(process.loop):
            process.sweep()
        process.loop.drain()
        if self.idle and not self._calm and self.random.random() < 0.3:
            client = self.idle.pop(self.random.randrange(len(self.idle)))
            if client.lore.leases:  # its holder wants to keep what the sweep may be about to take
                client.ask = self.asker.new("renew", self._token(client.lore.tenant), client.lore)
                self._send(client)
            else:
                self.idle.append(client)

    def _trouble(self) -> None:
        """Perhaps something goes wrong; rates are per step, and this is one step of fifty."""
        shape, value = self.shape, self.random.random() / 50
        if value < shape.crash:
            self._crash(self.random.choice(self.processes))
        elif value < shape.crash + shape.restart:
            self.counts["database restarts"] += 1
            self.database.restart()
            self._drain()
        elif value < shape.crash + shape.restart + shape.jump:
            jump = self.random.choice((-200, 100, 1_000, 5_000))
            self.counts["clock jumps"] += 1
            self.now += jump
            self._trace(f"the clock jumps by {jump} ms")
        elif value < shape.crash + shape.restart + shape.jump + (0.005 if self._suspended else 0.001):
            self._manage()

    def _crash(self, process: Process) -> None:
        """A process dies, and another takes its place; its memory, its answers and its connections are gone."""
        self._trace(f"{process.name} dies")
        self.counts["crashes"] += 1
        self.database.abandon(process.name)
        self._born += 1
        self.processes[self.processes.index(process)] = Process(self, f"p{self._born}")
        for client in self.clients:
            if client.process is process and client.ask is not None and not client.answered:
                self._again(client, client.ask.repeatable)

    def _drain(self) -> None:
        for process in self.processes:
            process.loop.drain()

    # ── clients ──

    def _ask(self, client: Client) -> None:
        """A new request; at times others of the tenant want the same at the same moment."""
        op = self.random.choices(self._ops, self._weights)[0]
        op = client.lore.lacks(op) or op
        seed = self.random.random()
        alike = [other for other in self.idle if other.lore is client.lore] if self.random.random() < 0.1 else []
        for other in [client, *alike[:3]]:
            self.asker.random = random.Random(seed)
            other.ask = self.asker.new(op, self._token(client.lore.tenant), client.lore)
        for other in alike[:3]:
            self.idle.remove(other)
            self._send(other)
        self._send(client)

    def _token(self, tenant: str) -> Principal:
        """A token that works, or now and then one that was revoked."""
        ended = sorted(name for name in self._revoked if tenant in name)
        names = ended if ended and self.random.random() < 0.03 else self._live[tenant] or ended
        return Principal(tenant, "owner", self.random.choice(names), tenant)

    def _send(self, client: Client) -> None:
        ask = client.ask
        assert ask is not None
        process = self.random.choice(self.processes)
        ask.sent += 1
        ask.expect = "auth/revoked" if ask.who.token_id in self._revoked else None
        if ask.expect is None and self._suspended.get(ask.tenant):
            ask.expect = "tenant/suspended"
        client.process, client.answered = process, False
        behind = isinstance(ask.command, ClaimWork) and self.random.random() < BEHIND
        request = Request(ask.who, ask.command, ask.key, f"f{ask.number}" if ask.key else "", behind=behind)
        self._trace(client.name, "asks", process.name, str(ask) if self.say else "")
        self.counts["requests"] += 1
        waits = isinstance(ask.command, ClaimWork) and self.random.random() < WAITS
        with running(process.loop):
            if waits:
                self.counts["claims that wait"] += 1
                future: asyncio.Future[Any] = process.loop.create_task(process.waited(request))
            else:
                future = process.kernel.submit(request)
        future.add_done_callback(lambda done: self._answered(client, process, done))
        process.loop.drain()

    def _answered(self, client: Client, process: Process, done: asyncio.Future[Any]) -> None:
        if client.process is process:
            client.answered, client.outcome = True, done.exception() or done.result()
            self.mail.append(client)

    def _deliver(self, client: Client) -> None:
        """An answer arrives, or does not."""
        ask, outcome = client.ask, client.outcome
        assert ask is not None
        lost = not self._calm and self.random.random() < self.shape.lost
        away = isinstance(outcome, StateError) and outcome.code in AWAY
        self._trace(client.name, "never hears" if lost else "is told", f"#{ask.number}:", outcome)
        if not lost:
            self._judge(client, ask, outcome)
        unsure = lost or away
        more = unsure or (self.random.random() < 0.05 and not isinstance(outcome, StateError))
        self._again(client, more and ask.repeatable and ask.sent < SENDINGS)

    def _again(self, client: Client, more: bool) -> None:
        """Send a request once more, or be done with it."""
        client.process = None
        if not more:
            client.ask = None
        (self.lost if more else self.idle).append(client)

    def _judge(self, client: Client, ask: Ask, outcome: Any) -> None:
        """Hold an answer against the rows, and against the answers before it."""
        if isinstance(outcome, StateError):
            self._judge_refusal(client, ask, outcome)
            return
        known = ask.expect == "tenant/suspended" and isinstance(outcome, Replayed)
        must(ask.expect is None or known, ask, "was answered, not refused with", ask.expect, ":", outcome)
        self.counts[ask.op] += 1
        self.counts["acknowledged"] += 1
        reply = outcome
        if isinstance(outcome, Replayed):
            self.counts["replayed"] += 1
            reply = msgspec.json.decode(outcome.body, type=ask.reply)
        said = outcome.body if isinstance(outcome, Replayed) else msgspec.json.encode(outcome)
        if ask.told is not None and (ask.key is not None or ask.op == "complete"):
            must(ask.told == said, ask, "was answered", ask.told, ", then", said)
        ask.told = None if getattr(reply, "nothing_happened", False) else said
        try:
            ask.check(self.ledger, reply)
        except KeyError as missing:
            raise Violation(f"{ask} was acknowledged, {missing} is nowhere: {reply}") from None
        self._learn(client.lore, ask, reply)

    def _judge_refusal(self, client: Client, ask: Ask, refusal: StateError) -> None:
        """A refusal leaves nothing behind; what was acknowledged is not refused later."""
        self.counts[refusal.code] += 1
        must(refusal.code != "server/error", ask, "met", refusal.code, ":", refusal.detail)
        must(ask.expect in (None, refusal.code) or refusal.code in AWAY | LATEST, ask, ":", refusal.code)
        if ask.told is not None and (ask.key is not None or ask.op == "complete"):
            must(refusal.code in AWAY | LATEST, ask, "was acknowledged, then refused:", refusal.code)
        if ask.sent == 1 and refusal.code != "store/outcome-unknown":
            must(ask.name not in self.ledger.seen, ask, "was refused,", refusal.code, "and left something")
            if refusal.code not in AWAY:
                self.ledger.refused.add(ask.name)
        if refusal.code == "execution/terminal" and self.random.random() < 0.8:
            run = getattr(ask.command, "execution_id", None)
            client.lore.runs[:] = [one for one in client.lore.runs if one != run]
        if refusal.code.startswith("lease/") and self.random.random() < 0.7:
            item = getattr(ask.command, "id", None) or ask.command.lease.work_item_id
            client.lore.leases.pop(item, None)

    def _learn(self, lore: Lore, ask: Ask, reply: Any) -> None:
        """Take from an answer what later requests may name."""
        run: Any = getattr(reply, "execution_id", None)
        if ask.op == "start":
            lore.hear(lore.runs, run)
        if isinstance(run, str):
            at = reply.last_sequence if isinstance(reply, Appended) else getattr(reply, "sequence", None)
            if at is not None:
                lore.sequences[run] = at
        if ask.op == "enqueue":
            lore.hear(lore.items, reply.id)
        if ask.op == "claim":
            self._delivered(lore, ask, reply)
        if getattr(reply, "outcome", None) == "dead_lettered":
            lore.hear(lore.dead, reply.id)
        if getattr(reply, "outcome", None) and self.random.random() < 0.8:
            lore.leases.pop(reply.id, None)

    def _delivered(self, lore: Lore, ask: Ask, reply: Any) -> None:
        """One holder an epoch."""
        for item in reply.items:
            first = self._deliveries.setdefault((ask.tenant, item.id, item.epoch), ask.number)
            must(first == ask.number, item.id, "was delivered at epoch", item.epoch, "to #", first, "and to", ask)
            lore.lease(item.id, item.epoch)
            lore.hear(lore.items, item.id)

    # ── tokens and tenants ──

    def _manage(self) -> None:
        """An administrator does something to a tenant or a token, and waits for the answer."""
        tenant, value = self.random.choice(TENANTS), self.random.random()
        tenant = next(iter(self._suspended), tenant)
        if tenant in self._suspended:
            self._suspended[tenant] = False
            for ask in [client.ask for client in self.clients if client.ask is not None]:
                if ask.tenant == tenant and ask.expect == "tenant/suspended":
                    ask.expect = None  # it may be that it comes after this
            self._order(UpdateTenant(status="active", id=tenant), lambda: self._suspended.pop(tenant))
        elif value < 0.2:
            told = lambda: self._suspended.setdefault(tenant, True)  # noqa: E731  unless it is being resumed again
            self._order(UpdateTenant(status="suspended", id=tenant), told)
        elif value < 0.6 and len(self._live[tenant]) > 1:
            token = self.random.choice(self._live[tenant])
            self._order(RevokeToken(tenant, token), lambda: self._revoke(tenant, token))
        else:
            token = f"k-{tenant}-{self.asker.number}-{self.steps}"
            mint = MintToken(tenant, token, token, "owner", (), "v", b"t", None)
            self._order(mint, lambda: self._live[tenant].append(token), Principal(tenant, "owner"))

    def _revoke(self, tenant: str, token: str) -> None:
        if token in self._live[tenant]:
            self._live[tenant].remove(token)
        self._revoked.add(token)

    def _order(self, command: Any, done: Any, who: Principal = ADMIN) -> None:
        """Have a command run, and hear of it in time."""
        process = self.random.choice(self.processes)
        self._trace("somebody orders of", process.name, command)
        with running(process.loop):
            future = process.kernel.submit(Request(who, command))

        def told(future: asyncio.Future[Any]) -> None:
            refused = future.exception() or future.result()
            if not isinstance(refused, StateError):
                self.counts[type(command).__name__] += 1
                self._trace("it is done:", command)
                done()

        future.add_done_callback(told)
        process.loop.drain()

    # ── the end ──

    def calm_down(self, most: int = 20_000) -> None:
        """Nothing goes wrong any more and nobody asks anything new: every request in doubt is answered, every
        transaction ends, and all rows are right."""
        self._calm = True
        self.database.rates.cut = self.database.rates.full = 0.0
        for _ in range(most):
            if len(self.idle) == len(self.clients) and not (self.database.running or self.database.waiting):
                break
            self._work()
            if self.unexpected:
                raise Violation(self.unexpected[0])
        else:
            raise Violation("requests are still not answered long after the last fault")
        self.ledger.deep()

    def _trace(self, *said: Any) -> None:
        if self.say is not None:
            self.say(" ".join(one if isinstance(one, str) else shown(one) for one in said))


def limits_of(limits: dict[str, int]) -> str:
    """Limits as a tenant's row has them."""
    return msgspec.json.encode(limits).decode()
