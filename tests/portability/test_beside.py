"""An export beside what removes rows: an execution is in it whole or not at all, and a tenant that goes is not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backends.erasure import of_executions
from service.namespaces import sweeps as namespaces
from service.portability import routes
from service.retention import sweeps as retention
from service.retention.sweeps import DAY_MS, Walk
from service.tenants import sweeps as tenants
from tests.client import HOST
from tests.conftest import Api, Service, serving
from tests.namespaces.test_behaviour import made
from tests.portability.steps import File, arrived, export, import_
from tests.retention.test_half_removed import in_small_pages, long

DAYS = 30


@pytest.fixture
async def own(fresh_url: str) -> AsyncIterator[Api]:
    """A tenant in a store of its own that keeps executions for thirty days."""
    async with serving(fresh_url, execution_days=DAYS) as service:
        yield await service.tenant()


def rows_of(file: File, run: str) -> dict[str, int]:
    """How many rows of an execution an export has in each table."""
    found = {}
    for table, column in of_executions().items():
        owners = (run, f"schedule/{run}") if table == "alarms" else (run,)
        found[table] = sum(row[column] in owners for row in file.rows(table))
    return {table: count for table, count in found.items() if count}


async def there(file: File, service: Service) -> Api:
    """The tenant of an export, imported into another store."""
    await import_(service, file)
    return await arrived(service, file.manifest["tenant_id"])


async def test_an_export_has_an_execution_whole_or_not_at_all(
    own: Api, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    in_small_pages(monkeypatch)
    run = await long(own)
    own.clock.advance(DAYS * DAY_MS)
    kept = await long(own)
    own.clock.advance(1)
    whole = rows_of(await export(own.http, own.tenant), run)
    services, seen, file = own.service.services, list[bool](), None
    walk = services.lines["retention"] = Walk()
    while not walk.rest_until:
        await retention.remove(services)
        shown = (await own.http.get(f"/v1/executions/{run}")).status_code == 200
        file = await export(own.http, own.tenant)
        assert rows_of(file, run) == (whole if shown else {})
        assert rows_of(file, kept)["executions"] == 1
        assert file.manifest["tables"]["executions"]["rows"] == 1 + shown
        if seen.count(False) == 2:
            arrival = await there(file, service)
            assert (await arrival.start(execution_id=run))["created"] is True, "its id is free where it did not arrive"
            assert (await arrival.ok("POST", f"/v1/executions/{kept}/snapshots:verify"))["matches"] is True
        seen.append(shown)
    assert seen.count(False) > 5


async def test_an_export_beside_the_deletion_of_a_namespace_has_executions_whole_or_not_at_all(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "PAGE", 10)
    await made(own, "blue")
    runs = [await long(own, namespace="blue") for _ in range(3)]
    await own.ok("DELETE", "/v1/namespaces/blue")
    before = await export(own.http, own.tenant)
    whole, gone = [rows_of(before, run) for run in runs], 1
    while gone:
        gone = await own.service.services.backend.write(
            lambda tx: namespaces.take(tx, own.tenant, "blue"), tenants=[own.tenant]
        )
        shown = [(await own.http.get(f"/v1/executions/{run}")).status_code == 200 for run in runs]
        file = await export(own.http, own.tenant)
        for run, rows, is_shown in zip(runs, whole, shown, strict=True):
            assert rows_of(file, run) == (rows if is_shown else {})


async def test_a_tenant_whose_deletion_begins_before_the_snapshot_is_not_exported(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the export was allowed before, and rows have gone since."""
    await long(own)
    exported = routes.exported
    monkeypatch.setattr(tenants, "PAGE", 10)

    async def late(*args: Any) -> Any:
        await own.admin.delete(f"/v1/tenants/{own.tenant}")
        await tenants.erase(own.service.services)
        return await exported(*args)

    monkeypatch.setattr(routes, "exported", late)
    await own.refused("GET", f"/v1/tenants/{own.tenant}/export", "tenant/archived")


async def test_an_export_that_is_over_or_failed_leaves_its_place_to_the_next(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when the garbage is collected; also where the caller has gone away in the middle."""
    kept = []

    async def fails(*args: Any) -> Any:
        kept.append(args)  # as a traceback that somebody holds would
        raise RuntimeError

    for _ in range(5):
        await export(own.http, own.tenant)
        kept.append(list(own.service.services.extra["exports"]))
    exported = routes.exported
    monkeypatch.setattr(routes, "exported", fails)
    for _ in range(5):
        assert (await own.http.get(f"/v1/tenants/{own.tenant}/export")).status_code == 500
    monkeypatch.setattr(routes, "exported", exported)
    for _ in range(5):
        await cut_off(own)
    await export(own.http, own.tenant)


async def cut_off(api: Api) -> None:
    """An export whose caller goes away before all of it was sent."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            raise ConnectionError

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": f"/v1/tenants/{api.tenant}/export", "raw_path": f"/v1/tenants/{api.tenant}/export".encode(),
        "query_string": b"", "root_path": "", "server": ("test", 80), "client": ("127.0.0.1", 1),
        "headers": [(b"host", HOST.encode()), (b"authorization", f"Bearer {api.owner_token}".encode())],
    }  # fmt: skip
    with pytest.raises(ConnectionError):
        await api.service.app(scope, receive, send)
    assert sent[0]["status"] == 200
