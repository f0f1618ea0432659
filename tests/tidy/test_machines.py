"""The status tables: the code, the schema and the documents say the same."""

import re
from typing import get_args

import pytest

from service.errors import CODES, StateError
from service.executions.model import ENDED, OPEN, STATUS, Status
from service.history.model import OURS
from service.http.remedies import REMEDIES
from service.work.model import OPEN as OPEN_ITEMS
from service.work.model import shown_status
from tests.tidy import house
from tests.tidy.documents import DOCS, PLACE, PLACES, WHOLE, WORK, filled
from tests.tidy.events import KEPT, events, told


def checked(table: str) -> set[str]:
    """The statuses that a table's CHECK admits."""
    text = house.store().execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    found = re.search(r"CHECK \(status IN \(([^)]*)\)", text)
    assert found, f"{table} has no CHECK on its status"
    return set(re.findall(r"'(\w+)'", found.group(1)))


def test_the_store_admits_the_statuses_of_the_machine_and_no_other() -> None:
    assert checked("executions") == STATUS.statuses == set(get_args(Status))
    assert checked("work_items") == set(WORK)


def test_an_execution_is_open_or_has_ended() -> None:
    assert set(OPEN) | ENDED == STATUS.statuses
    assert STATUS.terminal == ENDED
    assert not set(OPEN) & ENDED


def test_nothing_follows_an_end() -> None:
    for end in ENDED:
        for status in STATUS.statuses:
            with pytest.raises(StateError, match="cannot become"):
                STATUS.step(end, status)


def test_every_status_can_be_reached() -> None:
    reached = {"pending", "running"}  # a start may choose either
    while more := {to for status in reached for to in STATUS.table[status]} - reached:
        reached |= more
    assert reached == STATUS.statuses


def test_the_table_of_work_items_leads_to_statuses_that_exist() -> None:
    for status, (_, follows) in WORK.items():
        nexts = set(follows.split(", ")) - {"nothing"}
        assert nexts <= set(WORK), status
        assert status not in OPEN_ITEMS or nexts, f"{status} is open and leads nowhere"


def test_a_caller_never_sees_the_status_that_is_ours() -> None:
    assert shown_status("delayed") == "ready"
    assert [shown_status(status) for status in WORK if status != "delayed"] == [one for one in WORK if one != "delayed"]


def test_every_kind_of_event_that_the_service_writes_is_told_of_and_kept_from_callers() -> None:
    assert sorted([*told(), *KEPT]) == sorted(OURS)
    assert {f"child.{status}" for status in ENDED} <= OURS
    assert [kind for kind in OURS if f"`{kind}`" not in events()] == []


@pytest.mark.parametrize("name", WHOLE)
def test_a_drawn_document_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == WHOLE[name](), "run `python -m tests.tidy.documents`"


def test_the_drawn_places_are_what_the_code_says() -> None:
    places = []
    for path in DOCS.rglob("*.md"):
        text = path.read_text("utf-8")
        assert text == filled(text), f"{path.name}: run `python -m tests.tidy.documents`"
        places += [found.group(2) for found in PLACE.finditer(text)]
    assert sorted(places) == sorted(PLACES)


def test_every_error_has_a_remedy() -> None:
    assert set(REMEDIES) == set(CODES)


def test_every_refusal_in_the_code_has_a_code_of_the_list() -> None:
    """`StateError("code", …)` with a code that is not listed would fail only when it is raised."""
    import ast

    for module in house.modules():
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "StateError"
                and isinstance(node.args[0], ast.Constant)
            ):
                assert node.args[0].value in CODES, f"{module.name}:{node.lineno}"


def test_every_code_is_used() -> None:
    said = {
        text
        for module in house.modules()
        if module.name not in ("service.errors", "service.http.remedies")
        for text in house.strings(module.tree)
    }
    assert not sorted(set(CODES) - said)
