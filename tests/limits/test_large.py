"""Large documents, and many of them, are answered and worked on in parts: what a request costs has a bound."""

from typing import Any

import msgspec
import pytest
from hypothesis import given

from service.executions import rules as executions
from service.history import rules
from service.history.fold import STEPS, folded_on
from service.history.model import Fold, Sealed
from service.http import lists
from service.kernel.json import merge_patch
from tests.conftest import Api
from tests.history.test_fold import DOCUMENTS, event

LONG = "x" * 100
MANY = 12


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends with the third row that holds a `LONG`; five rows are read at a time."""
    monkeypatch.setattr(lists, "PAGE_BYTES", 3 * len(LONG) - 50)
    monkeypatch.setattr(lists, "SLICE", 5)


async def filled(api: Api) -> str:
    """A run with large events, snapshots and work items; its id."""
    run: str = (await api.start(execution_id="e"))["execution_id"]
    for n in range(MANY):
        await api.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "k", "body": LONG}]})
        await api.ok("POST", "/v1/work-items", json={"queue": "q", "payload": LONG, "id": f"i{n:02}"})
    return run


async def walked(api: Api, path: str, way: str, on: str) -> list[list[Any]]:
    """The pages of a list of a thousand to a page."""
    pages, place = [], ""
    while True:
        found = await api.ok("GET", f"{path}?limit=1000{place}")
        pages.append(found["items"])
        if found[on] is None or not found["items"]:
            return pages
        place = f"&{way}={found[on]}"


@pytest.mark.parametrize(
    ("path", "way", "on", "rows"),
    [
        ("/v1/executions/e/events", "after", "next_after", MANY + 1),
        ("/v1/events", "after", "next_cursor", MANY + 1),
        ("/v1/work-items", "cursor", "next_cursor", MANY),
    ],
)
async def test_a_page_of_large_rows_ends_early_and_the_next_goes_on(
    api: Api, small_pages: None, path: str, way: str, on: str, rows: int
) -> None:
    await filled(api)
    pages = [page for page in await walked(api, path, way, on) if page]
    assert max(len(page) for page in pages) <= 4, "three large ones, and the first event"
    assert len(pages) >= MANY // 4
    whole = [msgspec.json.encode(row) for page in pages for row in page]
    assert len(whole) == len(set(whole)) == rows


async def test_snapshots_are_listed_and_compared_in_parts(api: Api, small_pages: None) -> None:
    run = await filled(api)
    for sequence in (3, 9):
        await api.ok("PUT", f"/v1/executions/{run}/snapshots/{sequence}")
    assert [one["sequence"] for page in await walked(api, f"/v1/executions/{run}/snapshots", "cursor", "next_cursor")
            for one in page] == [3, 9]  # fmt: skip
    found = await api.ok("POST", f"/v1/executions/{run}/snapshots:verify")
    assert (found["matches"], found["sequence"]) == (True, MANY + 3)


async def test_a_state_grows_to_a_bound_whatever_the_tenants_limit_says(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "STATE_BYTES", 150)
    await api.start(execution_id="e")
    at = "/v1/executions/e/state"
    await api.ok("POST", f"{at}:append", json={"path": "/l", "value": LONG})
    more = {"path": "/l", "value": LONG}
    problem = await api.refused("POST", f"{at}:append", "limit/state-bytes", json=more)
    assert (problem["limit"], problem["current"]) == (150, len('{"l":["') + len(LONG) + len('"]}'))
    await api.refused("PATCH", at, "limit/state-bytes", json={"more": LONG})
    changes = [{"type": "append_state", "path": "/n", "value": 1}, {"type": "append_state"} | more]
    await api.refused("POST", "/v1/executions/e/transitions", "limit/state-bytes", json={"changes": changes})
    await api.ok("PUT", at, json={"l": [LONG, LONG]})
    await api.refused("PATCH", at, "limit/state-bytes", json={"m": 1})
    await api.ok("PATCH", at, json={"l": [LONG]})


async def test_a_state_of_many_small_parts_grows_to_a_bound_of_its_own(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "STATE_PARTS", 10)
    await api.start(execution_id="e", state={"l": [[]] * 8})
    at = "/v1/executions/e/state"
    problem = await api.refused("POST", f"{at}:append", "limit/state-bytes", json={"path": "/l", "value": {}})
    assert (problem["limit"], problem["current"]) == (10, 10)
    await api.ok("PATCH", at, json={"text": LONG})
    await api.ok("PUT", at, json={"l": [[]] * 18})
    await api.ok("PATCH", at, json={"n": 1})
    await api.refused("PATCH", at, "limit/state-bytes", json={"m": {}})


@given(DOCUMENTS, DOCUMENTS)
def test_a_patch_in_place_makes_what_a_patch_makes(target: Any, patch: Any) -> None:
    wanted = merge_patch(target, patch)
    assert merge_patch(target, patch, in_place=True) == wanted


def test_what_an_event_leaves_alone_is_not_copied() -> None:
    found = folded_on(Fold(), [event(1, "state.replaced", {"l": [1], "d": {"x": 1}, "other": {}})])
    state, inner, array = found.state, found.state["d"], found.state["l"]
    folded_on(
        found, [event(2, "state.merged", {"d": {"y": 2}}), event(3, "state.appended", {"path": "/l", "value": 2})]
    )
    assert found.state is state and state["d"] is inner and state["l"] is array
    assert state == {"l": [1, 2], "d": {"x": 1, "y": 2}, "other": {}}


async def test_a_claim_has_few_patterns_and_any_number_of_names(api: Api) -> None:
    asked = {"worker_id": "w", "queues": [f"a*{n}" for n in range(17)]}
    for wait in (0, 60_000):
        problem = await api.refused("POST", "/v1/work-items:claim", "request/invalid", json={**asked, "wait_ms": wait})
        assert problem["errors"][0]["pointer"] == "/queues"
    asked["queues"] = [f"a*{n}" for n in range(16)] + [f"q{n}" for n in range(48)]
    await api.ok("POST", "/v1/work-items:claim", json=asked)


async def test_a_snapshot_goes_through_what_came_since_the_one_before(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_through = []
    logged = rules.logged
    monkeypatch.setattr(rules, "logged", lambda found: gone_through.append(found.sequence) or logged(found))
    made = await api.start(execution_id="e")
    changes = [{"type": "append", "kind": "k"}, {"type": "snapshot"}] * 50
    done = await api.ok("POST", "/v1/executions/e/transitions", json={"changes": changes})
    assert done["sequence"] == made["sequence"] + len(changes)
    assert len(gone_through) <= 4 * len(changes), "a few times each, not each time all of them"
    assert (await api.ok("POST", "/v1/executions/e/snapshots:verify"))["matches"]


async def test_a_snapshot_of_now_takes_the_state_as_it_is_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.start(execution_id="e", state={"n": 0})
    gone_through: list[int] = []
    for kind in ("state.replaced", "state.merged", "state.appended"):
        step = STEPS[kind]
        monkeypatch.setitem(STEPS, kind, lambda *of, step=step: gone_through.append(1) or step(*of))
    at = "/v1/executions/e"
    await api.ok("PUT", f"{at}/state", json={"l": [1]})
    await api.ok("PATCH", f"{at}/state", json={"n": 1})
    await api.ok("POST", f"{at}/state:append", json={"path": "/l", "value": 2})
    before = (await api.ok("GET", at))["sequence"]
    await api.ok("PUT", f"{at}/snapshots/{before}")
    assert gone_through == []
    await api.ok("PUT", f"{at}/snapshots/{before - 1}")
    assert len(gone_through) == 2, "of a time before now nothing else is known"
    assert (await api.ok("POST", f"{at}/snapshots:verify"))["matches"]


def test_what_nodes_gave_back_goes_into_a_snapshot_as_it_was_sent() -> None:
    log = [msgspec.structs.replace(event(n, "work.completed", {"result": [[n]]}), node_id=f"n{n}") for n in (1, 2)]
    kept = msgspec.json.encode(folded_on(Sealed(), log[:1], sealed=True))
    found = folded_on(msgspec.json.decode(kept, type=Sealed), log[1:], sealed=True)
    assert {type(result) for result in found.completed_nodes.values()} == {msgspec.Raw}
    assert msgspec.json.decode(msgspec.json.encode(found), type=Fold) == folded_on(Fold(), log)


async def test_a_snapshot_of_earlier_goes_through_a_bounded_part_of_the_log(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that a later one replaced are passed over; what they were then is not asked for."""
    monkeypatch.setattr(rules, "FOLDED_MAX", 5_000)
    await api.start(execution_id="e")
    at = "/v1/executions/e"
    for n in range(4):
        await api.ok("PUT", f"{at}/state", json={"n": n, "text": "t" * 3_000})
    await api.ok("PATCH", f"{at}/state", json={"more": 1})
    await api.ok("POST", f"{at}/events", json={"events": [{"kind": "k"}]})
    sequence = (await api.ok("GET", at))["sequence"]
    await api.ok("PUT", f"{at}/snapshots/{sequence - 1}")
    for n in range(4):
        await api.ok("PATCH", f"{at}/state", json={f"text{n}": "t" * 3_000})
    last = (await api.ok("GET", at))["sequence"]
    problem = await api.refused("PUT", f"{at}/snapshots/{last - 1}", "request/invalid")
    assert problem["errors"][0]["pointer"] == "/sequence"
    assert [one["sequence"] for one in (await api.ok("GET", f"{at}/snapshots"))["items"]] == [sequence - 1]
    await api.ok("PUT", f"{at}/snapshots/{last}")
    assert (await api.ok("POST", f"{at}/snapshots:verify"))["matches"]
