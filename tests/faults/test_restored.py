"""A dump of a Postgres that is restored into another cluster, where ids of transactions begin anew."""

from typing import Any

import asyncpg
import httpx
import pytest

from backends.errors import SchemaMismatch
from service.main import open_store
from tests.conftest import new_database, settings_for
from tests.races.conftest import in_one_process

AHEAD = "UPDATE events SET commit_id = commit_id + 1000000000"
"""What a younger cluster is to a store: its transactions have lower ids than those that wrote the events."""


async def start(http: httpx.AsyncClient, run: str) -> None:
    """Start an execution."""
    made = await http.post("/v1/executions", json={"workflow_id": "wf", "execution_id": run})
    assert made.status_code == 201, made.text


async def fed(http: httpx.AsyncClient, cursor: str | None = None) -> tuple[list[str], Any]:
    """Whose events the feed has, and the cursor behind them."""
    page = (await http.get("/v1/events", params={} if cursor is None else {"after": cursor})).json()
    return [one["execution_id"] for one in page["items"]], page["next_cursor"]


async def test_the_feed_of_a_restored_store_has_all_that_was_and_goes_on_behind_it(postgres_server: str) -> None:
    url = await new_database(postgres_server)
    async with in_one_process(url, 1) as ways:
        pair = await ways.tenant()
        await start(pair.first, "before")
        token = pair.first.headers["authorization"].removeprefix("Bearer ")
    db = await asyncpg.connect(url)
    await db.execute(AHEAD)
    await db.close()
    store = await open_store(settings_for(url))
    with pytest.raises(SchemaMismatch, match="run `holdfast migrate`"):
        await store.check()
    await store.close()
    async with in_one_process(url, 2) as ways:
        client = ways.client(1, token)
        told, cursor = await fed(client)
        assert told == ["before"]
        await start(client, "after")
        assert (await fed(client, cursor))[0] == ["after"]
        assert (await fed(client))[0] == ["before", "after"]
        listed = (await client.get("/v1/executions?sort=updated")).json()["items"]
        assert [one["execution_id"] for one in listed] == ["after", "before"]
