"""What the walk does: requests drawn at random over a small world, so that they meet, repeat, contradict each other."""

from collections.abc import Callable
from random import Random
from typing import Any

from tests.walk.sides import Ask, Told

QUEUES = ("a", "b", "mail")
CAPABILITIES: tuple[list[str], ...] = ([], [], [], ["gpu"], ["gpu", "eu"])
KINDS = ("seen", "work.completed", "note_1", "x.y-z")  # one of them is ours too: kinds are open
RETRIES = (
    None,
    {"initial_delay_ms": 0, "jitter": False},
    {"backoff": "linear", "initial_delay_ms": 400},
    {"backoff": "fixed", "initial_delay_ms": 900, "non_retryable": ["fatal"]},
)
VALUES: tuple[Any, ...] = (None, 0, -7, 2**53 + 1, 1.5, "x", "12", "", "é😀", [], [1, [2]], {"k": {"l": None}}, True)
ENDED = frozenset({"completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded"})
ERRORS = ({"type": "timeout"}, {"type": "fatal", "message": "no"}, {"type": "lease_expired", "details": {"n": 1}})


class World:
    """What the walk knows of the store, and the requests that it can think of."""

    ticks: tuple[int, ...] = (1, 1, 1, 1, 3, 300, 1_100, 6_000, 40_000)
    """By how much time passes from one request to the next."""
    look_every = 25
    """After how many steps all rows are looked at."""

    def __init__(self, seed: int) -> None:
        self.ops = OPS
        self.random = Random(seed)
        self.executions: list[str] = []
        self.ended: set[str] = set()
        self.sequences: dict[str, int] = {}
        self.items: list[str] = []
        self.leases: dict[str, int] = {}
        self.dead: list[str] = []
        self.past: list[Ask] = []
        self._count = 0

    # ── drawing ──

    def next_ask(self) -> Ask:
        """The next request: a new one, or now and then an earlier one again."""
        if self.past and self.chance(0.07):
            return self.random.choice(self.past[-60:])
        op = self.random.choices(list(self.ops), [weight for _, weight in self.ops.values()])[0]
        ask: Ask = self.ops[op][0](self)
        ask.op = ask.op or op
        if ask.method == "POST" and self.chance(0.08):
            ask.key = f"key-{self.number()}" if self.chance(0.9) else "key-shared"
        self.past.append(ask)
        return ask

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.random.random() < share

    def number(self) -> int:
        """A number not given out before."""
        self._count += 1
        return self._count

    def execution(self) -> str:
        """An execution, mostly a recent one; at times one that is not there."""
        if not self.executions or self.chance(0.02):
            return "nowhere"
        live = [one for one in self.executions if one not in self.ended][-10 if self.chance(0.7) else 0 :]
        return self.random.choice(live if live and self.chance(0.9) else self.executions)

    def item(self) -> str:
        """Any item; at times one that is not there."""
        return self.random.choice(self.items[-30:]) if self.items and self.chance(0.97) else "nothing"

    def lease(self) -> tuple[str, int]:
        """An item and an epoch: mostly those of a lease that is held, at times another's."""
        if not self.leases or self.chance(0.06):
            return self.item(), self.random.randint(1, 3)
        item = self.random.choice(list(self.leases))
        return item, max(1, self.leases[item] + (self.random.choice((-1, 1)) if self.chance(0.08) else 0))

    def expected(self, execution: str) -> int | None:
        """An expected sequence: none, the right one, or a wrong one."""
        known = self.sequences.get(execution, 1)
        return self.random.choice((None, None, known, known, known + 1, max(0, known - 1)))

    def value(self) -> Any:
        """Any JSON."""
        return self.random.choice(VALUES)

    def event(self) -> dict[str, Any]:
        """An event to append."""
        out: dict[str, Any] = {"kind": self.random.choice(KINDS[:1] + KINDS[2:])}
        if self.chance(0.7):
            out["body"] = self.value()
        if self.chance(0.3):
            out |= {"node_id": f"n{self.random.randint(1, 3)}", "causation_id": "c"}
        return out

    def enqueued(self, named: bool = True) -> dict[str, Any]:
        """An item to enqueue."""
        out: dict[str, Any] = {"queue": self.random.choice(QUEUES), "priority": self.random.choice((0, 0, 0, 5, -5))}
        if named or self.chance(0.6):
            out["id"] = f"i{self.number()}" if not self.items or self.chance(0.93) else self.item()
        if self.chance(0.25):
            out["delay_ms"] = self.random.choice((1, 700, 20_000))
        if self.chance(0.15):
            out["dedup_key"] = f"d{self.random.randint(1, 4)}"
        if self.chance(0.5):
            out["payload"] = self.value()
        if self.chance(0.4):
            out["node_id"] = f"n{self.random.randint(1, 3)}"
        retry = self.random.choice(RETRIES)
        extra = {"required_capabilities": self.random.choice(CAPABILITIES), "max_attempts": self.random.randint(1, 3)}
        return out | extra | ({} if retry is None else {"retry": retry})

    def change(self, leased: bool) -> dict[str, Any]:
        """One change of a transition."""
        kinds = [
            "append",
            "append_state",
            "merge_state",
            "replace_state",
            "enqueue",
            "set_attributes",
            "snapshot",
            "cancel_items",
        ]
        kind = self.random.choice(kinds + ["settle"] * 6 * leased + ["set_status"] * self.chance(0.4))
        return {"type": kind} | {
            "append": self.event,
            "append_state": lambda: {"path": self.random.choice(("/list", "/deep/er", "/n")), "value": self.value()},
            "merge_state": lambda: {"patch": {f"f{self.random.randint(1, 4)}": self.value()}},
            "replace_state": lambda: {"state": {"list": [], "n": self.value()}},
            "enqueue": self.enqueued,
            "set_attributes": self.attributes,
            "snapshot": dict,
            "cancel_items": lambda: {"queue": self.random.choice(QUEUES)} if self.chance(0.5) else {},
            "settle": self.settling,
            "set_status": lambda: {"status": self.random.choice(("completed", "paused", "running", "running"))},
        }[kind]()  # type: ignore[no-untyped-call]

    def settling(self) -> dict[str, Any]:
        """How a transition settles its item."""
        outcome = self.random.choice(("completed", "completed", "failed", "released"))
        return {"outcome": outcome} | {
            "completed": {"result": self.value()},
            "failed": {"error": self.random.choice(ERRORS), "retry": self.chance(0.7)},
            "released": {},
        }[outcome]

    def attributes(self) -> dict[str, Any]:
        """A patch of attributes and labels."""
        value = self.random.choice((None, "v", 12, True, "12", -(2**40)))
        return {
            "attributes": {f"a{self.random.randint(1, 3)}": value},
            "labels": {"l": self.random.choice(("x", "y", None))},
        }

    # ── learning ──

    def learn(self, ask: Ask, told: Told) -> None:
        """Take from an answer what later requests may name."""
        body = told.body
        for one in body["items"] if ask.path.startswith("/v1/executions?") and told.status == 200 else ():
            self.see(one)
        if isinstance(body, dict):
            self.see(body)
            if body.get("code") == "execution/terminal" and ask.path.startswith("/v1/executions/"):
                self.ended.add(ask.path.split("/")[3].partition("?")[0])
            for one in body.get("results", body.get("settled", ())):
                self.see(one.get("ok", {}))
                self.learn_items(ask, one.get("ok", {}))
        if told.status >= 300 or not isinstance(body, dict):
            self.unlearn(ask, body)
            return
        if "execution_id" in body and ask.op.startswith("start") and body["execution_id"] not in self.executions:
            self.executions.append(body["execution_id"])
        if isinstance(body.get("sequence"), int) and isinstance(body.get("execution_id"), str):
            self.sequences[body["execution_id"]] = body["sequence"]
        if "last_sequence" in body and "execution_id" in body:
            self.sequences[body["execution_id"]] = body["last_sequence"]
        self.learn_items(ask, body)

    def see(self, shown: dict[str, Any]) -> None:
        """Where an execution stands, if an answer tells."""
        name, status = shown.get("execution_id"), shown.get("execution_status", shown.get("status"))
        if name is not None and status in ENDED and ("outcome" not in shown or "execution_status" in shown):
            self.ended.add(name)

    def learn_items(self, ask: Ask, body: dict[str, Any]) -> None:
        """Items, leases and dead letters of an answer."""
        made = [body.get("work_item_id"), body.get("id") if ask.op == "enqueue" else None]
        made += [change.get("work_item_id") for change in body.get("changes", ()) if change["type"] == "enqueue"]
        made += [body.get("id") if ask.op == "enqueue_batch" else None]
        self.items += [one for one in made if one is not None and one not in self.items]
        if ask.op in ("claim", "claim_and_settle") and "items" in body:
            self.leases |= {one["id"]: one["epoch"] for one in body["items"]}
        settled = [body] if "outcome" in body else []
        settled += [change for change in body.get("changes", ()) if change["type"] == "settle"]
        for one in settled:
            item = str(one.get("work_item_id") or one.get("id"))
            if one["outcome"] == "dead_lettered":
                self.dead.append(item)
            if self.chance(0.8):  # now and then a worker does not know that it is done
                self.leases.pop(item, None)
        for one in body.get("retryable", []) + body.get("exhausted", []):
            if self.chance(0.7):
                self.leases.pop(one["id"], None)
        self.dead += [one["id"] for one in body.get("exhausted", [])]

    def unlearn(self, ask: Ask, body: Any) -> None:
        """A lease that was refused is mostly given up."""
        if isinstance(body, dict) and str(body.get("code", "")).startswith("lease/") and self.chance(0.7):
            parts = ask.path.split("/")
            lease = (ask.body or {}).get("lease") if isinstance(ask.body, dict) else None
            self.leases.pop(lease["work_item_id"] if lease else parts[3], None)


def post(path: str, body: Any = None) -> Ask:
    """A POST; the operation's name is put in later."""
    return Ask("", "POST", path, body)


def start(w: World) -> Ask:
    """A start: named or not, pending or not, with state, labels, a parent."""
    body: dict[str, Any] = {"workflow_id": w.random.choice(("flow", "other"))}
    if w.chance(0.75):
        body["execution_id"] = f"e{w.number()}" if not w.executions or w.chance(0.9) else w.execution()
    if w.chance(0.5):
        body |= {"input": w.value(), "labels": {"l": "x"}, "attributes": {"a1": 3, "a2": "t"}}
    if w.chance(0.3):
        body |= {"state": {"list": [1], "deep": {}}, "namespace": "ns", "queue": "a"}
    if w.chance(0.15):
        body["pending"] = True
    if w.executions and w.chance(0.15):
        body["parent_id"] = w.execution()
    return post("/v1/executions", body)


def start_with_item(w: World) -> Ask:
    """A start whose first item may drive it."""
    first = w.enqueued(named=False) | {"drives": w.random.choice(("nothing", "execution", "execution"))}
    first.pop("dedup_key", None)
    body = {"workflow_id": "flow", "execution_id": f"e{w.number()}", "start": first}
    return post("/v1/executions", body | ({"pending": True} if w.chance(0.2) else {}))


def start_pinned(w: World) -> Ask:
    """A start of a stored version, or of the latest."""
    version = w.random.choice(("v1", "v1", "v2", "v2", "v3", "v3", "latest"))
    return post("/v1/executions", {"workflow_id": "flow", "version": version, "execution_id": f"e{w.number()}"})


def append(w: World) -> Ask:
    """One to three events."""
    run = w.execution()
    body: dict[str, Any] = {"events": [w.event() for _ in range(w.random.randint(1, 3))]}
    expected = w.expected(run)
    return post(f"/v1/executions/{run}/events", body if expected is None else body | {"expected_sequence": expected})


def status(w: World) -> Ask:
    """A move to any status, possible or not."""
    endings = ("completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded")
    body: dict[str, Any] = {"status": w.random.choice(endings if w.chance(0.55) else ("running", "paused"))}
    if w.chance(0.5):
        body |= {"result": w.value(), "reason": "walk"}
    return post(f"/v1/executions/{w.execution()}/status", body)


def state(method: str) -> Callable[[World], Ask]:
    """A PUT or PATCH of the state."""

    def ask(w: World) -> Ask:
        run = w.execution()
        expected = w.expected(run)
        query = "" if expected is None else f"?expected_sequence={expected}"
        body = {f"f{w.random.randint(1, 4)}": w.value(), "list": [w.number()]}
        return Ask("", method, f"/v1/executions/{run}/state{query}", body)

    return ask


def state_append(w: World) -> Ask:
    """A value for an array that may be there, or be something else."""
    body = {"path": w.random.choice(("/list", "/list", "/deep/er", "/f1", "/none/0")), "value": w.value()}
    return post(f"/v1/executions/{w.execution()}/state:append", body)


def transition(w: World) -> Ask:
    """One to four changes, with a lease or without."""
    leased = bool(w.leases) and w.chance(0.6)
    body: dict[str, Any] = {"changes": [w.change(leased) for _ in range(w.random.randint(1, 4))]}
    if leased:
        item, epoch = w.lease()
        body["lease"] = {"work_item_id": item, "epoch": epoch}
        return post("/v1/transitions:batch", [body])
    run = w.execution()
    expected = w.expected(run)
    return post(
        f"/v1/executions/{run}/transitions", body if expected is None else body | {"expected_sequence": expected}
    )


def enqueue(w: World) -> Ask:
    """An item, of an execution or of none."""
    body = w.enqueued(named=False)
    if w.chance(0.6):
        body["execution_id"] = w.execution()
        body["drives"] = w.random.choice(("nothing", "nothing", "execution"))
    return post("/v1/work-items", body)


def enqueue_batch(w: World) -> Ask:
    """Several at once."""
    return post("/v1/work-items:batch", [w.enqueued() for _ in range(w.random.randint(2, 5))])


def claim(w: World) -> Ask:
    """Some queues, named or by pattern, with some capabilities."""
    queues = w.random.choice((["a"], ["b", "mail"], ["*"], ["m*", "a"], list(QUEUES)))
    body = {"worker_id": f"w{w.random.randint(1, 3)}", "queues": queues, "max_items": w.random.randint(1, 6)}
    body |= {"lease_ms": w.random.choice((1_000, 5_000, 30_000)), "capabilities": w.random.choice(CAPABILITIES)}
    if body["max_items"] == 6:
        body["namespace"] = "ns"
    return post("/v1/work-items:claim", body)


def claim_and_settle(w: World) -> Ask:
    """A claim that settles some leases first, one of them twice now and then."""
    ask, settle = claim(w), []
    for item, epoch in [w.lease() for _ in range(w.random.randint(1, 3))]:
        lease = {"id": item, "epoch": epoch}
        changes = [{"type": "settle", "outcome": "completed"}, {"type": "enqueue", "queue": w.random.choice(QUEUES)}]
        said = {
            "complete": lease | {"result": w.value()},
            "fail": lease | {"error": w.random.choice(ERRORS)},
            "release": lease,
            "transition": {"lease": {"work_item_id": item, "epoch": epoch}, "changes": changes},
        }
        how = w.random.choice(list(said))
        settle.append({how: said[how]})
    return post(ask.path, ask.body | {"settle": settle})


def of_lease(verb: str, more: Callable[[World], dict[str, Any]]) -> Callable[[World], Ask]:
    """A request of a holder."""

    def ask(w: World) -> Ask:
        item, epoch = w.lease()
        return post(f"/v1/work-items/{item}/{verb}", {"epoch": epoch} | more(w))

    return ask


def batch_of_leases(path: str) -> Callable[[World], Ask]:
    """A request for several leases at once."""

    def ask(w: World) -> Ask:
        leases = dict(w.lease() for _ in range(w.random.randint(1, 4)))
        return post(path, [{"id": item, "epoch": epoch} for item, epoch in leases.items()])

    return ask


def operator_dead_letter(w: World) -> Ask:
    """Given up by an operator, without a lease."""
    return post(f"/v1/work-items/{w.item()}/dead-letter", {"error": w.random.choice(ERRORS)})


def dead(w: World) -> str:
    """A dead letter, or an item that is none."""
    return w.random.choice(w.dead) if w.dead and w.chance(0.9) else w.item()


def requeue(w: World) -> Ask:
    """Another life."""
    body = w.random.choice(({}, {"payload": "mended"}, {"delay_ms": 700}))
    return post(f"/v1/dead-letters/{dead(w)}/requeue", body)


def snapshot(w: World) -> Ask:
    """A snapshot at the end, before it, or ahead of it."""
    run = w.execution()
    known = w.sequences.get(run, 1)
    at = w.random.choice((known, known, max(1, known - w.random.randint(1, 4)), known + 3, 1))
    return Ask("", "PUT", f"/v1/executions/{run}/snapshots/{at}")


def definition(w: World) -> Ask:
    """One of few versions, at times with another body."""
    path = f"/v1/definitions/flow/v{w.random.randint(1, 6)}?validate=false&snapshot_events={w.random.choice((0, 5))}"
    path += f"&snapshot_bytes={w.random.choice((0, 200))}&snapshot_keep={w.random.choice((1, 2, 3))}"
    return Ask("", "PUT", path, {"same": True} if w.chance(0.9) else {"same": False})


READS = (
    "/v1/executions?limit=1000",
    "/v1/executions?sort=created_asc&status=running",
    "/v1/executions?sort=updated",
    "/v1/executions?filter=attr.a1%20%3E%202",
    "/v1/executions?filter=label.l%20%3D%20'x'%20AND%20status%20%3D%20'running'",
    "/v1/work-items?limit=1000",
    "/v1/work-items?status=leased",
    "/v1/work-items?filter=priority%20%3E%200",
    "/v1/dead-letters",
    "/v1/dead-letters?error_type=timeout",
    "/v1/queues",
    "/v1/definitions",
    "/v1/definitions/flow",
    "/v1/events?limit=1000",
    "/v1/tenants/walk/usage",
)


def read(w: World) -> Ask:
    """A list, or one thing in full."""
    run, item = w.execution(), w.item()
    one = (
        f"/v1/executions/{run}",
        f"/v1/executions/{run}/events",
        f"/v1/executions/{run}/snapshots",
        f"/v1/work-items/{item}",
    )
    return Ask("", "GET", w.random.choice(READS + one))


def system(path: str, body: Any) -> Callable[[World], Ask]:
    """A request of the scheduler's."""
    return lambda _w: Ask("", "POST", path, body, None, True)


def dropped_definition(w: World) -> Ask:
    """A version taken away, if nothing uses it."""
    return Ask("", "DELETE", f"/v1/definitions/flow/v{w.random.randint(4, 6)}")


def attributes(w: World) -> Ask:
    """A patch of attributes and labels."""
    return Ask("", "PATCH", f"/v1/executions/{w.execution()}/attributes", w.attributes())


OPS: dict[str, tuple[Callable[[Any], Ask], float]] = {
    "start": (start, 5),
    "start_with_item": (start_with_item, 4),
    "start_pinned": (start_pinned, 4),
    "append": (append, 6),
    "status": (status, 5),
    "replace_state": (state("PUT"), 4),
    "merge_state": (state("PATCH"), 4),
    "append_state": (state_append, 4),
    "set_attributes": (attributes, 4),
    "transition": (transition, 12),
    "enqueue": (enqueue, 9),
    "enqueue_batch": (enqueue_batch, 5),
    "claim": (claim, 14),
    "claim_and_settle": (claim_and_settle, 6),
    "renew": (of_lease("renew", lambda w: {"progress": w.value()} if w.chance(0.5) else {"lease_ms": 2_000}), 7),
    "renew_batch": (batch_of_leases("/v1/leases:renew"), 5),
    "complete": (of_lease("complete", lambda w: {"result": w.value()}), 6),
    "complete_batch": (batch_of_leases("/v1/work-items:complete"), 3),
    "fail": (of_lease("fail", lambda w: {"error": w.random.choice(ERRORS), "retryable": w.chance(0.7)}), 7),
    "release": (of_lease("release", lambda w: {"delay_ms": w.random.choice((0, 0, 800))}), 4),
    "dead_letter": (of_lease("dead-letter", lambda w: {"error": w.random.choice(ERRORS)}), 3),
    "operator_dead_letter": (operator_dead_letter, 3),
    "requeue": (requeue, 5),
    "discard": (lambda w: Ask("", "DELETE", f"/v1/dead-letters/{dead(w)}"), 3),
    "reclaim": (system("/v1/leases:reclaim", {"limit": 5}), 5),
    "pause": (lambda w: post(f"/v1/queues/{w.random.choice(QUEUES)}/pause", {"note": "walk"}), 2),
    "resume": (lambda w: post(f"/v1/queues/{w.random.choice(QUEUES)}/resume", {}), 4),
    "snapshot": (snapshot, 5),
    "definition": (definition, 4),
    "drop_definition": (dropped_definition, 5),
    "read": (read, 8),
}
"""Operation → how it is asked, and its share."""
