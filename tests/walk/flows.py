"""The walk of the durable engine: workflow workers, activity workers, callers and operators over a few runs.

What a workflow asks for under a counter follows from the counter, as replayed code would have it; now and then it asks
for something else. Only runs with chosen ids go on in others, whose ids follow from theirs: both sides have the same.
"""

from typing import Any

import msgspec

from tests.walk.sides import Ask, Told
from tests.walk.world import OPS as CORE
from tests.walk.world import VALUES, World, post, system

TYPES = ("order", "part", "job")
ACTIVITIES = ("charge", "ship")
SIGNALS = ("go", "stop")
SCHEDULES = ("s1", "s2", "s3")
POLICIES = ("terminate", "request_cancel", "abandon")
OVERLAPS = ("skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all")
LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {"start_to_close_ms": 1_500},
    {"schedule_to_start_ms": 900},
    {"schedule_to_close_ms": 2_500, "max_attempts": 5},
    {"heartbeat_timeout_ms": 600},
    {"non_retryable": ["fatal"], "initial_interval_ms": 200},
)
COMMANDS = {
    "ScheduleActivity": 14, "CancelActivity": 3, "ScheduleTimer": 8, "CancelTimer": 3, "WaitForSignal": 4,
    "StartChildWorkflow": 6, "SignalExternal": 4, "RecordSideEffect": 4, "RecordSnapshot": 4,
    "UpsertSearchAttributes": 4, "SetMemo": 3,
}  # fmt: skip
ENDINGS = {"CompleteWorkflow": 4, "FailWorkflow": 7, "CancelWorkflow": 3, "ContinueAsNew": 5}
HAPPENED = (
    "activity.scheduled", "activity.completed", "activity.failed", "activity.timed_out", "activity.cancelled",
    "timer.scheduled", "timer.fired", "timer.cancelled", "signal.received", "signal.sent", "signal.failed",
    "child.started", "child.completed", "child.failed", "child.cancelled", "child.terminated",
    "side_effect.recorded", "workflow.cancel_requested", "workflow.continued_as_new", "workflow.retry_scheduled",
    "workflow.reset", "execution.completed", "execution.failed", "execution.cancelled", "execution.terminated",
    "execution.timed_out",
)  # fmt: skip
"""What must be in the logs when a long walk is over."""


class Flows(World):
    """What the walk knows of runs, tasks, activities and schedules."""

    look_every = 40
    ticks = (1, 1, 1, 1, 1, 1, 5, 20, 100, 300, 1_000)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.ops = OPS
        self.tasks: dict[str, dict[str, Any]] = {}
        self.attempts: dict[str, int] = {}
        self.known: list[str] = []
        """Items of activities and of tasks, open or not."""

    def run(self, *, named: bool = False) -> str:
        """A run, mostly one that lives; with `named` none whose id the server has made."""
        for _ in range(5):
            if "@" not in (found := self.execution()):
                return found
        return "nowhere" if named else found

    def task(self) -> dict[str, Any]:
        """A task that was claimed, at times with a fence that is not its own."""
        if not self.tasks or self.chance(0.03):
            task = {"task_id": self.piece(), "epoch": 1, "history_sequence": 1, "execution_id": "nowhere"}
            return task | {"cancel_requested_at": None}
        task = self.random.choice(list(self.tasks.values()))
        return task | {"epoch": task["epoch"] + 1} if self.chance(0.05) else task

    def piece(self) -> str:
        """Any item of the engine's."""
        return self.random.choice(self.known[-20:]) if self.known and self.chance(0.97) else "nothing"

    def attempt(self) -> tuple[str, int]:
        """An attempt at an activity, at times with a fence that is not its own."""
        if not self.attempts or self.chance(0.05):
            return self.piece(), self.random.randint(1, 2)
        item = self.random.choice(list(self.attempts))
        return item, self.attempts[item] + (self.chance(0.06))

    def counter(self) -> int:
        """A workflow's counter: of few, so that they meet."""
        return self.random.randint(1, 12)

    # ── learning ──

    def learn(self, ask: Ask, told: Told) -> None:
        """Take from an answer what later requests may name."""
        super().learn(ask, told)
        body, parts = told.body, ask.path.split("/")
        if told.status >= 300:
            self.forget(parts, str(body.get("code", "")))
            return
        if ask.op == "claim_tasks":
            for task in body["items"]:
                self.tasks[task["task_id"]] = task
                self.meet(task["execution_id"], task["task_id"])
        elif ask.op == "claim_activities":
            for item in body["items"]:
                self.attempts[item["id"]] = item["epoch"]
                self.meet(item["execution_id"], item["id"])
        elif ask.op == "submit":
            self.tasks.pop(parts[3], None)
        elif ask.op in ("submit_many", "complete_many"):
            for one in ask.body:
                self.tasks.pop(one["id"], None)
                self.attempts.pop(one["id"], None)
        elif ask.op in ("complete_activity", "fail_activity", "finish_work") and self.chance(0.8):
            self.attempts.pop(parts[3], None)
        elif "execution_id" in body and ask.op in ("signal_with_start", "trigger"):
            self.meet(body["execution_id"])

    def meet(self, execution: str, item: str | None = None) -> None:
        """A run that was heard of, and an item of it."""
        if execution not in self.executions:
            self.executions.append(execution)
        if item is not None and item not in self.known:
            self.known.append(item)

    def forget(self, parts: list[str], code: str) -> None:
        """What was refused for good is mostly given up."""
        if len(parts) > 3 and (code.startswith("lease/") or code == "execution/terminal") and self.chance(0.8):
            self.tasks.pop(parts[3], None)
            self.attempts.pop(parts[3], None)


# ── runs ──


def start_run(w: Flows) -> Ask:
    """A run, perhaps with timeouts and retries."""
    body: dict[str, Any] = {
        "workflow_type": w.random.choice(TYPES), "task_queue": "flows",
        "execution_id": f"r{w.number()}" if w.chance(0.95) else w.run(),
    }  # fmt: skip
    if w.chance(0.3):
        body |= {"input": w.value(), "memo": w.value(), "search_attributes": {"a1": 3}, "labels": {"l": "x"}}
    if w.chance(0.25):
        body |= w.random.choice(({"execution_timeout_ms": 9_000}, {"run_timeout_ms": 4_000}))
    if w.chance(0.5):
        body["workflow_retry"] = {"initial_delay_ms": 100, "jitter": False, "non_retryable": ["fatal"]}
        body["workflow_max_attempts"] = 3
    return post("/v1/executions", body)


def claim_tasks(w: Flows) -> Ask:
    """Tasks of some types, with a memory of some logs."""
    since = {run: 1 for run in w.executions[-3:] if w.chance(0.3)}
    body = {"worker_id": f"w{w.random.randint(1, 3)}", "queues": ["flows"], "types": w.random.sample(TYPES, 2)}
    lease = w.random.choice((1_000, 10_000, 30_000))
    return post("/v1/workflow-tasks:claim", body | {"max_items": 4, "lease_ms": lease, "since": since})


def submit(w: Flows) -> Ask:
    """What a workflow asks for, and at times how it ends; first of all somebody must hold a task."""
    if not w.tasks:
        return msgspec.structs.replace(claim_tasks(w), op="claim_tasks")
    task = w.task()
    run = task["execution_id"]
    names = w.random.choices(list(COMMANDS), list(COMMANDS.values()), k=w.random.randint(0, 5))
    made = [command(w, name, run) for name in names]
    if task["cancel_requested_at"] is not None and w.chance(0.4):
        made.append({"type": "CancelWorkflow"})
    elif w.chance(0.3):
        made.append(ending(w, run))
    seen = task["history_sequence"] + (w.random.choice((-1, 1)) if w.chance(0.08) else 0)
    body = {"epoch": task["epoch"], "history_sequence": max(0, seen), "commands": made}
    parts = tuple(str(one["type"]) for one in made)
    return Ask("", "POST", f"/v1/workflow-tasks/{task['task_id']}/commands", body, parts=parts)


def submit_many(w: Flows) -> Ask:
    """Several tasks at once: some runs end, some note something, some have other fences."""
    if not w.tasks:
        return msgspec.structs.replace(claim_tasks(w), op="claim_tasks")
    said = {}
    for task in (w.task() for _ in range(w.random.randint(1, 3))):
        made = [ending(w, task["execution_id"])] if w.chance(0.5) else [command(w, "SetMemo", task["execution_id"])]
        body = {"epoch": task["epoch"], "history_sequence": task["history_sequence"], "commands": made}
        said[task["task_id"]] = {"id": task["task_id"]} | body
    return post("/v1/workflow-tasks:submit", list(said.values()))


def complete_many(w: Flows) -> Ask:
    """Several attempts at once."""
    if not w.attempts:
        return msgspec.structs.replace(claim_activities(w), op="claim_activities")
    held = dict(w.attempt() for _ in range(w.random.randint(1, 3)))
    return post("/v1/activities:complete", [{"id": item, "epoch": epoch} for item, epoch in held.items()])


def command(w: Flows, name: str, run: str) -> dict[str, Any]:
    """A command; what it says follows from its counter, mostly."""
    seq = w.counter()
    n = seq + w.chance(0.03)
    said: dict[str, Any] = {"type": name}
    if name not in ("WaitForSignal", "RecordSnapshot", "UpsertSearchAttributes", "SetMemo"):
        said["seq"] = seq
    return (
        said
        | {
            "ScheduleActivity": lambda: activity(n),
            "CancelActivity": dict,
            "ScheduleTimer": lambda: {"duration_ms": (0, 50, 400, 3_000)[n % 4]},
            "CancelTimer": dict,
            "WaitForSignal": lambda: {"name": SIGNALS[n % 2], "timer_seq": n},
            "StartChildWorkflow": lambda: child(w, n, run),
            "SignalExternal": lambda: {"execution_id": other(w), "name": "go", "payload": n},
            "RecordSideEffect": lambda: {"name": "dice", "value": VALUES[n % len(VALUES)]},
            "RecordSnapshot": lambda: {"state": {"n": w.value()}},
            "UpsertSearchAttributes": lambda: {"patch": {"a1": w.random.choice((None, 1, "t"))}},
            "SetMemo": lambda: {"memo": w.value()},
        }[name]()
    )  # type: ignore[no-untyped-call]


def other(w: Flows) -> str:
    """Whom a workflow tells: a run whose name the walk has chosen, so that a repeat is the same on both sides."""
    return w.run(named=True)


def activity(n: int) -> dict[str, Any]:
    """What an activity is, as its counter says."""
    said = {"name": ACTIVITIES[n % 2], "task_queue": "pay", "input": n, "max_attempts": 1 + n % 3}
    return said | {"initial_interval_ms": (0, 250)[n % 2]} | LIMITS[n % len(LIMITS)]


def child(w: Flows, n: int, run: str) -> dict[str, Any]:
    """A child, as its counter says; of a run whose id the server has made, under a name of its own."""
    named = {"execution_id": f"c-{run}-{n}"} if "@" in run or n % 3 == 0 else {}
    timeout = {"run_timeout_ms": 2_500} if n % 5 == 0 else {}
    return {"workflow_type": "part", "input": n, "parent_close_policy": POLICIES[n % 3]} | named | timeout


def ending(w: Flows, run: str) -> dict[str, Any]:
    """How a workflow ends or goes on."""
    name = w.random.choices(list(ENDINGS), list(ENDINGS.values()))[0]
    if name == "ContinueAsNew" and "@" in run:
        name = "CompleteWorkflow"
    error = {"type": w.random.choice(("boom", "boom", "fatal"))}
    return {"type": name} | {
        "CompleteWorkflow": {"result": w.value()},
        "FailWorkflow": {"error": error, "retryable": w.chance(0.8)},
        "ContinueAsNew": {"input": w.value()},
    }.get(name, {})


def renew_task(w: Flows) -> Ask:
    """A lease kept."""
    task = w.task()
    return post(f"/v1/workflow-tasks/{task['task_id']}/renew", {"epoch": task["epoch"], "lease_ms": 5_000})


def cancel(w: Flows) -> Ask:
    """A request to stop, at times with a limit."""
    body: dict[str, Any] = {"reason": "walk"} | ({"force_after_ms": 300} if w.chance(0.4) else {})
    return post(f"/v1/executions/{w.run()}/cancel", body)


def continue_run(w: Flows) -> Ask:
    """A run continued from outside."""
    return post(f"/v1/executions/{w.run(named=True)}/continue-as-new", {"input": w.number() % 2})


def reset(w: Flows) -> Ask:
    """A new run from a prefix of a log."""
    run = w.run(named=True) if w.chance(0.7) else w.random.choice([*w.executions, "nowhere"])
    run = "nowhere" if "@" in run else run
    at = w.random.randint(1, max(1, w.sequences.get(run, 4)))
    return post(f"/v1/executions/{run}/reset", {"to_sequence": at, "reason": w.random.choice(("a", "b"))})


# ── signals, timers, children, activities ──


def signal(w: Flows) -> Ask:
    """A signal, at times one that was sent before, or under its id something else."""
    body = {"payload": w.random.randint(1, 2)} | ({"signal_id": f"x{w.random.randint(1, 5)}"} if w.chance(0.5) else {})
    return post(f"/v1/executions/{w.run()}/signals/{w.random.choice(SIGNALS)}", body)


def signal_with_start(w: Flows) -> Ask:
    """A signal to a run that is there, or to a new one."""
    run = f"r{w.number()}" if w.chance(0.4) else w.run(named=True)
    start = {"workflow_type": "order", "task_queue": "flows", "execution_id": run}
    return post("/v1/executions:signal-with-start", {"start": start, "signal": {"name": "go"}})


def outside(what: str) -> Any:
    """Something asked of a run from outside its workflow."""

    def ask(w: Flows) -> Ask:
        run, seq = w.run(), w.counter()
        said = {
            "timers": {"duration_ms": (0, 50, 400, 3_000)[seq % 4]},
            "activities": activity(seq),
            "children": {"child": {"seq": seq} | child(w, seq, run)},
        }[what]
        return post(f"/v1/executions/{run}/{what}", said | ({} if what == "children" else {"seq": seq}))

    return ask


def claim_activities(w: Flows) -> Ask:
    """Activities of some names."""
    names = w.random.choice((["charge"], ["ship"], list(ACTIVITIES)))
    body = {"worker_id": f"a{w.random.randint(1, 3)}", "queues": ["pay"], "activities": names, "max_items": 3}
    return post("/v1/activities:claim", body | {"lease_ms": w.random.choice((1_000, 20_000))})


def of_attempt(verb: str) -> Any:
    """What a worker says of its attempt."""

    def ask(w: Flows) -> Ask:
        if not w.attempts:
            return msgspec.structs.replace(claim_activities(w), op="claim_activities")
        item, epoch = w.attempt()
        error = {"type": w.random.choice(("boom", "fatal"))}
        said = {
            "complete": {"result": w.value()},
            "fail": {"error": error, "retryable": w.chance(0.8)},
            "heartbeat": {"details": w.value()},
        }[verb]
        return post(f"/v1/activities/{item}/{verb}", said | {"epoch": epoch})

    return ask


def finish_work(w: Flows) -> Ask:
    """An activity's attempt, or a task, settled as plain work."""
    task = w.task()
    item, epoch = (task["task_id"], task["epoch"]) if w.chance(0.3) else w.attempt()
    verb = w.random.choice(("complete", "release", "fail", "renew"))
    body = {"epoch": epoch} | ({"error": {"type": "boom"}} if verb == "fail" else {})
    return post(f"/v1/work-items/{item}/{verb}", body)


def bury(w: Flows) -> Ask:
    """An activity, or a task and its run with it, given up by an operator."""
    return post(f"/v1/work-items/{w.piece()}/dead-letter", {"error": {"type": "unwanted"}})


# ── schedules ──


def schedule(w: Flows) -> Ask:
    """One of few schedules."""
    name = w.random.choice(SCHEDULES)
    action = {"workflow_type": "job", "task_queue": "flows", "input": 1}
    every = {"every_ms": (1_000, 3_000, 7_000)[SCHEDULES.index(name)], "jitter_ms": w.random.choice((0, 0, 400))}
    body = {"schedule_id": name, "spec": every, "action": action, "overlap": w.random.choice(OVERLAPS)}
    return post("/v1/schedules", body | {"catch_up_ms": w.random.choice((500, 60_000))})


def of_schedule(verb: str) -> Any:
    """What is asked of a schedule."""

    def ask(w: Flows) -> Ask:
        name = w.random.choice(SCHEDULES)
        said: dict[str, Any] = {"note": "walk"} if verb in ("pause", "resume") else {}
        if verb == "trigger" and w.chance(0.5):
            said = {"overlap": w.random.choice(OVERLAPS)}
        return post(f"/v1/schedules/{name}/{verb}", said)

    return ask


def backfill(w: Flows) -> Ask:
    """A little of the past: the world's time begins at a whole second."""
    at = 1_800_000_000_000 + 1_000 * w.random.randint(0, 20)
    return post(f"/v1/schedules/{w.random.choice(SCHEDULES)}/backfill", {"from": at, "to": at + 6_000})


def change_schedule(w: Flows) -> Ask:
    """Another policy, or another plan."""
    body = w.random.choice(({"overlap": w.random.choice(OVERLAPS)}, {"spec": {"every_ms": 2_000, "offset_ms": 300}}))
    return Ask("", "PATCH", f"/v1/schedules/{w.random.choice(SCHEDULES)}", body)


def drop_schedule(w: Flows) -> Ask:
    """A schedule taken away."""
    return Ask("", "DELETE", f"/v1/schedules/{w.random.choice(SCHEDULES)}")


def read(w: Flows) -> Ask:
    """A list, or one thing in full."""
    run, name, item = w.run(), w.random.choice(SCHEDULES), w.piece()
    one = (
        f"/v1/executions/{run}", f"/v1/executions/{run}/events", f"/v1/executions/{run}/chain",
        f"/v1/executions/{run}/children", f"/v1/activities/{item}", f"/v1/schedules/{name}", "/v1/schedules",
        f"/v1/schedules/{name}/next?n=3", "/v1/executions?limit=1000", "/v1/queues", "/v1/tenants/walk/usage",
    )  # fmt: skip
    return Ask("", "GET", w.random.choice(one))


OPS: Any = {
    "start_run": (start_run, 7),
    "claim_tasks": (claim_tasks, 12),
    "submit": (submit, 28),
    "renew_task": (renew_task, 3),
    "cancel": (cancel, 3),
    "terminate": (lambda w: post(f"/v1/executions/{w.run()}/terminate", {"reason": "walk"}), 2.5),
    "complete_run": (lambda w: post(f"/v1/executions/{w.run()}/complete", {"result": "walk"}), 1.5),
    "fail_run": (lambda w: post(f"/v1/executions/{w.run()}/fail", {"error": {"type": "walk"}}), 2),
    "continue_run": (continue_run, 3),
    "reset": (reset, 4),
    "signal": (signal, 4),
    "signal_with_start": (signal_with_start, 3),
    "timer": (outside("timers"), 4),
    "activity": (outside("activities"), 4),
    "child": (outside("children"), 4),
    "claim_activities": (claim_activities, 6),
    "heartbeat": (of_attempt("heartbeat"), 7),
    "complete_activity": (of_attempt("complete"), 7),
    "fail_activity": (of_attempt("fail"), 8),
    "submit_many": (submit_many, 2),
    "complete_many": (complete_many, 4),
    "finish_work": (finish_work, 5),
    "bury": (bury, 3),
    "schedule": (schedule, 3),
    "pause_schedule": (of_schedule("pause"), 3),
    "resume_schedule": (of_schedule("resume"), 4),
    "trigger": (of_schedule("trigger"), 4),
    "backfill": (backfill, 3),
    "change_schedule": (change_schedule, 2.5),
    "drop_schedule": (drop_schedule, 3),
    "reclaim": (system("/v1/leases:reclaim", {"limit": 5}), 4),
    "append": (CORE["append"][0], 3),
    "status": (CORE["status"][0], 3),
    "set_attributes": (CORE["set_attributes"][0], 4),
    "enqueue": (CORE["enqueue"][0], 2),
    "read": (read, 6),
}
"""Operation → how it is asked, and its share."""
