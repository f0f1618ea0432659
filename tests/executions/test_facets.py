"""Lists by label or attribute give the same pages whichever way they are found: by what is rare, or in their order."""

from typing import Any

import pytest

from service.executions import facets
from service.executions.routes import VOCABULARY
from service.kernel import filters
from tests.conftest import Api, Clock

FILTERS = (
    "attr.customer = 'rare'",
    "attr.customer = 'common'",
    "attr.customer = 'nobody'",
    "attr.size > 7",
    "label.team LIKE 'r%'",
    "attr.customer = 'common' AND attr.size BETWEEN 2 AND 5",
    "attr.customer = 'rare' OR label.team = 'blue'",
    "attr.customer IN ('rare', 'nobody') AND status = 'running'",
    "NOT attr.customer = 'common'",
    "attr.customer != 'rare' AND attr.size < 4",
    "status = 'pending' OR attr.customer = 'rare'",
)


async def listed(api: Api, **query: Any) -> list[str]:
    """The ids of all pages of two."""
    found: list[str] = []
    page = await api.ok("GET", "/v1/executions", params=query | {"limit": 2})
    while True:
        assert len(page["items"]) == 2 or page["next_cursor"] is None
        found += [item["execution_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        page = await api.ok("GET", "/v1/executions", params=query | {"limit": 2, "cursor": page["next_cursor"]})


@pytest.mark.parametrize("sort", ["created", "created_asc", "updated"])
async def test_pages_do_not_depend_on_how_they_are_found(
    sort: str, api: Api, other: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(10):
        clock.advance(at % 2)
        attributes = {"customer": "rare" if at in (2, 7) else "common", "size": at}
        body = {"execution_id": f"e{at}", "attributes": attributes, "labels": {"team": "red" if at < 3 else "blue"}}
        await api.start(**body)
    await other.start(attributes={"customer": "rare", "size": 9})
    await api.ok("POST", "/v1/executions/e2/status", json={"status": "paused"})
    query = {} if sort == "created" else {"sort": sort}
    found: dict[int, list[list[str]]] = {}
    for few in (facets.FEW, 3, 0):
        monkeypatch.setattr(facets, "FEW", few)
        found[few] = [await listed(api, filter=text, **query) for text in FILTERS]
    one, *others = found.values()
    assert all(same == one for same in others)
    assert [len(ids) for ids in one] == [2, 8, 0, 2, 3, 3, 8, 1, 2, 3, 2]


@pytest.mark.parametrize(
    ("text", "covers"),
    [
        ("attr.a = 'x'", [["attr"]]),
        ("attr.a = 'x' AND (label.b > 5)", [["attr"], ["label"]]),
        ("attr.a = 'x' OR attr.b IN ('y', 'z')", [["attr", "attr"]]),
        ("(attr.a = 'x' OR label.b = 'y') AND status = 'failed'", [["attr", "label"]]),
        ("(attr.a = 'x' AND attr.b = 'y') OR label.c LIKE 'z%'", [["attr", "label"]]),
        ("attr.a != 'x'", []),
        ("NOT attr.a = 'x'", []),
        ("NOT (attr.a = 'x' OR attr.b = 'y')", []),
        ("attr.a NOT LIKE 'x%'", []),
        ("attr.a NOT IN ('x')", []),
        ("attr.a = 'x' OR status = 'failed'", []),
        ("status = 'failed'", []),
    ],
)
def test_a_filter_is_covered_by_what_each_row_that_it_finds_must_have(text: str, covers: list[list[str]]) -> None:
    found = filters.compile(text, VOCABULARY)
    families = [[condition.split("'")[1] for condition in cover] for cover in found.covers]
    assert families == covers
    assert all(condition.replace("(f", "f", 1)[:-1] in found.sql for cover in found.covers for condition in cover)


class Counted:
    """A reader that has so many executions with each facet, and counts how often it is asked."""

    def __init__(self, *counts: int) -> None:
        self.counts, self.asked = list(counts), 0

    async def all(self, statement: str, *, limit: int, **_: Any) -> list[tuple[str]]:
        """Ids, no more than are asked for."""
        assert statement == "executions_of_facet"
        self.asked += 1
        return [(f"e{at}",) for at in range(min(limit, self.counts.pop(0)))]


@pytest.mark.parametrize(
    ("counts", "covers", "few", "asked"),
    [
        ((5,), 1, 5, 1),
        ((facets.FEW + 1,), 1, None, 1),
        ((10**9, 7), 2, 7, 2),
        ((10**9,) * 20, 20, None, facets.CONDITIONS),
        ((), 0, None, 0),
    ],
)
async def test_looking_up_how_rare_a_value_is_is_bounded(
    counts: tuple[int, ...], covers: int, few: int | None, asked: int
) -> None:
    tx = Counted(*counts)
    found = await facets.few(tx, "acme", [["c"]] * covers, ("", {}))  # type: ignore[arg-type]
    assert (None if found is None else len(found), tx.asked) == (few, asked)
