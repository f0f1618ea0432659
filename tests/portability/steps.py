"""Steps of the tests of exports and imports."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from service.portability.exported import parts_of
from service.portability.model import Manifest
from service.portability.rows import digest_of
from tests.conftest import Api, Service
from tests.tenants.test_behaviour import fill

TOLD = {"audit", "audit_heads"}
"""Tables that an export itself writes to."""


class File(NamedTuple):
    """An export as it was received."""

    lines: list[bytes]

    @property
    def manifest(self) -> Any:
        return json.loads(self.lines[0])

    @property
    def tables(self) -> dict[str, Any]:
        """Rows and digest of each table that the export did not write to."""
        tables = self.manifest["tables"]
        return {name: (table["rows"], table["sha256"]) for name, table in tables.items() if name not in TOLD}

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table, by column."""
        columns = self.manifest["tables"][table]["columns"]
        found = (json.loads(line) for line in self.lines[1:])
        return [dict(zip(columns, row[table], strict=True)) for row in found if table in row]

    @property
    def parts(self) -> Iterator[tuple[int, str, list[Any]]]:
        """The parts of an import: number, table, rows."""
        for number, (table, rows) in enumerate(parts_of(self.lines[1:]), 1):
            yield number, table, [json.loads(row) for row in rows]


async def export(client: httpx.AsyncClient, tenant: str, **headers: str) -> File:
    """An export that must succeed."""
    answer = await client.get(f"/v1/tenants/{tenant}/export", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert int(answer.headers["content-length"]) == len(answer.content)
    return File(answer.content.splitlines(keepends=True))


async def begin(admin: httpx.AsyncClient, file: File) -> Any:
    """Begin an import, or find it under way."""
    answer = await admin.post("/v1/imports", json=file.manifest)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def send(admin: httpx.AsyncClient, file: File, import_id: str, first: int = 1, last: int = 10**9) -> None:
    """Send some of its parts."""
    for number, table, rows in file.parts:
        if first <= number <= last:
            body = {"part": number, "table": table, "rows": rows}
            answer = await admin.post(f"/v1/imports/{import_id}/parts", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["next_part"] == number + 1


async def import_(service: Service, file: File) -> Any:
    """A whole import; the tenant as it is then."""
    admin = service.client(service.admin)
    began = await begin(admin, file)
    await send(admin, file, began["id"], began["next_part"])
    answer = await admin.post(f"/v1/imports/{began['id']}/finish")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def arrived(service: Service, tenant: str) -> Api:
    """The tenant where it arrived, as a new owner."""
    return Api(service, tenant, await service.token(tenant, "owner"))


async def lived(api: Api, runs: int = 3) -> None:
    """A tenant with something in every table, and some of it in every state."""
    await fill(api)
    for number in range(runs):
        run = (await api.start(execution_id=f"run-{number}", input={"n": [number, "ü€\u2028", None]}))["execution_id"]
        events = [{"kind": "noted", "body": {"text": f"line\n{n}"}} for n in range(20)]
        await api.ok("POST", f"/v1/executions/{run}/events", json={"events": events})
        raw = b'{ "spaced" :\n [1.50, 1e2, "\\u00e9"] }'
        json_type = {"content-type": "application/json"}
        answer = await api.http.put(f"/v1/executions/{run}/state", content=raw, headers=json_type)
        assert answer.status_code == 200, answer.text
    for queue in ("held", "waiting"):
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": queue, "payload": n} for n in range(30)])
    await api.ok("POST", "/v1/work-items", json={"queue": "later", "delay_ms": 3_600_000})
    await api.claim("held", max_items=10)


def resealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A changed manifest with its digest made right."""
    decoded = json.dumps(manifest | {"sha256": ""})
    import msgspec

    return manifest | {"sha256": digest_of(msgspec.json.decode(decoded, type=Manifest))}
