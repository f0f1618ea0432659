"""The fold, without a store: what events add up to, from the start or from anywhere."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.history.fold import STEPS, clone, fold
from service.history.model import Fold, LoggedEvent

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.floats(-2, 2))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, DOCUMENTS, max_size=3)
ITEMS, NODES = st.sampled_from(["i1", "i2", "i3"]), st.one_of(st.none(), st.sampled_from(["n1", "n2"]))
STATUSES = st.sampled_from(["running", "paused", "completed", "failed", "cancelled", "limit_exceeded"])


def event(sequence: int, kind: str, body: Any = None, node: str | None = None, item: str | None = None) -> LoggedEvent:
    encoded = None if body is None else msgspec.json.encode(body)
    return LoggedEvent("t", "e", sequence, kind, encoded, node, item)


WORK = st.sampled_from([kind for kind in STEPS if kind.startswith("work.")] + ["work.failed", "work.retry_scheduled"])
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["state.replaced", "state.merged"]), DOCUMENTS, st.none(), st.none()),
    st.tuples(st.just("execution.status_changed"), st.fixed_dictionaries({"to": STATUSES}), st.none(), st.none()),
    st.tuples(WORK, st.fixed_dictionaries({"attempt": st.just(1), "result": DOCUMENTS}), NODES, ITEMS),
    st.tuples(st.sampled_from(["my.kind", "snapshot.written", "attributes.set"]), DOCUMENTS, NODES, ITEMS),
)
STARTS = st.fixed_dictionaries(
    {"workflow_id": st.just("wf"), "state": OBJECTS, "work_item_id": ITEMS, "node_id": NODES}
)


@st.composite
def logs(draw: Any) -> list[LoggedEvent]:
    """A log that begins as every log does; appends go where they fit."""
    rows = [("execution.started", draw(STARTS), None, None), *draw(st.lists(EVENTS, max_size=20))]
    log: list[LoggedEvent] = []
    for row in rows:
        log.append(event(len(log) + 1, *row))
        if isinstance(fold(log).state, dict) and "z" not in fold(log).state and draw(st.booleans()):
            log.append(event(len(log) + 1, "state.appended", {"path": "/z", "value": draw(SCALARS)}))
    return log


@given(logs(), st.data())
def test_replay_after_a_snapshot_equals_replay_from_the_start(log: list[LoggedEvent], data: Any) -> None:
    cut = data.draw(st.integers(0, len(log)))
    kept = msgspec.json.decode(msgspec.json.encode(fold(log[:cut])), type=Fold)
    assert fold(log[cut:], kept) == fold(log)


@given(logs(), st.data())
def test_snapshots_upon_snapshots_lose_nothing(log: list[LoggedEvent], data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4)))
    found = Fold()
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        found = msgspec.json.decode(msgspec.json.encode(fold(log[start:end], found)), type=Fold)
    assert found == fold(log)


@given(logs())
def test_folding_on_leaves_the_snapshot_as_it_was(log: list[LoggedEvent]) -> None:
    half = fold(log[: len(log) // 2])
    before = msgspec.json.encode(half)
    fold(log[len(log) // 2 :], half)
    assert msgspec.json.encode(half) == before


@given(logs())
def test_a_fold_stands_at_the_last_event(log: list[LoggedEvent]) -> None:
    assert fold(log).sequence == len(log)


def test_an_empty_log_is_pending_and_empty() -> None:
    assert fold([]) == Fold(0, "pending", {}, {}, {})


def test_a_start_tells_status_state_and_first_item() -> None:
    body = {"status": "pending", "state": [1], "work_item_id": "i", "node_id": "n"}
    assert fold([event(1, "execution.started", body)]) == Fold(1, "pending", [1], {}, {"n": ["i"]})


def test_a_node_is_active_from_its_item_to_its_end() -> None:
    log = [
        event(1, "execution.started", {}),
        event(2, "work.enqueued", {}, "n", "i"),
        event(3, "work.enqueued", {}, "n", "j"),
        event(4, "work.retry_scheduled", {"attempt": 1}, "n", "i"),
        event(5, "work.completed", {"attempt": 2, "result": {"r": 1}}, "n", "i"),
    ]
    assert fold(log[:3]).active_nodes == fold(log[:4]).active_nodes == {"n": ["i", "j"]}
    assert (fold(log).active_nodes, fold(log).completed_nodes) == ({"n": ["j"]}, {"n": {"r": 1}})


@pytest.mark.parametrize("kind", ["work.dead_lettered", "work.cancelled"])
def test_a_node_that_was_given_up_is_neither_active_nor_completed(kind: str) -> None:
    log = [event(1, "execution.started", {}), event(2, "work.enqueued", {}, "n", "i"), event(3, kind, {}, "n", "i")]
    assert (fold(log).active_nodes, fold(log).completed_nodes) == ({}, {})


def test_a_requeued_node_is_active_again() -> None:
    log = [
        event(1, "execution.started", {"work_item_id": "i", "node_id": "n"}),
        event(2, "work.dead_lettered", {}, "n", "i"),
        event(3, "work.requeued", {}, "n", "i"),
    ]
    assert fold(log).active_nodes == {"n": ["i"]}


def test_kinds_that_nobody_knows_add_up_to_nothing() -> None:
    log = [
        event(1, "execution.started", {"state": {"a": 1}}),
        event(2, "my.kind", {"state": 2, "to": "failed"}, "n", "i"),
    ]
    assert fold(log) == Fold(2, "running", {"a": 1}, {}, {})


def test_a_copy_shares_nothing_that_a_fold_changes() -> None:
    found = Fold(1, "running", {"a": 1}, {"n": 1}, {"m": ["i"]})
    copy = clone(found)
    copy.completed_nodes["x"] = 1
    copy.active_nodes["m"].append("j")
    assert found == Fold(1, "running", {"a": 1}, {"n": 1}, {"m": ["i"]})
