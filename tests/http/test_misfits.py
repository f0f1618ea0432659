"""A body that is refused is told all that is wrong with it, each at its place."""

from typing import Any

import msgspec
import pytest

from service.executions.model import StartExecution
from service.history.model import AppendEvents
from service.http.misfits import LARGE, LOOKS, MOST, misfits
from service.transitions.model import Transition
from service.work.model import ClaimWork, EnqueueWork
from tests.conftest import Api


def places(kind: Any, body: Any) -> list[str]:
    raw = msgspec.json.encode(body)
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(raw, type=kind)
    return [place for place, _ in misfits(kind, raw, str(refused.value))]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (EnqueueWork, 5, [""]),
        (EnqueueWork, {"queue": 5, "priority": "x", "odd": 1}, ["/queue", "/priority", ""]),
        (EnqueueWork, {"retry": {"backoff": "odd", "a/b": 1}, "id": None}, ["/retry/backoff", "/retry"]),
        (ClaimWork, {"queues": [], "lease_ms": 1}, ["", "/queues", "/lease_ms"]),
        (ClaimWork, {"worker_id": "w", "queues": ["q", "", 5]}, ["/queues/1", "/queues/2"]),
        (list[EnqueueWork], [{"queue": 5}, {}, {"odd": 1}], ["/0/queue", "/2"]),
        (list[EnqueueWork], {"items": [{}]}, [""]),
        (StartExecution, {"labels": ["a"], "attributes": "b"}, ["/labels", "/attributes"]),
        (StartExecution, {"labels": {"a b": 1, "c": 2}}, ["/labels", "/labels/a b", "/labels/c"]),
        (StartExecution, {"attributes": {"x": 1.5, "y": 1, "z": []}}, ["/attributes/x", "/attributes/z"]),
        (
            Transition,
            {"changes": [{"type": "append", "kind": "A"}, {"type": "odd"}, {}, 5, {"type": "snapshot"}], "lease": {}},
            ["/changes/0/kind", "/changes/1/type", "/changes/2", "/changes/3", "/lease", "/lease"],
        ),
    ],
)
def test_everything_that_is_wrong_is_told_at_its_place(kind: Any, body: Any, expected: list[str]) -> None:
    assert places(kind, body) == expected


def test_what_is_none_of_a_choice_is_told_the_choice() -> None:
    body = {"changes": [{"type": "enque"}, {"type": "enqueue", "queue": "q", "drives": "me"}, {"type": "settle"}]}
    (_, tag), (_, value), (_, other) = misfits(Transition, msgspec.json.encode(body), "")
    assert tag.startswith("Invalid value 'enque'; it is one of append, set_status, ")
    assert value == "Invalid enum value 'me'; it is one of nothing, execution"
    assert "one of" not in other


def test_what_is_told_and_looked_at_has_a_bound() -> None:
    assert len(places(EnqueueWork, {f"f{n}": 1 for n in range(2 * MOST)})) == MOST
    late = {"events": [{"kind": "a"}] * LOOKS + [{"kind": "A"}]}
    assert places(AppendEvents, late) == ["/events"]
    large = {"payload": "x" * LARGE, "queue": 5, "priority": "x"}
    assert places(EnqueueWork, large) == ["/queue"]


async def test_a_caller_mends_a_parameter_at_once(api: Api) -> None:
    problem = await api.refused("GET", "/v1/executions?status=odd", "request/malformed")
    assert "'odd'; it is one of cancelled, completed, " in problem["detail"]


async def test_a_caller_mends_a_body_at_once(api: Api) -> None:
    body = [{"queue": "a b"}, {"queue": "q", "priority": 1.5}]
    problem = await api.refused("POST", "/v1/work-items:batch", "request/invalid", json=body)
    assert [error["pointer"] for error in problem["errors"]] == ["/0/queue", "/1/priority"]
    assert problem["detail"].startswith("The request has 2 errors")
