"""Workflow code as a generator: its log goes in event by event, its commands come out.

    def flow(run, input):
        parcel = yield run.activity("pack", input)                # one step: its value, or its error is raised here
        labels = yield [run.child("label", one) for one in parcel]  # all of them: the list of their values
        won = yield First(run.signal("stop"), run.timer(60_000))  # whichever ends first: that step
        return "done"

A run that goes on somewhere else, after a crash or in another process, is the same code over the same log. So the code
must ask for the same steps in the same order whenever it sees the same events: time is `run.now`, chance and the
outside world are activities or `run.side_effect`. What is asked for again is found in the log and not sent again.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

Json = dict[str, Any]
Key = tuple[str, int]
FAMILY = {
    "ScheduleActivity": "activity", "ScheduleTimer": "timer", "StartChildWorkflow": "child",
    "RecordSideEffect": "side_effect",
}  # fmt: skip
"""The first word of the events that a command leads to."""
BEGINS, GOOD = ("scheduled", "started"), ("completed", "fired", "recorded")
"""The second word: a step was asked for; a step has ended well. All others say that it has ended badly."""


class Step:
    """What a workflow asked for. `ended` is the sequence of the event that ended it, with a value or an error."""

    def __init__(self, family: str, seq: int) -> None:
        self.family, self.seq, self.ended = family, seq, 0
        self.value: Any = None
        self.error: StepFailed | None = None


class First:
    """Some steps, of which the first to end is waited for. Its value is that step."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps


class StepFailed(Exception):
    """An activity or a child has ended badly: `type` says how."""

    def __init__(self, how: str, said: Json) -> None:
        self.type = str(said.get("type") or how)
        super().__init__(said.get("message") or self.type)


class Cancelled(Exception):
    """Somebody asked the workflow to stop. It may tidy up, and is cancelled when this leaves its code."""


class ContinueAsNew(Exception):
    """Raised by workflow code: this run ends, and the next one begins with this input and an empty log."""

    def __init__(self, input: Any) -> None:
        super().__init__("the workflow goes on in a new run")
        self.input = input


class Nondeterminism(Exception):
    """The code asks for something else than it did when the log was written."""


class Run:
    """One run of workflow code, as far as its log was read: `sequence`. `now` is the time of the event it is at."""

    def __init__(self, flow: "Flow", queue: str) -> None:
        self.flow, self.queue = flow, queue
        self.sequence, self.now = 0, 0
        self._code: Generator[Any, Any, Any] | None = None
        self._waits: Any = None
        self._asked = 0
        self._steps: dict[Key, Step] = {}
        self._signals: dict[Key, Step] = {}
        self._counts: Counter[str] = Counter()
        self._begun: dict[Key, Json] = {}
        self._ended: set[Key] = set()
        self._patches: Counter[str] = Counter()
        self._commands: list[Json] = []

    # ── what workflow code asks for ────────────────────────────────────────────────────────────────────────────────

    def activity(self, name: str, input: Any = None, **options: Any) -> Step:
        """Something that is done in the world, by whichever worker; tried again as `options` say."""
        return self._ask("ScheduleActivity", name=name, task_queue=self.queue, input=input, **options)

    def child(self, workflow_type: str, input: Any = None, **options: Any) -> Step:
        """Another workflow, whose end is waited for."""
        return self._ask("StartChildWorkflow", workflow_type=workflow_type, input=input, **options)

    def timer(self, ms: int) -> Step:
        """A while."""
        return self._ask("ScheduleTimer", duration_ms=ms)

    def cancel(self, step: Step) -> None:
        """Take a timer or an activity back."""
        if (step.family, step.seq) not in self._ended:
            self._commands.append({"type": f"Cancel{step.family.capitalize()}", "seq": step.seq})

    def signal(self, name: str) -> Step:
        """The next signal of that name: the n-th that is asked for is the n-th that comes, or has come."""
        return self._signal("asked", name)

    def side_effect(self, name: str, make: Callable[[], Any]) -> Any:
        """A value that is made once and kept in the log."""
        kept = self._begun.get(("side_effect", self._asked))
        value = json.loads(json.dumps(make())) if kept is None else kept["value"]
        self._ask("RecordSideEffect", name=name, value=value)
        return value

    def attributes(self, **patch: Any) -> None:
        """Search attributes: what lists of executions are filtered by."""
        said = json.dumps(patch, sort_keys=True)
        if self._patches[said]:
            self._patches[said] -= 1
        else:
            self._commands.append({"type": "UpsertSearchAttributes", "patch": patch})

    def _ask(self, type: str, **said: Any) -> Step:
        """A step under the next number; its command goes out unless the log has it."""
        step = Step(FAMILY[type], self._asked)
        self._asked += 1
        self._steps[step.family, step.seq] = step
        kept = self._begun.pop((step.family, step.seq), None)
        if kept is None:
            self._commands.append({"type": type, "seq": step.seq} | said)
        elif any(kept.get(field) != said[field] for field in ("name", "workflow_type") if field in said):
            raise Nondeterminism(f"step {step.seq} was {kept} and is now {said}")
        return step

    def _signal(self, whose: str, name: str) -> Step:
        """The step of the next signal, for whoever counts: those that are asked for, or those that come."""
        count = self._counts[f"{whose} {name}"]
        self._counts[f"{whose} {name}"] += 1
        return self._signals.setdefault((name, count), Step("signal", count))

    # ── what its worker tells it ───────────────────────────────────────────────────────────────────────────────────

    def read(self, events: list[Json]) -> list[Json]:
        """Go on through these events; the commands that follow from them and that the log does not have."""
        for event in events:
            self._note(event)
        self._commands = []
        for event in events:
            self.sequence, self.now = event["sequence"], event["at"]
            self._happen(event["kind"], event.get("body"))
        return self._commands

    def _note(self, event: Json) -> None:
        """What the log has is known before the code asks for it."""
        family, _, what = event["kind"].partition(".")
        if family in FAMILY.values():
            key = (family, event["body"]["seq"])
            if what not in BEGINS:
                self._ended.add(key)
            if key not in self._steps:
                self._begun.setdefault(key, event["body"])
        elif event["kind"] == "attributes.set":
            self._patches[json.dumps(event["body"]["attributes"], sort_keys=True)] += 1

    def _happen(self, kind: str, body: Any) -> None:
        """One event; then the code goes on as far as it can."""
        family, _, what = kind.partition(".")
        if kind == "execution.started":
            self._code = self.flow(self, (body or {}).get("input"))
            self._go(self._code.send, None)
        elif kind == "workflow.cancel_requested" and self._code is not None:
            self._go(self._code.throw, Cancelled((body or {}).get("reason")))
        elif kind == "signal.received":
            self._end(self._signal("come", body["name"]), body.get("payload"))
        elif family in FAMILY.values() and what not in BEGINS and (family, body["seq"]) in self._steps:
            failed = None if what in GOOD else StepFailed(what, body.get("error") or {})
            self._end(self._steps[family, body["seq"]], body.get("result"), failed)
        while self._code is not None and (ready := outcome(self._waits)) is not None:
            self._go(self._code.throw if isinstance(ready[0], StepFailed) else self._code.send, ready[0])

    def _end(self, step: Step, value: Any, error: StepFailed | None = None) -> None:
        """A step has ended, once."""
        if not step.ended:
            step.ended, step.value, step.error = self.sequence, value, error

    def _go(self, resume: Callable[[Any], Any], given: Any) -> None:
        """The code runs to where it waits next, or to its end, which is a command too."""
        try:
            self._waits = resume(given)
            return
        except StopIteration as end:
            last: Json = {"type": "CompleteWorkflow", "result": end.value}
        except ContinueAsNew as on:
            last = {"type": "ContinueAsNew", "input": on.input}
        except Cancelled:
            last = {"type": "CancelWorkflow"}
        except Nondeterminism:
            raise
        except Exception as error:
            kind = error.type if isinstance(error, StepFailed) else type(error).__name__
            last = {"type": "FailWorkflow", "error": {"type": kind, "message": str(error)}}
        self._code = None
        self._commands.append(last)


Flow = Callable[[Run, Any], Generator[Any, Any, Any]]


def outcome(waits: Any) -> tuple[Any] | None:
    """What the code gets for what it waits for, in a tuple; None while it has to wait."""
    if isinstance(waits, First):
        ended = [step for step in waits.steps if step.ended]
        return (min(ended, key=lambda step: step.ended),) if ended else None
    steps = waits if isinstance(waits, list) else [waits]
    failed = [step for step in steps if step.error is not None]
    if failed:
        return (min(failed, key=lambda step: step.ended).error,)
    if not all(step.ended for step in steps):
        return None
    return ([step.value for step in steps] if steps is waits else waits.value,)
