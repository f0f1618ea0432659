"""What happened, told by the logs and by nothing that a worker claims."""

from collections import Counter
from typing import Any, NamedTuple

from workflow.client import Client
from workflow.report import whole_log

from engine.cases import Case
from engine.replay import BEGINS, FAMILY

ENDED = ("completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded")
COLUMNS = ("workflow", "executions", "right", "runs", "events", "activities", "timers", "signals", "children")


class Told(NamedTuple):
    """One case as its logs tell it: whether it came out right, what is wrong with it, its logs."""

    case: Case
    wrong: list[str]
    logs: list[list[Any]]


def told(client: Client, case: Case, id: str) -> Told:
    """A case, its runs, and the runs of its children and theirs."""
    logs = {run: whole_log(client, f"/v1/executions/{run}") for run in runs(client, id)}
    wrong = [f"{run}: {one}" for run, log in logs.items() for one in faults(log)]
    last = client.get(f"/v1/executions/{newest(client, id)}")
    if (last["status"], last["result"]) != (case.status, case.result):
        wrong.append(f"{id}: {last['status']} with {last['result']}, not {case.status} with {case.result}")
    events = (event for log in logs.values() for event in log)
    done = Counter(event["body"]["name"] for event in events if event["kind"] == "activity.completed")
    if done != case.done:
        wrong.append(f"{id}: {dict(done)} were done, not {case.done}")
    return Told(case, wrong, list(logs.values()))


def chain(client: Client, id: str) -> list[str]:
    """The runs of one workflow after another."""
    return [run["execution_id"] for run in client.pages(f"/v1/executions/{id}/chain")]


def newest(client: Client, id: str) -> str:
    """The run that a workflow is at."""
    return chain(client, id)[-1]


def ended(client: Client, id: str) -> bool:
    """Whether a workflow has ended in the last of its runs, which was still the last when it was seen to have ended."""
    run = newest(client, id)
    return client.get(f"/v1/executions/{run}")["status"] in ENDED and newest(client, id) == run


def runs(client: Client, id: str) -> list[str]:
    """Everything that a start led to."""
    found = []
    for run in chain(client, id):
        found.append(run)
        for child in client.pages(f"/v1/executions/{run}/children"):
            found += runs(client, child["execution_id"])
    return found


def faults(log: list[Any]) -> list[str]:
    """Where a log says something twice, or leaves something out."""
    begun: Counter[Any] = Counter()
    ended: Counter[Any] = Counter()
    for event in log:
        family, _, what = event["kind"].partition(".")
        if family in FAMILY.values():
            (begun if what in (*BEGINS, "recorded") else ended)[family, event["body"]["seq"]] += 1
    wrong = [f"{step} was asked for {count} times" for step, count in begun.items() if count != 1]
    wrong += [f"{step} ended {count} times" for step, count in ended.items() if count != 1 or step not in begun]
    if [event["sequence"] for event in log] != list(range(1, len(log) + 1)):
        wrong.append("its sequences have gaps")
    return wrong


def table(found: list[Told]) -> str:
    """One row a workflow."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for flow in dict.fromkeys(one.case.flow for one in found):
        mine = [one for one in found if one.case.flow == flow]
        kinds = Counter(event["kind"] for one in mine for log in one.logs for event in log)
        counts = (
            len(mine), sum(not one.wrong for one in mine), sum(len(one.logs) for one in mine), kinds.total(),
            kinds["activity.completed"], kinds["timer.fired"], kinds["signal.received"], kinds["child.completed"],
        )  # fmt: skip
        rows.append((flow, *map(str, counts)))
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join(aligned(row, widths) for row in rows)


def aligned(row: tuple[str, ...], widths: list[int]) -> str:
    """The name to the left, figures to the right."""
    figures = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join([row[0].ljust(widths[0]), *figures])
