"""How an export is told of, and an import begun, finished and given up."""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from service.errors import StateError, not_found
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.jobs import Job
from service.kernel.principal import SYSTEM, Principal, Standing
from service.kernel.raw import encoded
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.portability.model import (
    IMPORT_MS,
    AbandonImport,
    BeginImport,
    FinishImport,
    Importing,
    Manifest,
    ShownImport,
    TellExport,
    TenantRows,
    Written,
)
from service.tenants.model import DEFAULT, IMPORT_JOB, UNOPENED, ShownTenant, Tenant
from service.tenants.rules import answer


def tell_keys(_command: TellExport, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The tenant's audit log."""
    yield from audit_keys(who.tenant_id)


def tell(view: View, _command: TellExport) -> None:
    """A line of the log."""
    refuse_deleting(view.standing.status)
    audit(view, "tenant.exported", view.tenant_id, {"reason": view.who.reason})


def refuse_deleting(status: str) -> None:
    """403 for an export of a tenant whose rows are going or coming."""
    if status == "deleting":
        raise StateError("tenant/archived", "The tenant is being deleted, or not there yet; it is not exported.")


# ── begin ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def job_id(manifest: Manifest) -> str:
    """The id of an import, the same for the same manifest: whoever has lost it begins again, and goes on."""
    return f"import-{manifest.tenant_id}-{manifest.sha256[:16]}"


def begin_keys(command: BeginImport, _who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The tenant, the job, the system's audit log."""
    yield Tenant, (command.manifest.tenant_id,)
    yield Job, (SYSTEM, job_id(command.manifest))
    yield from audit_keys(SYSTEM)


def begin(view: View, command: BeginImport) -> ShownImport:
    """A tenant that nobody can use, and the job that takes it away again unless the import is finished."""
    manifest, own = command.manifest, command.manifest.tenant
    before, job = view.get(Tenant, manifest.tenant_id), view.get(Job, SYSTEM, job_id(manifest))
    if job is not None and before is not None and alive(job, before, view.now):
        return show(job)
    limits, policy = own.limits, None if own.policy is None else own.policy.encode()
    tenant = Tenant(manifest.tenant_id, own.name, "deleting", policy, limits, UNOPENED, own.created_at, own.updated_at)
    if before is None:
        view.add(tenant)
    else:
        refuse_taken(view, before)
        view.put(replace(tenant, created_at=before.created_at))
    tables = {name: Written(table.rows, table.sha256) for name, table in manifest.tables.items()}
    detail = Importing(manifest.tenant_id, manifest.sha256, own.status, own.version, tables, {})
    total, due = sum(table.rows for table in tables.values()), view.now + IMPORT_MS
    new = Job(SYSTEM, job_id(manifest), IMPORT_JOB, "running", encoded(detail), total, 0, due, view.now, view.now)
    if job is None:
        view.add(new)
    else:
        view.put(replace(new, created_at=job.created_at))
    audit(view, "tenant.importing", tenant.tenant_id, {"import": new.id, "sha256": manifest.sha256}, SYSTEM)
    return replace(show(new), created=True)


def refuse_taken(view: View, before: Tenant) -> None:
    """An id that is taken; the tenant `default`, which every store has, only once there is something in it."""
    if before.tenant_id == DEFAULT and before.status == "active":
        rows = view.get(TenantRows, DEFAULT)
        if rows is not None and rows.count == 0:
            return
    raise StateError(
        "tenant/exists",
        f"There is a tenant {before.tenant_id!r} here already (it is {before.status}); an import brings its own id.",
        current_status=before.status,
    )


def alive(job: Job, tenant: Tenant, now: int) -> bool:
    """Whether an import can go on: its job runs and was not late, and nobody has deleted the tenant."""
    return job.status == "running" and job.due_at > now and tenant.version == UNOPENED


# ── end ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def end_keys(command: FinishImport | AbandonImport, _who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The job and the system's audit log; the tenant once the job has named it."""
    yield Job, (SYSTEM, command.id)
    yield from audit_keys(SYSTEM)


def finish(view: View, command: FinishImport) -> ShownTenant:
    """Open the tenant, as it was. Made again, it answers the same."""
    job, detail, tenant = need(view, command.id)
    if job.status == "completed" and tenant is not None and tenant.status != "deleting":
        return answer(tenant)
    if tenant is None or not alive(job, tenant, view.now):
        raise ended(job.status)
    if wrong := differences(detail.tables, detail.written):
        raise unfit(wrong)
    tenant = replace(tenant, status=detail.status, version=detail.version)
    view.put(tenant)
    view.put(replace(job, status="completed", updated_at=view.now))
    audit(view, "tenant.imported", tenant.tenant_id, {"import": job.id, "sha256": detail.sha256}, SYSTEM)
    return answer(tenant)


def abandon(view: View, command: AbandonImport) -> ShownImport:
    """Close the tenant for good; the job takes its rows away."""
    job, _, tenant = need(view, command.id)
    if job.status != "running":
        return show(job)
    if tenant is not None and tenant.version == UNOPENED:
        view.put(replace(tenant, version=UNOPENED + 1))
        audit(view, "tenant.deleting", tenant.tenant_id, {"import": job.id}, SYSTEM)
    job = replace(job, due_at=view.now, updated_at=view.now)
    view.put(job)
    return show(job)


def need(view: View, import_id: str) -> tuple[Job, Importing, Tenant | None]:
    """An import's job, what it knows, and its tenant; 404 for what is no import."""
    job = view.get(Job, SYSTEM, import_id)
    if job is None or job.kind != IMPORT_JOB:
        raise not_found("import", import_id)
    detail = msgspec.json.decode(job.detail, type=Importing)
    return job, detail, view.get(Tenant, detail.tenant_id)


def differences(wanted: Mapping[str, Written], written: Mapping[str, Written]) -> list[tuple[str, str]]:
    """What has not come, or not as the manifest says."""
    found = []
    for name, table in wanted.items():
        have = written.get(name)
        rows = 0 if have is None else have.rows
        if rows != table.rows:
            found.append((f"/tables/{name}", f"{table.rows} rows were promised, {rows} have come"))
        elif have is not None and have.sha256 != table.sha256:
            found.append((f"/tables/{name}", "the rows are not those that were exported"))
    return found


def unfit(errors: list[tuple[str, str]]) -> StateError:
    """422 for what cannot become a tenant here, with everything that is wrong."""
    listed = [{"pointer": pointer, "detail": detail} for pointer, detail in errors]
    return StateError("import/unfit", "What is imported does not fit; see 'errors'.", errors=listed)


def ended(status: str) -> StateError:
    """409 for an import that is over, or was given up."""
    said = f"The import is {status}, was late, or was given up; begin it again with its manifest."
    return StateError("import/ended", said, current_status=status)


def show(job: Job) -> ShownImport:
    """An import as it is answered."""
    detail = msgspec.json.decode(job.detail, type=Importing)
    return ShownImport(job.id, detail.tenant_id, job.status, detail.part + 1, job.total, job.done)


RULES = [
    Rule(TellExport, tell, tell_keys, while_suspended=True),
    Rule(BeginImport, begin, begin_keys),
    Rule(FinishImport, finish, end_keys),
    Rule(AbandonImport, abandon, end_keys),
]
