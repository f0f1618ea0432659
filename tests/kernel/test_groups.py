"""A group of rows as the decisions of a batch see it: what was loaded, and what those before them have written."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from service import capabilities
from service.kernel.principal import Standing, internal
from service.kernel.view import Missing, View
from service.kernel.working_set import WorkingSet
from service.schedules.model import OPEN_RUNS, ScheduleRun

WHO = internal("acme")


class Loaded:
    """A transaction in which there is `there`, whatever is asked for."""

    now = 0

    def __init__(self, *there: ScheduleRun) -> None:
        self._rows: list[Any] = [list(vars_of(run)) for run in there]

    async def load(self, reads: Any) -> Any:
        return [self._rows for _ in reads]


def vars_of(run: ScheduleRun) -> list[Any]:
    """The columns of an occurrence."""
    return [getattr(run, name) for name in ScheduleRun.__struct_fields__]


def occurrence(number: int, schedule: str = "nightly") -> ScheduleRun:
    return ScheduleRun("acme", schedule, f"{schedule}-{number}", number, 0, "running", 0, None, 0, 0)


def begun(*there: ScheduleRun) -> WorkingSet:
    """A batch that has loaded the open occurrences of the schedule `nightly`."""
    base = WorkingSet(capabilities.schema(), 0)
    asyncio.run(base.load(Loaded(*there), [(OPEN_RUNS, ("acme", "nightly"))]))  # type: ignore[arg-type]
    return base


def view_of(base: WorkingSet) -> View:
    return View(base, WHO, Standing("active", {}), 0)


def open_runs(base: WorkingSet) -> list[int]:
    return [run.number for run in view_of(base).group(ScheduleRun, OPEN_RUNS, "acme", "nightly")]


def test_what_was_added_changed_and_removed_before_is_seen_whenever_somebody_asks() -> None:
    for asks_before in (False, True):
        base = begun(occurrence(1), occurrence(2), occurrence(3))
        if asks_before:
            assert open_runs(base) == [1, 2, 3]
        one = view_of(base)
        one.group(ScheduleRun, OPEN_RUNS, "acme", "nightly")
        one.put(replace(occurrence(1), ended_at=5))
        one.remove(occurrence(2))
        one.add(occurrence(4))
        one.add(occurrence(1, "hourly"))
        base.keep(one)
        assert open_runs(base) == [3, 4]
        two = view_of(base)
        two.group(ScheduleRun, OPEN_RUNS, "acme", "nightly")
        two.put(occurrence(1))
        two.remove(occurrence(4))
        base.keep(two)
        assert open_runs(base) == [1, 3], "what comes back is there again"


def test_what_the_batch_wrote_to_other_groups_is_not_looked_at() -> None:
    base = begun()
    for n in range(100):
        other = view_of(base)
        other.add(occurrence(1, f"other{n}"))
        base.keep(other)
    assert base.group(OPEN_RUNS, ("acme", "nightly")) == []
    with pytest.raises(Missing):
        base.group(OPEN_RUNS, ("acme", "other1"))
