"""The rules of executions, without a store: the table of statuses, digests of starts, bodies of first events."""

from itertools import product
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StateError
from service.executions.model import ENDED, EVENT_OF, OPEN, STATUS, StartExecution, Status
from service.executions.prepare import digest_of
from service.executions.rules import facet, first_item, first_item_id
from service.history.fold import STEPS
from service.history.model import OURS
from service.kernel.raw import ABSENT
from service.kernel.states import Machine
from service.work.model import Enqueue

ALLOWED = {
    ("pending", "running"), ("pending", "cancelled"), ("pending", "terminated"),
    ("running", "paused"), ("running", "completed"), ("running", "failed"), ("running", "cancelled"),
    ("running", "terminated"), ("running", "timed_out"), ("running", "limit_exceeded"),
    ("paused", "running"), ("paused", "cancelled"), ("paused", "terminated"), ("paused", "failed"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), sorted(product(get_args(Status), repeat=2)))
def test_the_table_allows_what_was_specified_and_nothing_else(old: str, new: str) -> None:
    if (old, new) in ALLOWED:
        assert STATUS.step(old, new) == new
        return
    with pytest.raises(StateError) as refused:
        STATUS.step(old, new)
    facts = refused.value.facts
    assert (refused.value.code, facts["current_status"], facts["offered"]) == ("execution/transition", old, new)
    assert facts["allowed"] == sorted(to for of, to in ALLOWED if of == old)


def test_every_status_is_open_or_ended_and_known_to_callers() -> None:
    assert STATUS.terminal == ENDED
    assert STATUS.statuses == ENDED | set(OPEN) == set(get_args(Status))
    assert not ENDED & set(OPEN)


def test_a_table_that_leads_nowhere_is_refused_when_the_program_starts() -> None:
    with pytest.raises(ValueError, match="lost"):
        Machine("thing", {"here": frozenset({"lost"})})


def test_every_status_is_reached_from_a_start() -> None:
    reached, waiting = {"pending", "running"}, ["pending", "running"]
    while waiting:
        for status in STATUS.table[waiting.pop()] - reached:
            reached.add(status)
            waiting.append(status)
    assert reached == STATUS.statuses


def test_the_drawing_has_every_arrow() -> None:
    drawn = STATUS.drawn()
    assert all(f"{old} --> {new}" in drawn for old, new in ALLOWED)
    assert all(f"{status} --> [*]" in drawn for status in ENDED)


def test_every_kind_that_replay_reads_is_one_that_callers_cannot_forge() -> None:
    assert set(STEPS) <= OURS
    assert set(EVENT_OF.values()) <= set(STEPS)


def start_of(text: bytes) -> StartExecution:
    return msgspec.json.decode(text, type=StartExecution)


def test_the_digest_of_a_start_sees_meaning_not_spelling() -> None:
    one = start_of(b'{"workflow_id":"wf","execution_id":"e","input":{"a":1,"b":2},"start":{"payload":[1]}}')
    same = start_of(
        b'{"start":{"payload": [1],"queue":"default"},"input":{"b":2, "a":1},"execution_id":"e","workflow_id":"wf"}'
    )
    assert digest_of(one) == digest_of(same)


@pytest.mark.parametrize(
    "other",
    [
        b'{"workflow_id":"wf","execution_id":"e"}',
        b'{"workflow_id":"wf","execution_id":"e","input":null}',
        b'{"workflow_id":"wf","execution_id":"e","input":2}',
        b'{"workflow_id":"wf","execution_id":"e","input":1,"start":{}}',
        b'{"workflow_id":"wf","execution_id":"e","input":1,"version":"latest"}',
        b'{"workflow_id":"wf","execution_id":"e","input":1,"labels":{"a":"b"}}',
        b'{"workflow_id":"wf","execution_id":"e","input":1,"pending":true}',
    ],
)
def test_the_digest_of_a_start_tells_different_ones_apart(other: bytes) -> None:
    assert digest_of(start_of(other)) != digest_of(start_of(b'{"workflow_id":"wf","execution_id":"e","input":1}'))


def test_the_first_items_id_is_the_chosen_one_or_follows_from_the_executions() -> None:
    assert first_item_id(StartExecution("wf", execution_id="e")) is None
    assert first_item_id(StartExecution("wf", start=Enqueue())) is None
    assert first_item_id(StartExecution("wf", execution_id="e", start=Enqueue(id="i"))) == "i"
    derived = first_item_id(StartExecution("wf", execution_id="e", start=Enqueue()))
    assert derived == first_item_id(StartExecution("wf", execution_id="e", start=Enqueue(queue="other")))
    assert derived != first_item_id(StartExecution("wf", execution_id="f", start=Enqueue()))


def test_without_a_definition_the_first_item_is_as_asked() -> None:
    asked = Enqueue(queue="q", payload=ABSENT)
    assert first_item(asked, None) is asked


@given(st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.booleans()))
def test_a_facet_keeps_numbers_as_numbers_alone_and_truth_values_as_words(value: str | int | bool) -> None:
    row = facet("t", "e", "attr", "n", value)
    number = isinstance(value, int) and not isinstance(value, bool)
    assert row.number_value == (value if number else None)
    expected = str(value).lower() if isinstance(value, bool) else value
    assert row.text_value == (None if number else expected)
