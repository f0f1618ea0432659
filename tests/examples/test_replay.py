"""The engine example's replay: the same code over the same log asks for the same things, wherever it is cut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Events = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's own modules, as its script sees them."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


def log(*events: tuple[str, Any]) -> Events:
    """Events of these kinds and bodies, a second apart."""
    return [{"sequence": at, "kind": kind, "at": at * 1_000, "body": body} for at, (kind, body) in enumerate(events, 1)]


def started(input: Any = None) -> tuple[str, Any]:
    return "execution.started", {"input": input}


def step(kind: str, seq: int, name: str = "", **said: Any) -> tuple[str, Any]:
    return kind, {"seq": seq, "name": name} | said


def done(seq: int, name: str, result: Any) -> Iterator[tuple[str, Any]]:
    """An activity, asked for and done."""
    yield step("activity.scheduled", seq, name)
    yield step("activity.completed", seq, name, result=result)


def run(flow: str) -> Any:
    """A run of one of the example's workflows, its log not yet read."""
    from engine.flows import FLOWS
    from engine.replay import Run

    return Run(FLOWS[flow], "q")


def said(commands: Events) -> list[tuple[Any, ...]]:
    """Commands by type, and by what names them."""
    return [(one["type"], one.get("name", one.get("seq", one.get("result")))) for one in commands]


ORDER = log(
    started({"number": 1}),
    step("side_effect.recorded", 0, "receipt", value="r-1"),
    *done(1, "reserve", "reserved"),
    ("attributes.set", {"attributes": {"stage": "reserve"}}),
    *done(2, "charge", "charged"),
    ("attributes.set", {"attributes": {"stage": "charge"}}),
    *done(3, "ship", "shipped"),
)
UNDONE = log(
    started({"number": 1}),
    step("side_effect.recorded", 0, "receipt", value="r-1"),
    *done(1, "reserve", "reserved"),
    ("attributes.set", {"attributes": {"stage": "reserve"}}),
    *done(2, "charge", "charged"),
    ("attributes.set", {"attributes": {"stage": "charge"}}),
    step("activity.scheduled", 3, "ship"),
    ("workflow.cancel_requested", {"reason": "the customer called"}),
    step("activity.cancelled", 3, "ship"),
    *done(4, "refund", "refunded"),
    *done(5, "release", "released"),
)
APPROVED = log(
    started({"whom": "her", "patience_ms": 9}),
    ("signal.received", {"name": "answer", "payload": True}),
    *done(0, "ask", "her"),
    step("timer.scheduled", 1),
    step("timer.cancelled", 1),
)


def test_a_workflow_asks_for_its_first_steps() -> None:
    commands = run("order").read(ORDER[:1])
    assert said(commands) == [("RecordSideEffect", "receipt"), ("ScheduleActivity", "reserve")]
    assert [one["seq"] for one in commands] == [0, 1]
    assert commands[1]["task_queue"] == "q"


def test_what_the_log_has_is_not_asked_for_again() -> None:
    assert said(run("order").read(ORDER[:6])) == []
    assert said(run("order").read(ORDER[:4])) == [("UpsertSearchAttributes", None), ("ScheduleActivity", "charge")]


def test_a_side_effect_is_made_once_and_then_read() -> None:
    found = run("order")
    found.read(ORDER[:2])
    [command] = found.read(ORDER[2:4])[1:]
    assert command["input"]["receipt"] == "r-1"


@pytest.mark.parametrize(("flow", "events"), [("order", ORDER), ("order", UNDONE), ("approval", APPROVED)])
def test_a_run_that_goes_on_at_any_event_ends_as_one_that_reads_all(flow: str, events: Events) -> None:
    whole = run(flow).read(events)
    for cut in range(1, len(events)):
        resumed = run(flow)
        early = resumed.read(events[:cut])
        late = resumed.read(events[cut:])
        assert [*early, *late][-1] == whole[-1], f"cut after {cut}"


def test_a_cancelled_saga_undoes_in_reverse_and_only_what_was_done() -> None:
    assert said(run("order").read(UNDONE[:10])) == []  # the shipment is waited for
    assert said(run("order").read(UNDONE[:11])) == [("ScheduleActivity", "refund")]
    assert said(run("order").read(UNDONE)) == [("CancelWorkflow", None)]


def test_a_signal_and_a_timer_race_in_the_order_of_the_log() -> None:
    asked = [started({"whom": "her", "patience_ms": 9}), *done(0, "ask", "her"), step("timer.scheduled", 1)]
    answer, late = ("signal.received", {"name": "answer", "payload": True}), step("timer.fired", 1)
    assert said(run("approval").read(log(*asked, answer, late))) == [("CompleteWorkflow", "approved")]
    assert said(run("approval").read(log(*asked, late, answer))) == [("CompleteWorkflow", "nobody answered")]


def test_a_signal_that_comes_before_it_is_waited_for_is_heard() -> None:
    commands = run("approval").read(APPROVED[:4])
    assert said(commands) == [("ScheduleTimer", 1), ("CancelTimer", 1), ("CompleteWorkflow", "approved")]


def test_of_steps_that_are_all_waited_for_the_first_failure_is_raised() -> None:
    events = log(
        started(2),
        step("activity.scheduled", 0, "square"),
        step("activity.scheduled", 1, "square"),
        step("activity.failed", 1, "square", error={"type": "Tired", "message": "no more"}),
    )
    [command] = run("squares").read(events)
    assert command == {"type": "FailWorkflow", "error": {"type": "Tired", "message": "no more"}}


def test_a_round_goes_on_in_a_new_run() -> None:
    at = {"round": 0, "last": 9, "rounds_a_run": 1, "every_ms": 5, "total": 0}
    events = log(started(at), *done(0, "measure", 4), step("timer.scheduled", 1), step("timer.fired", 1))
    [command] = run("rounds").read(events)
    assert command == {"type": "ContinueAsNew", "input": at | {"round": 1, "total": 4}}


def test_code_that_asks_for_something_else_than_its_log_says_is_refused() -> None:
    from engine.replay import Nondeterminism

    with pytest.raises(Nondeterminism):
        run("order").read(log(started({"number": 1}), step("activity.scheduled", 1, "another")))


class Service:
    """Answers as it was told to, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, Any]]()

    def post(self, path: str, body: Any) -> Any:
        self.asked.append((path, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, path: str, **query: Any) -> Any:
        return self.post(path, query)


def task(events: Events, complete: bool = True) -> Any:
    """The answer to a claim: one task of one run."""
    said = {"task_id": "t", "epoch": 1, "execution_id": "e", "workflow_type": "squares", "task_queue": "q"}
    first, last = events[0]["sequence"], events[-1]["sequence"]
    brought = {"history": events, "history_after": first - 1, "history_sequence": last, "history_complete": complete}
    return {"items": [said | brought]}


def worker() -> Any:
    from engine.flows import FLOWS
    from engine.worker import Worker

    made = Worker(Service, "w", ["q"], FLOWS, {})  # type: ignore[arg-type]
    made.leases.close()
    return made


EVENTS = log(started(1), *done(0, "square", 0))


def test_a_worker_says_how_far_it_has_the_logs_and_is_sent_only_the_rest() -> None:
    found, status = worker(), {"status": "running"}
    service = Service(task(EVENTS[:1]), status, task(EVENTS[1:]), status)
    assert (found.decide(service, 0), found.decide(service, 0)) == (1, 1)
    claims = [body for path, body in service.asked if path.endswith(":claim")]
    assert [one["since"] for one in claims] == [{}, {"e": 1}]
    assert [one["since_at"] for one in claims] == [{}, {"e": EVENTS[0]["at"]}]
    submitted = [body for path, body in service.asked if path.endswith("/commands")]
    assert [one["history_sequence"] for one in submitted] == [1, 3]
    assert said(submitted[1]["commands"]) == [("CompleteWorkflow", 0)]


def test_a_worker_forgets_a_run_whose_log_ends_before_what_it_remembers() -> None:
    found, status = worker(), {"status": "running"}
    service = Service(task(EVENTS[:2]), status, task(EVENTS[:1]), status)
    assert (found.decide(service, 0), found.decide(service, 0)) == (1, 1)
    submitted = [body for path, body in service.asked if path.endswith("/commands")]
    assert [one["history_sequence"] for one in submitted] == [2, 1]
    assert said(submitted[1]["commands"]) == [("ScheduleActivity", "square")], "it asks for what this log has not"
    assert found.runs["e"].sequence == 1


def test_a_worker_that_lost_a_task_forgets_what_it_had_decided() -> None:
    from workflow.client import Refused

    found = worker()
    found.decide(Service(task(EVENTS[:1]), Refused({"code": "lease/stale"})), 0)
    assert not found.runs


def test_a_history_that_does_not_fit_into_the_task_is_read_on() -> None:
    found = worker()
    service = Service(
        task(EVENTS[:1], complete=False), {"items": EVENTS[1:], "next_after": None}, {"status": "completed"}
    )
    found.decide(service, 0)
    assert service.asked[1] == ("/v1/executions/e/events", {"after": 1, "limit": 1_000})
    assert service.asked[2][1]["history_sequence"] == 3
