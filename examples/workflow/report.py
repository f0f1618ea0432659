"""What happened, told by the logs of the executions and by nothing that a worker claims."""

from collections import Counter
from typing import Any, NamedTuple

from workflow.client import Client


class Report(NamedTuple):
    """The figures of a run."""

    executions: int
    completed: int
    transitions: int
    items: int
    retries: int
    lease_expired: int
    dead_letters: int
    verified: int
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether every execution completed and every history replays to its state."""
        return self.completed == self.verified == self.executions

    def table(self) -> str:
        """The figures as a table."""
        rows = [(name.replace("_", " "), getattr(self, name)) for name in self._fields[:-1]]
        rows += [("seconds", f"{self.seconds:.2f}"), ("transitions/s", f"{self.transitions / self.seconds:.0f}")]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value:>8}" for name, value in rows)


def report(client: Client, run: str, executions: list[str], seconds: float) -> Report:
    """Read every log, replay every history."""
    kinds: Counter[str] = Counter()
    items: set[str] = set()
    completed = verified = 0
    for execution in executions:
        path = f"/v1/executions/{execution}"
        completed += client.get(path)["status"] == "completed"
        log = whole_log(client, path)
        kinds.update(event["kind"] for event in log)
        items.update(event["work_item_id"] for event in log if event.get("work_item_id"))
        verified += verify(client, path)
    dead = client.pages("/v1/dead-letters", queue=run)
    for letter in dead:
        last = letter["errors"][-1]
        print(f"dead letter {letter['id']}: {letter['node_id']} after {letter['attempt']} attempts, {last['type']}")
    return Report(
        len(executions), completed, kinds["node.completed"], len(items), kinds["work.retry_scheduled"],
        kinds["work.lease_expired"], len(dead), verified, seconds,
    )  # fmt: skip


def whole_log(client: Client, path: str) -> list[Any]:
    """Every event of an execution."""
    log, after = [], 0
    while after is not None:
        page = client.get(f"{path}/events", after=after, limit=1000)
        log += page["items"]
        after = page["next_after"]
    return log


def verify(client: Client, path: str) -> bool:
    """Whether replay of the log agrees with what is stored; tells of every difference."""
    answer = client.post(f"{path}/snapshots:verify")
    for difference in answer["differences"]:
        print(f"{path}: {difference}")
    return bool(answer["matches"])
