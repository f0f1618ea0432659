"""How tenants are made, changed and closed."""

from collections.abc import Iterable

import msgspec

from service.errors import StateError, invalid, not_found
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.jobs import Job
from service.kernel.principal import SYSTEM, Principal, Standing
from service.kernel.raw import encoded, shown, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.tenants.model import (
    DEFAULT,
    UNOPENED,
    CreateTenant,
    DeleteTenant,
    Erasing,
    Limits,
    ShownTenant,
    Tenant,
    UpdateTenant,
)

DELETE_JOB = "tenant.delete"
CHANGEABLE = ("name", "status", "policy", "limits")


def keys(command: CreateTenant | UpdateTenant | DeleteTenant, _who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The tenant and both audit logs that tell of it."""
    yield Tenant, (command.id,)
    yield from audit_keys(SYSTEM)


def create(view: View, command: CreateTenant) -> ShownTenant:
    """A new tenant; an id that is taken (or still being emptied) is refused."""
    if (before := view.get(Tenant, command.id)) is not None:
        raise StateError(
            "tenant/exists",
            f"There is a tenant {command.id!r} already (it is {before.status}); choose another id.",
            current_status=before.status,
        )
    refuse_idle(command.limits)
    limits = encoded(command.limits).decode()
    tenant = Tenant(
        command.id, command.name or command.id, "active", stored(command.policy), limits, 1, view.now, view.now
    )
    view.add(tenant)
    audit(view, "tenant.created", tenant.tenant_id, {"name": tenant.name}, SYSTEM)
    return answer(tenant)


def refuse_idle(limits: Limits) -> None:
    """422 for a burst without a rate: nothing would be held to it."""
    if limits.burst is not None and limits.requests_per_second is None:
        raise invalid(
            [("/limits/burst", "it is the burst of `requests_per_second`; give that too, or lift this with null")]
        )


def update(view: View, command: UpdateTenant) -> ShownTenant:
    """Name, status, policy, limits: what is given. One winner per version."""
    before = need(view, command.id)
    if command.expected_version not in (None, before.version):
        raise StateError(
            "version/mismatch",
            f"The tenant is at version {before.version}; {command.expected_version} was expected. Read it again and "
            "decide.",
            current_version=before.version,
        )
    if before.status == "deleting":
        raise StateError("tenant/archived", "The tenant is being deleted; it cannot be changed.")
    limits = before.limits
    if command.limits is not None:
        after = command.limits.on(msgspec.json.decode(before.limits, type=Limits))
        refuse_idle(after)
        limits = encoded(after).decode()
    tenant = msgspec.structs.replace(
        before,
        name=command.name or before.name,
        status=command.status or before.status,
        policy=stored(command.policy) or before.policy,
        limits=limits,
        version=before.version + 1,
        updated_at=view.now,
    )
    view.put(tenant)
    changed = [name for name in CHANGEABLE if getattr(tenant, name) != getattr(before, name)]
    detail = {"status": tenant.status, "version": tenant.version, "changed": changed}
    audit(view, "tenant.updated", tenant.tenant_id, detail, SYSTEM)
    return answer(tenant)


def delete(view: View, command: DeleteTenant) -> ShownTenant:
    """Close the tenant and leave its rows to a job. `default` stays."""
    before = need(view, command.id)
    if command.id == DEFAULT:
        raise StateError("auth/forbidden", "The tenant 'default' cannot be deleted; suspend it instead.")
    if before.status == "deleting" and before.version != UNOPENED:
        return answer(before)
    tenant = msgspec.structs.replace(before, status="deleting", version=before.version + 1, updated_at=view.now)
    view.put(tenant)
    if before.version == UNOPENED:  # the job that imports it takes its rows away, now that it cannot go on
        audit(view, "tenant.deleting", tenant.tenant_id, None, SYSTEM)
        return answer(tenant)
    detail = encoded(Erasing(command.id))
    job = Job(SYSTEM, view.new_id(), DELETE_JOB, "running", detail, 0, 0, view.now, view.now, view.now)
    view.add(job)
    audit(view, "tenant.deleting", tenant.tenant_id, None, SYSTEM)
    return msgspec.structs.replace(answer(tenant), job_id=job.id)


def need(view: View, tenant_id: str) -> Tenant:
    """The tenant, or 404."""
    found = view.get(Tenant, tenant_id)
    if found is None or tenant_id == SYSTEM:
        raise not_found("tenant", tenant_id)
    return found


def answer(tenant: Tenant) -> ShownTenant:
    """A tenant as it is answered."""
    limits = msgspec.json.decode(tenant.limits, type=Limits)
    return ShownTenant(
        tenant.tenant_id, tenant.name, tenant.status, shown(tenant.policy), limits, tenant.version, tenant.created_at,
        tenant.updated_at,
    )  # fmt: skip


RULES = [Rule(CreateTenant, create, keys), Rule(UpdateTenant, update, keys), Rule(DeleteTenant, delete, keys)]
