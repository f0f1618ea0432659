"""An export in the making: one snapshot, read page by page into a file of this process, then sent.

The file is there so that the snapshot is held for as long as the store takes, never for as long as the caller does;
it has no name and goes with the process. Pages are as long as their rows are short.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import IO, Any
from weakref import WeakSet, finalize

import msgspec

from backends.errors import Full
from backends.protocol import Row, StateBackend, Tx
from service.errors import StateError, not_found
from service.portability.model import ExportedTable, ExportedTenant, Manifest, Written
from service.portability.rows import after, digest_of, first, packed
from service.portability.rules import refuse_deleting
from service.portability.tables import COLUMNS, execution_of, names_of, order_of, schema
from service.tenants.model import Tenant

ROWS_FIRST, ROWS_MOST, BYTES = 16, 500, 1_048_576
CHUNK, EXPORTS_MAX = 262_144, 2


class Spool:
    """The lines of an export as they are written, in a file that goes with it, and what was written of each table.
    `going` are the executions that are being removed: they are left out."""

    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        try:
            self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  it goes with the spool
        except OSError as error:
            raise Full("there is no place for temporary files") from error
        finalize(self, self.file.close)
        self.tables: dict[str, Written] = {}
        self.going: set[str] = set()

    def begin(self) -> None:
        """Begin anew: a snapshot that was lost is read again from its first row."""
        self.file.seek(0)
        self.file.truncate()
        self.tables = {name: first(name, names_of(name)) for name in COLUMNS}
        self.going = set()

    def write(self, table: str, rows: Sequence[Sequence[Any]]) -> int:
        """Add rows of a table; how many bytes they are. Raises `Full` where the temporary files have no room."""
        lines = [packed(row) for row in rows]
        self.tables[table] = after(self.tables[table], lines)
        try:
            self.file.writelines(line_of(table, line) for line in lines)
            self.file.flush()
        except OSError as error:
            raise Full("there is no room for the export among the temporary files") from error
        return sum(map(len, lines))


def line_of(table: str, row: bytes) -> bytes:
    """A row's line in the file."""
    return b'{"%s":%s}\n' % (table.encode(), row)


def room(extra: dict[str, Any], tenant_id: str) -> Spool:
    """A spool for an export; 503 while as many as may be are written or sent by this process, of one tenant as many as
    places are free: it may take its time to read them. One whose file is closed has left its place."""
    spools: WeakSet[Spool] = extra.setdefault("exports", WeakSet())
    under_way = [one.tenant_id for one in spools if not one.file.closed]
    if under_way.count(tenant_id) >= EXPORTS_MAX - len(under_way):
        raise StateError("server/busy", f"{len(under_way)} exports are under way; try again later.", retry_after=10)
    spool = Spool(tenant_id)
    spools.add(spool)
    return spool


async def exported(backend: StateBackend, tenant_id: str, spool: Spool) -> Manifest:
    """The manifest of a tenant, whose lines are then in the spool. Raises 403 or 404 for one that is going or gone, and
    `Full` when the lines find no room."""

    async def read(tx: Tx) -> Manifest:
        tenant = await there(tx, tenant_id)
        spool.begin()
        for table in COLUMNS:
            await read_table(tx, spool, backend.name, tenant_id, table)
        return manifest_of(tenant, spool.tables, tx.now)

    return await backend.read(read, tenants=[tenant_id], scan=True)


async def there(tx: Tx, tenant_id: str) -> Tenant:
    """The tenant, that it may be exported: 403 or 404 for one that is going or gone."""
    row = await tx.one("read_tenant", tenant_id=tenant_id)
    if row is None:
        raise not_found("tenant", tenant_id)
    tenant = Tenant(*row)
    refuse_deleting(tenant.status)
    return tenant


async def read_table(tx: Tx, spool: Spool, engine: str, tenant_id: str, table: str) -> None:
    """All rows of a table but those of executions that are being removed."""
    order = order_of(table, engine)
    limit, page = ROWS_FIRST, await tx.all(f"export_{table}", tenant_id=tenant_id, limit=ROWS_FIRST)
    while page:
        rows = staying(spool.going, table, [row[len(order) :] for row in page])
        size = await asyncio.to_thread(spool.write, table, [travelling(table, row, tx.now) for row in rows])
        if len(page) < limit or not order:
            return
        place = {f"at_{index}": page[-1][index] for index in range(len(order))}
        limit = max(1, min(ROWS_MOST, BYTES * len(page) // (size + 1)))
        page = await tx.all(f"export_{table}_after", tenant_id=tenant_id, limit=limit, **place)


def staying(going: set[str], table: str, rows: list[Row]) -> list[Row]:
    """Rows without those of executions that are being removed; these it finds among the executions, which are read
    before all that belongs to them."""
    owner, names = execution_of(table), names_of(table)
    if table == "executions":
        id, sequence = names.index("id"), names.index("sequence")
        going.update(row[id] for row in rows if not row[sequence])
    if owner is None or not going:
        return rows
    at = names.index(owner)
    return [row for row in rows if row[at] not in going]


def travelling(table: str, row: Row, now: int) -> Sequence[Any]:
    """A row as it leaves: a leased item is handed back, like one that its worker released."""
    if table != "work_items":
        return row
    names = names_of(table)
    item = dict(zip(names, row, strict=True))
    return list((item | handed_back(item, now)).values())


def handed_back(item: Mapping[str, Any], now: int) -> dict[str, Any]:
    """What changes of an item that is not leased any more. The epoch rises, so that no holder's fence fits; the attempt
    does not count, because nobody failed. It waits for a worker from now on. What was asked to stop is handed to nobody
    else: it leaves as a lease that has run out, and the sweep that takes it back ends it where it arrives."""
    if item["status"] != "leased":
        return {}
    risen = {"epoch": item["epoch"] + 1, "token_id": None}
    if item["cancel_requested_at"] is not None:
        return {**risen, "expires_at": now}
    ready = {"status": "ready", "ready_at": now, "worker_id": None, "expires_at": None}
    return {**risen, **ready, "attempt": item["attempt"] - 1}


def manifest_of(tenant: Tenant, tables: Mapping[str, Written], now: int) -> Manifest:
    """The manifest of what was written."""
    policy = None if tenant.policy is None else tenant.policy.decode()
    own: Any = tenant.status
    head = ExportedTenant(tenant.name, own, policy, tenant.limits, tenant.version, tenant.created_at, tenant.updated_at)
    found = {name: ExportedTable(names_of(name), tables[name].rows, tables[name].sha256) for name in COLUMNS}
    manifest = Manifest("holdfast.tenant", schema(), tenant.tenant_id, now, head, found, "")
    return msgspec.structs.replace(manifest, sha256=digest_of(manifest))


async def parts_of(manifest: bytes, spool: Spool, stands: Callable[[], Awaitable[Any]]) -> AsyncIterator[bytes]:
    """The bytes of the answer. To a token that has ended meanwhile, as `stands` tells, no further part is sent."""
    yield manifest
    await asyncio.to_thread(spool.file.seek, 0)
    while part := await asyncio.to_thread(spool.file.read, CHUNK):
        await stands()
        yield part
