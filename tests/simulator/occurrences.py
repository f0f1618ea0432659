"""What must be true of schedules after every commit: each nominal time starts once, none is lost, policies are kept.

A schedule of these worlds is called after its overlap policy, which never changes. What was reset after its end runs
again beside whatever came later: such an occurrence is `revived`, and meets nobody by its policy.
"""

import re
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import msgspec

from service.executions.model import ENDED
from service.schedules.model import ALARM_LATE_MS, Spec
from service.schedules.times import jitter, occurrences, stamp
from tests.simulator.database import Change, Database
from tests.simulator.ledger import must
from tests.simulator.rows import Key

TRIGGERED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""How the name of an occurrence ends that was not planned."""
NOT_OVER = ("running", "buffered")
BUFFERED = {"skip": 0, "buffer_one": 1, "buffer_all": 100, "cancel_other": 1, "terminate_other": 0, "allow_all": 0}
"""How many occurrences wait at most, by policy."""
Row = dict[str, Any]


class Moved(NamedTuple):
    """What a commit made of an occurrence; a row or None, before and after."""

    key: Key
    old: Row | None
    new: Row | None

    @property
    def began(self) -> bool:
        """Whether it was started in this commit, whatever has become of it by its end."""
        return self.new is not None and self.new["started_at"] is not None and not (self.old or {}).get("started_at")

    @property
    def status(self) -> tuple[str | None, str | None]:
        """What it was, and what it is."""
        return (self.old or {}).get("status"), (self.new or {}).get("status")


class Occurrences:
    """Everything that schedules have started and have let go by, as the promises see it."""

    def __init__(self, database: Database, limits: dict[str, dict[str, int]]) -> None:
        self.database, self.limits = database, limits
        self.starts: Counter[tuple[str, str, int]] = Counter()
        """How often each nominal time of a schedule has started something."""
        self.revived: set[Key] = set()
        self.counts: Counter[str] = Counter()
        self.open: dict[Key, dict[Key, Row]] = defaultdict(dict)
        """Tenant and schedule → what runs or waits of it."""

    def committed(self, changes: list[Change]) -> None:
        """Judge one commit."""
        rows = [(table.name, key, *(self._named(table.name, row) for row in pair)) for table, key, *pair in changes]
        schedules = {key: (old, new) for name, key, old, new in rows if name == "schedules"}
        runs = [Moved(key, old, new) for name, key, old, new in rows if name == "schedule_runs"]
        for moved in runs:
            self._moved(moved, gone=moved.key[:2] in schedules and schedules[moved.key[:2]][1] is None)
        for key, (old, new) in schedules.items():
            if old is not None and new is not None:
                self._passed(key, old, new)
        for key in {moved.key[:2] for moved in runs}:
            self._overlap(key, {moved.key: moved for moved in runs if moved.key[:2] == key})

    def _named(self, table: str, row: Any) -> Row | None:
        """A row by its columns."""
        return None if row is None else dict(zip(self.database.tables[table].columns, row, strict=True))

    def _moved(self, moved: Moved, *, gone: bool) -> None:
        """One occurrence; `gone` says that its schedule was taken away."""
        key, old, new = moved
        before, after = moved.status
        open_ = self.open[key[:2]]
        open_.pop(key, None)
        if new is None:
            over = before not in NOT_OVER or self._let_go(key, old or {})
            must(gone or over, "forgotten, though it is not over:", old)
            self.revived.discard(key)
            return
        must(new["ended_at"] is None or after not in NOT_OVER, "over, and not over:", new)
        must(new["ended_at"] is not None or after in NOT_OVER, "not over, and over:", new)
        if after in NOT_OVER:
            open_[key] = new
        self._revive(
            key, revived=after == "running" and before not in (None, "skipped", *NOT_OVER), over=bool(new["ended_at"])
        )
        if not moved.began:
            return
        self.counts[f"began by {key[1]}"] += 1
        must(new["nominal_at"] <= new["started_at"], "before its time:", new)
        must(self._there("executions", (key[0], key[2])), "started, and nothing is there:", new)
        if not TRIGGERED.fullmatch(key[2].rpartition(".")[2]):
            self.starts[key[0], key[1], new["nominal_at"]] += 1
            must(self.starts[key[0], key[1], new["nominal_at"]] == 1, "its time has come twice:", new)

    def _let_go(self, key: Key, old: Row) -> bool:
        """Whether an occurrence that is none of the last ones was over in the commit that took it away."""
        record = self.database.tables["executions"].records.get((key[0], old["latest_id"] or key[2]))
        last = self._named("executions", record and record.now)
        ended = last is None or last["status"] in ENDED
        return bool(old["dropped"]) and (old["status"] == "buffered" or ended)

    def _revive(self, key: Key, *, revived: bool, over: bool) -> None:
        if revived:
            self.revived.add(key)
        elif over:
            self.revived.discard(key)

    def _there(self, table: str, key: Key) -> bool:
        """Whether a row is committed."""
        record = self.database.tables[table].records.get(key)
        return record is not None and record.now is not None

    def _passed(self, key: Key, old: Row, new: Row) -> None:
        """The times that a schedule has let go by: each was started, put off, skipped, or counted: as too late, or as
        left behind while it waited for its jitter."""
        if old["next_at"] is None:
            return
        now, spec = new["updated_at"], msgspec.json.decode(old["spec"], type=Spec)
        goes_on = new["spec"] == old["spec"] and new["next_at"] is not None
        window = max(old["catch_up_ms"], ALARM_LATE_MS)
        once, limited = new["revision"] == old["revision"] + 1, "running_executions" in self.limits.get(key[0], {})
        lost, late = [], 0
        for nominal in occurrences(spec, old["next_at"] - 1):
            due_at = nominal + jitter(key[1], spec, nominal)
            if nominal >= new["next_at"] if goes_on else nominal > now:
                break
            waits = due_at > now
            must(not waits or not once or not goes_on, "passed over before its time:", nominal, now, new)
            execution = f"{key[1]}.{stamp(nominal)}"
            late += now - due_at > window or not goes_on or not once
            if not (self._there("schedule_runs", (*key, execution)) or self._there("executions", (key[0], execution))):
                past = now - due_at > window
                must(past or waits or (limited and not (goes_on and once)), nominal, "was lost at", now, old, new)
                lost.append(nominal)
        counted = new["missed"] - old["missed"]  # what a backfill had started already may be counted as well
        must(len(lost) <= counted <= late, "missed", lost, ", which is not what it counts:", old, new)
        self.counts["missed"] += len(lost)

    def _overlap(self, key: Key, moved: dict[Key, Moved]) -> None:
        """What runs and waits of a schedule after a commit, by its policy; what waits is started in its turn."""
        open_ = self.open[key]
        waiting = [row["number"] for row in open_.values() if row["status"] == "buffered"]
        running = {at for at, row in open_.items() if row["status"] == "running"}
        must(len(waiting) <= BUFFERED[key[1]], len(waiting), "wait:", key)
        self.counts[f"wait for {key[1]}"] += bool(waiting)
        for one in moved.values():
            if not one.began or key[1] == "allow_all":
                continue
            assert one.new is not None
            anew = {
                at for at, other in moved.items() if other.old and other.new and self._went_on(other.old, other.new)
            }
            before = {at for at in running if open_[at]["number"] < one.new["number"]}
            met = before - (self.revived & anew)
            must(not met, "started beside", met, ":", one.new)
            if one.status[0] == "buffered":
                must(all(number > one.new["number"] for number in waiting), "before its turn:", one.new, waiting)

    @staticmethod
    def _went_on(old: Row, new: Row) -> bool:
        """Whether an occurrence has come to another run: it may have been over in between."""
        return bool(old["latest_id"] != new["latest_id"])
