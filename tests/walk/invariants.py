"""What must be true of the rows at every moment, whatever was done."""

import json
from collections import Counter, defaultdict
from typing import Any

Rows = dict[str, list[dict[str, Any]]]
OPEN = ("ready", "delayed", "leased")
ENDED = ("completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded")


class Invariants:
    """Looks at the rows again and again; remembers what may only grow, and what may never change again."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._events: dict[tuple[str, int], dict[str, Any]] = {}

    def check(self, rows: Rows) -> None:
        """Raise an AssertionError that names the row for which something does not hold."""
        executions = {row["id"]: row for row in rows["executions"]}
        self._logs(executions, rows["events"])
        self._executions(executions)
        open_: Counter[str] = Counter()
        for item in rows["work_items"]:
            self._item(item)
            if item["execution_id"] is not None and item["status"] in OPEN:
                assert executions[item["execution_id"]]["status"] not in ENDED, f"open in an ended execution: {item}"
                open_[item["execution_id"]] += 1
        for execution in executions.values():
            assert execution["open_items"] == open_[execution["id"]], (
                f"open items are {open_[execution['id']]}: {execution}"
            )
        self._dedup(rows["work_items"])
        self._tallies(executions, [*rows["tallies"], *rows["tally_changes"]])
        self._snapshots(executions, rows["events"], rows["snapshots"])

    @staticmethod
    def _tallies(executions: dict[str, dict[str, Any]], tallies: list[dict[str, Any]]) -> None:
        told: Counter[tuple[str, str]] = Counter()
        for row in tallies:
            told[row["namespace"], row["status"]] += row["count"]
        there = Counter((row["namespace"], row["status"]) for row in executions.values())
        assert {at: count for at, count in told.items() if count} == there, f"tallies say {told}, there are {there}"

    def _logs(self, executions: dict[str, dict[str, Any]], events: list[dict[str, Any]]) -> None:
        sequences = defaultdict(list)
        for event in events:
            at = (event["execution_id"], event["sequence"])
            assert self._events.setdefault(at, event) == event, f"an event was changed: {event}"
            sequences[event["execution_id"]].append(event["sequence"])
        assert len(self._events) == len(events), "an event is gone"
        for name, execution in executions.items():
            assert sorted(sequences[name]) == list(range(1, execution["sequence"] + 1)), f"not dense: {execution}"
        assert set(sequences) == set(executions)

    def _snapshots(
        self, executions: dict[str, dict[str, Any]], events: list[dict[str, Any]], snapshots: list[dict[str, Any]]
    ) -> None:
        kept = Counter(row["execution_id"] for row in snapshots)
        there = {(row["execution_id"], row["sequence"]) for row in snapshots}
        newest = {name: row["snapshot_sequence"] for name, row in executions.items()}
        rest = {row["execution_id"] for row in events if row["body"] and row["sequence"] > newest[row["execution_id"]]}
        for name, row in executions.items():
            assert kept[name] <= row["snapshot_keep"] + 1, (
                f"{kept[name]} snapshots are kept: {row}"
            )  # one asked for below
            assert not newest[name] or (name, newest[name]) in there, f"the newest snapshot is gone: {row}"
            assert not 0 < row["snapshot_bytes"] <= row["unfolded_bytes"], f"a snapshot is due by bytes: {row}"
            assert not 0 < row["snapshot_events"] <= row["sequence"] - newest[name], f"one is due by events: {row}"
            assert (row["unfolded_bytes"] > 0) == (name in rest), f"the bytes since the newest snapshot: {row}"

    def _executions(self, executions: dict[str, dict[str, Any]]) -> None:
        for name, row in executions.items():
            assert row["sequence"] >= self._sequences.get(name, 0), f"a sequence fell: {row}"
            self._sequences[name] = row["sequence"]
            assert (row["completed_at"] is not None) == (row["status"] in ENDED), row
            if row["status"] in ENDED:
                assert self._ended.setdefault(name, row) == row, f"changed after its end: {row}"
        assert set(self._sequences) == set(executions), "an execution is gone"

    def _item(self, row: dict[str, Any]) -> None:
        assert (row["expires_at"] is not None) == (row["status"] == "leased"), f"a lease without an end: {row}"
        assert (row["worker_id"] is not None) or row["status"] != "leased", f"a lease without a holder: {row}"
        assert row["epoch"] >= self._epochs.get(row["id"], 0), f"an epoch fell: {row}"
        self._epochs[row["id"]] = row["epoch"]
        assert 0 <= row["attempt"] <= row["max_attempts"], f"attempts: {row}"
        assert (row["settled_at"] is not None) == (row["status"] not in OPEN), f"settled or not: {row}"
        if row["status"] in ("dead", "discarded"):
            assert json.loads(row["errors"] or "[]"), f"dead without a reason: {row}"

    def _dedup(self, items: list[dict[str, Any]]) -> None:
        keys = Counter(row["dedup_key"] for row in items if row["dedup_key"] is not None and row["status"] in OPEN)
        assert all(count == 1 for count in keys.values()), f"two open items of one dedup key: {keys}"
