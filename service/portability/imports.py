"""A part of an import: rows of one table, and the job moved on with them, in one transaction."""

import asyncio
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.errors import Conflict
from backends.protocol import Row, StateBackend, Tx
from service.errors import StateError, invalid, not_found
from service.kernel.jobs import Job, write
from service.kernel.principal import SYSTEM, Principal
from service.kernel.run import refuse_if_out
from service.kernel.standing import standings_of
from service.portability.model import IMPORT_MS, Importing, ImportPart, Manifest, ShownImport
from service.portability.rows import after, digest_of, first, packed, unpacked
from service.portability.rules import alive, ended, show, unfit
from service.portability.tables import COLUMNS, Column, names_of, schema
from service.tenants.model import IMPORT_JOB, Limits, Tenant


def refuse_unfit(manifest: Manifest) -> None:
    """422 with all that this store has no place for: another schema, other tables, a manifest that was changed."""
    wrong = []
    if manifest.sha256 != digest_of(manifest):
        wrong.append(("/sha256", "the manifest was changed, or cut off"))
    if manifest.schema != schema():
        wrong.append(("/schema", f"this store has schema {schema()}; export from one that has been migrated to it"))
    ours, theirs = {name: names_of(name) for name in COLUMNS}, manifest.tables
    wrong += [(f"/tables/{name}", "is not here") for name in theirs if name not in ours]
    wrong += [(f"/tables/{name}", "is missing") for name in ours if name not in theirs]
    wrong += [
        (f"/tables/{name}/columns", "are others here")
        for name, columns in ours.items()
        if name in theirs and theirs[name].columns != columns
    ]
    if wrong:
        raise unfit(wrong)
    for name, text, kind in (("limits", manifest.tenant.limits, Limits), ("policy", manifest.tenant.policy, Any)):
        try:
            msgspec.json.decode(text if text is not None else "null", type=kind)
        except msgspec.MsgspecError as error:
            raise unfit([(f"/tenant/{name}", str(error))]) from None


async def write_part(backend: StateBackend, who: Principal, import_id: str, part: ImportPart) -> ShownImport:
    """Write a part; the one that was written last is answered again. 401 for a token that has ended since the request
    came, 409 for another part than the next, 422 for rows that do not fit."""
    columns = COLUMNS.get(part.table)
    if columns is None:
        raise invalid([("/table", f"there is no table {part.table!r} that travels")])
    rows, lines = await asyncio.to_thread(rows_of, columns, part)
    tenant_id = await tenant_of(backend, import_id)

    async def work(tx: Tx) -> ShownImport:
        job, detail = await held(tx, import_id)
        [standing] = await standings_of(tx, [who])  # once it is held: whoever revoked the token meanwhile is heeded
        refuse_if_out(who, standing, tx.now)
        if part.part == detail.part:
            return show(job)
        if part.part != detail.part + 1:
            said = f"The part {detail.part + 1} is next; {part.part} was sent."
            raise StateError("import/part", said, next_part=detail.part + 1)
        await tx.many(f"import_{part.table}", [(detail.tenant_id, *row) for row in rows])
        return show(await moved_on(tx, job, detail, part, lines))

    try:
        return await backend.write(work, tenants=[SYSTEM, tenant_id])
    except Conflict:
        said = "a row is there already, or belongs to one that is not, or holds what its column does not take"
        raise unfit([("/rows", said)]) from None


async def tenant_of(backend: StateBackend, import_id: str) -> str:
    """Whose rows an import brings; 404 for what is no import."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_job", tenant_id=SYSTEM, id=import_id)

    row = await backend.read(read, tenants=[SYSTEM])
    job = None if row is None else Job(*row)
    if job is None or job.kind != IMPORT_JOB:
        raise not_found("import", import_id)
    return msgspec.json.decode(job.detail, type=Importing).tenant_id


def rows_of(columns: tuple[Column, ...], part: ImportPart) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """The rows of a part as the store takes them, and as an export would write them, however the caller spelt them."""
    rows = [unpacked(columns, bytes(row), f"/rows/{index}") for index, row in enumerate(part.rows)]
    return rows, [packed(row) for row in rows]


async def held(tx: Tx, import_id: str) -> tuple[Job, Importing]:
    """The job of an import that is under way, held until the commit."""
    found = await tx.all("load_jobs", rows=[(SYSTEM, import_id)])
    job = Job(*found[0]) if found else None
    if job is None or job.kind != IMPORT_JOB:
        raise not_found("import", import_id)
    detail = msgspec.json.decode(job.detail, type=Importing)
    row = await tx.one("read_tenant", tenant_id=detail.tenant_id)
    if row is None or not alive(job, Tenant(*row), tx.now):
        raise ended(job.status)
    return job, detail


async def moved_on(tx: Tx, job: Job, detail: Importing, part: ImportPart, lines: list[bytes]) -> Job:
    """The job with one more part, and with time for the next."""
    names = names_of(part.table)
    before = detail.written.get(part.table) or first(part.table, names)
    written = {**detail.written, part.table: after(before, lines)}
    detail = replace(detail, written=written, part=part.part)
    done = job.done + len(lines)
    moved = replace(job, detail=msgspec.json.encode(detail), done=done, due_at=tx.now + IMPORT_MS, updated_at=tx.now)
    await write(tx, job, moved)
    return moved
