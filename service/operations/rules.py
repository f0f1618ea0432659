"""Who sees a job, and how it is stopped."""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from service.errors import StateError, not_found
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.jobs import CancelJob, CancellingJob, Job
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.operations.model import ShownJob, show
from service.tenants.model import IMPORT_JOB
from service.tenants.rules import DELETE_JOB
from service.work.model import REDRIVE_JOB, Redrive


def reached(who: Principal, job: Job) -> bool:
    """Whether a job is there for a token: of redrives, those that take nothing from beyond its queues."""
    if job.kind != REDRIVE_JOB:
        return True
    return who.may_grant([msgspec.json.decode(job.detail, type=Redrive).queue or "*"])


def keys(command: CancelJob, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The job and the audit log."""
    yield Job, (who.tenant_id, command.id)
    yield from audit_keys(who.tenant_id)


def cancel(view: View, command: CancelJob) -> ShownJob:
    """Stop a job where it is; one that was stopped already answers the same."""
    job = view.get(Job, view.tenant_id, command.id)
    if job is None or not reached(view.who, job):
        raise not_found("job", command.id)
    if job.status == "cancelled":
        return show(job)
    if job.status != "running":
        raise StateError("job/ended", f"The job is {job.status}; there is nothing to stop.", current_status=job.status)
    if job.kind == DELETE_JOB:
        raise StateError("job/final", "A tenant that is being deleted cannot be kept: part of its rows are gone.")
    if job.kind == IMPORT_JOB:
        raise StateError("job/final", "An import is given up with DELETE /v1/imports/{id}, which takes its rows away.")
    view.tell(CancellingJob(job))
    job = replace(job, status="cancelled", updated_at=view.now)
    view.put(job)
    audit(view, "job.cancelled", job.id, {"kind": job.kind, "done": job.done})
    return show(job)


RULES = [Rule(CancelJob, cancel, keys)]
