"""What a batch loads in one call of the store: whatever need not wait for a lock that is taken in it."""

import asyncio
from typing import Any

import pytest

from service import capabilities
from service.executions.model import FACETS, OF_ITEM, Attributed, Execution, State
from service.kernel.tables import Wanted
from service.kernel.working_set import WorkingSet
from service.runs.model import OF_TASK, Step
from service.work.model import OPEN_ITEMS, WorkItem

RUN, ITEM = ("acme", "run"), ("acme", "item")


class Asked:
    """A transaction that notes what it is asked for in each call, and finds nothing."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def load(self, reads: Any) -> Any:
        self.calls.append([statement for statement, _ in reads])
        return [[] for _ in reads]


def calls(*wanted: Wanted) -> list[list[str]]:
    """The statements of each call that loads what is wanted."""
    tx = Asked()
    asyncio.run(WorkingSet(capabilities.schema(), 0).load(tx, wanted))  # type: ignore[arg-type]
    return tx.calls


@pytest.mark.parametrize(
    ("wanted", "together"),
    [
        ([(WorkItem, ITEM), (OF_ITEM, ITEM)], ["load_executions", "load_work_items"]),
        ([(WorkItem, ITEM), (State, RUN), (Execution, RUN)], ["load_executions", "load_states", "load_work_items"]),
        ([(OF_TASK, ITEM), (WorkItem, ITEM), (OF_ITEM, ITEM)], ["load_executions", "load_runs", "load_work_items"]),
    ],
)
def test_an_execution_and_the_rows_of_it_that_are_locked_as_they_are_read_come_in_one_call(
    wanted: list[Wanted], together: list[str]
) -> None:
    assert calls(*wanted) == [together], "in the order in which every batch locks them"


def test_what_is_only_read_waits_for_the_lock_that_guards_it() -> None:
    assert calls((Attributed, RUN), (Execution, RUN)) == [["load_executions"], ["load_attributed"]]


def test_a_group_waits_for_the_lock_that_guards_it_for_rows_may_still_come_to_it() -> None:
    assert calls((OPEN_ITEMS, RUN), (Execution, RUN)) == [["load_executions"], ["open_items_of_executions"]]


def test_beside_a_group_nothing_is_locked_earlier_than_its_turn() -> None:
    step: Wanted = (Step, ("acme", "run", "activity", 1))
    assert calls((OPEN_ITEMS, RUN), (FACETS, RUN), (WorkItem, ITEM), (Execution, RUN), step) == [
        ["load_executions"],
        ["facets_of_executions", "load_steps", "load_work_items", "open_items_of_executions"],
    ]
