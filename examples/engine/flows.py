"""Five workflows that people really write."""

import contextlib
import uuid
from typing import Any

from engine.replay import Cancelled, ContinueAsNew, First, Flow, Run, Step, StepFailed

BRIEFLY = {"initial_interval_ms": 10, "backoff_coefficient": 1, "max_attempts": 100}
"""How soon an activity is tried again, and how often: a worker that dies costs an attempt as well."""


def order(run: Run, order: Any) -> Any:
    """A saga: reserve, charge, ship; when a later step fails or somebody cancels, what was done is undone in reverse.

    What is under way when the order is cancelled may still be done: it is waited for, then undone like the rest.
    """
    receipt = run.side_effect("receipt", lambda: uuid.uuid4().hex)
    asked = {"order": order, "receipt": receipt}
    steps: list[tuple[str, Step]] = []
    undone = []
    try:
        for name, opposite in (("reserve", "release"), ("charge", "refund"), ("ship", "recall")):
            steps.append((opposite, run.activity(name, asked, heartbeat_timeout_ms=5_000, **BRIEFLY)))
            yield steps[-1][1]
            run.attributes(stage=name)
    except (StepFailed, Cancelled) as error:
        for opposite, step in reversed(steps):
            with contextlib.suppress(StepFailed):  # what was not done need not be undone
                done = yield step
                undone.append((yield run.activity(opposite, done, **BRIEFLY)))
        if isinstance(error, Cancelled):
            raise
        return {"undone": undone, "because": error.type}
    return {"done": [step.value for _, step in steps]}


def squares(run: Run, count: int) -> Any:
    """Fan out and in: as many activities at once, and their sum."""
    found = yield [run.activity("square", number, **BRIEFLY) for number in range(count)]
    return sum(found)


def approval(run: Run, asked: Any) -> Any:
    """A person's word, or none within a while."""
    yield run.activity("ask", asked, **BRIEFLY)
    answer, late = run.signal("answer"), run.timer(asked["patience_ms"])
    if (yield First(answer, late)) is late:
        return "nobody answered"
    run.cancel(late)
    return "approved" if answer.value else "refused"


def rounds(run: Run, at: Any) -> Any:
    """For ever, more or less: measure, wait, and after a few rounds go on in a new run with a short log."""
    for _ in range(at["rounds_a_run"]):
        measured = yield run.activity("measure", at["round"], **BRIEFLY)
        at = at | {"round": at["round"] + 1, "total": at["total"] + measured}
        if at["round"] == at["last"]:
            return at["total"]
        yield run.timer(at["every_ms"])
    raise ContinueAsNew(at)


def tree(run: Run, node: Any) -> Any:
    """Children of children; a leaf is an activity, everybody else adds up."""
    if node["depth"] == 0:
        return (yield run.activity("square", node["width"], **BRIEFLY))
    below = node | {"depth": node["depth"] - 1}
    return sum((yield [run.child("tree", below) for _ in range(node["width"])]))


FLOWS: dict[str, Flow] = {"order": order, "squares": squares, "approval": approval, "rounds": rounds, "tree": tree}
