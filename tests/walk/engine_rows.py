"""What must be true of the durable engine's rows at every moment: nothing is stranded, nothing is counted wrongly.

`check` takes the rows of one tenant, as plain SQL gives them, and knows nothing of how they came about.
"""

import json
from collections import Counter, defaultdict
from typing import Any

Row = dict[str, Any]
Rows = dict[str, list[Row]]
TABLES = ("executions", "runs", "steps", "alarms", "events", "work_items", "schedules", "schedule_runs")
"""The tables that `check` reads."""
OPEN = ("ready", "delayed", "leased")
ENDED = ("completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded")
SEEN_BY_WORKFLOWS = frozenset({
    "execution.started", "signal.received", "signal.failed", "timer.fired", "activity.completed", "activity.failed",
    "activity.timed_out", "activity.cancelled", "child.completed", "child.failed", "child.cancelled",
    "child.terminated", "child.timed_out", "child.limit_exceeded", "workflow.cancel_requested",
})  # fmt: skip
"""Whatever the workflow must see: one that it has not seen has a task that shows it."""
TIMED = ("activity", "timer", "child")
"""The kinds of steps that take time; their last event says how they ended."""


class Engine:
    """The rows, by what they are asked for."""

    def __init__(self, rows: Rows) -> None:
        self.executions = {row["id"]: row for row in rows["executions"]}
        self.runs = {row["id"]: row for row in rows["runs"]}
        self.steps = rows["steps"]
        self.open_steps = [row for row in self.steps if row["status"] == "open"]
        self.alarms = {(row["owner_id"], row["name"]): row for row in rows["alarms"]}
        self.items = {row["id"]: row for row in rows["work_items"]}
        self.schedules = {row["id"]: row for row in rows["schedules"]}
        self.occurrences = rows["schedule_runs"]
        self.logs: dict[str, list[Row]] = defaultdict(list)
        for event in rows["events"]:
            self.logs[event["execution_id"]].append(event)

    def ended(self, execution: str) -> bool:
        """Whether an execution is over."""
        return self.executions[execution]["status"] in ENDED


def check(rows: Rows) -> None:
    """Raise an AssertionError that names the row for which something does not hold."""
    engine = Engine(rows)
    driven = {name for name, row in engine.executions.items() if row["segment"]}
    assert driven == set(engine.runs), f"runs without executions, or the other way: {driven ^ set(engine.runs)}"
    _tasks(engine)
    _counters(engine)
    _steps(engine)
    _children(engine)
    _chains(engine)
    _schedules(engine)


def _tasks(engine: Engine) -> None:
    """At most one open task, the run's own; and one wherever there is something that the workflow has not seen, but for
    a run that is paused: it has none."""
    open_ = defaultdict(list)
    for item in engine.items.values():
        if item["drives"] == "decision" and item["status"] in OPEN:
            open_[item["execution_id"]].append(item["id"])
    for name, run in engine.runs.items():
        assert open_[name] == ([] if run["task_id"] is None else [run["task_id"]]), f"tasks {open_[name]}: {run}"
        if engine.executions[name]["status"] == "paused":
            assert run["task_id"] is None, f"paused, and a task: {run}"
            continue
        if engine.ended(name) or run["task_id"] is not None:
            continue
        assert run["woken_at"] <= run["seen"], f"woken, and no task: {run}"
        unseen = [event for event in engine.logs[name] if event["sequence"] > run["seen"]]
        lost = [event["kind"] for event in unseen if event["kind"] in SEEN_BY_WORKFLOWS]
        assert not lost, f"nobody will see {lost}: {run}"


def _counters(engine: Engine) -> None:
    """What a run counts is what there is; an ended one has nothing."""
    steps = Counter(row["execution_id"] for row in engine.open_steps)
    alarms = Counter(owner for owner, _ in engine.alarms)
    for name, run in engine.runs.items():
        assert run["open_steps"] == steps[name], f"open steps are {steps[name]}: {run}"
        assert run["alarms"] == alarms[name], f"alarms are {alarms[name]}: {run}"
        if engine.ended(name):
            assert (run["task_id"], run["open_steps"], run["alarms"]) == (None, 0, 0), f"over, and open: {run}"
    known = {*engine.runs, *(f"schedule/{name}" for name in engine.schedules)}
    owners = {owner for owner, _ in engine.alarms} - known
    assert not owners, f"alarms of nobody: {owners}"


def _steps(engine: Engine) -> None:
    """An open step has what will end it; one that has ended has one event that says how."""
    said = Counter(
        (event["execution_id"], event["kind"], json.loads(event["body"])["seq"])
        for log in engine.logs.values()
        for event in log
        if event["kind"].partition(".")[0] in TIMED and event["body"] and "seq" in json.loads(event["body"])
    )
    activities = set()
    for step in engine.steps:
        if step["kind"] not in TIMED:
            continue
        at = (step["execution_id"], step["seq"])
        ends = [kind for run, kind, seq in said if (run, seq) == at and _ends(kind, step["kind"])]
        if step["status"] == "open":
            assert not ends, f"open, and {ends}: {step}"
            assert (step["execution_id"], f"{step['kind']}:{step['seq']}") in engine.alarms or step["kind"] == "child"
            if step["kind"] == "activity":
                activities.add(step["ref"])
                assert engine.items[step["ref"]]["status"] in OPEN, f"its item is not open: {step}"
        elif step["status"] == "closed":
            assert not ends, f"closed, and {ends}: {step}"
        else:
            count = said[step["execution_id"], f"{step['kind']}.{step['status']}", step["seq"]]
            assert len(ends) == count == 1, f"ends {ends}, {count} times: {step}"
    held = {row["id"] for row in engine.items.values() if row["drives"] == "activity" and row["status"] in OPEN}
    assert held == activities, f"activities without open steps: {held ^ activities}"


def _ends(kind: str, of: str) -> bool:
    family, _, word = kind.partition(".")
    return family == of and word not in ("scheduled", "started")


def _children(engine: Engine) -> None:
    """A child that is over has told its parent, if that lives; a step's child is this parent's."""
    open_ = {(row["execution_id"], row["seq"]): row for row in engine.open_steps if row["kind"] == "child"}
    for (parent, seq), step in open_.items():
        child = engine.executions[step["ref"]]
        assert (child["parent_id"], engine.runs[child["id"]]["parent_seq"]) == (parent, seq), f"a stranger: {step}"
        assert child["status"] not in ENDED, f"nobody told the parent: {step} {child}"


def _chains(engine: Engine) -> None:
    """A run that goes on in another is over, and the other knows it."""
    for name, run in engine.runs.items():
        if run["next_id"] is not None:
            following = engine.runs[run["next_id"]]
            assert engine.ended(name), f"goes on in another, and lives: {run}"
            assert (following["previous_id"], following["place"]) == (name, run["place"] + 1), f"{run} {following}"
        if run["previous_id"] is not None:
            assert engine.runs[run["previous_id"]]["next_id"] == name, f"its previous run knows nothing of it: {run}"


def _follows(engine: Engine, row: Row) -> None:
    """An occurrence has come to the last run of its chain; how that ended is how the occurrence did."""
    last = row["execution_id"]
    while last in engine.runs and engine.runs[last]["next_id"] is not None:
        last = engine.runs[last]["next_id"]
    if row["started_at"] is not None and last in engine.executions:
        assert (row["latest_id"] or row["execution_id"]) == last, f"its chain goes on to {last}: {row}"
        status = engine.executions[last]["status"]
        assert row["status"] == (status if status in ENDED else "running"), f"{last} is {status}: {row}"


def _schedules(engine: Engine) -> None:
    """A schedule with a next time has its alarm; what waits is waited for; what runs is not over."""
    waiting: Counter[str] = Counter()
    coming: Counter[str] = Counter()
    for row in engine.occurrences:
        running = row["status"] == "running"
        _follows(engine, row)
        assert not running or not engine.ended(row["latest_id"] or row["execution_id"]), f"its run is over: {row}"
        waiting[row["schedule_id"]] += row["status"] == "buffered"
        coming[row["schedule_id"]] += running and row["followed"]
    for name, row in engine.schedules.items():
        owner = f"schedule/{name}"
        assert ((owner, "schedule") in engine.alarms) == (row["next_at"] is not None), (
            f"an alarm too few or many: {row}"
        )
        if waiting[name]:
            assert coming[name] or (owner, "schedule:follow") in engine.alarms, f"what waits is stranded: {row}"
