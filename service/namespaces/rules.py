"""How namespaces are made, entered and closed: pure decisions over the rows of a batch."""

from collections.abc import Iterable

from msgspec.structs import replace

from service.errors import StateError, not_found
from service.executions.model import Entered
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.jobs import CancellingJob, Job
from service.kernel.limits import usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.namespaces.model import (
    DELETE_JOB,
    CreateNamespace,
    DeleteNamespace,
    Emptying,
    Namespace,
    NamespaceTurn,
    OpenIn,
    ShownNamespace,
)
from service.work.model import MAIN


def create_keys(command: CreateNamespace, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The namespace, what the limit counts, the audit log."""
    yield from usage_keys(who.tenant_id, standing, "namespaces")
    yield Namespace, (who.tenant_id, command.name)
    yield from audit_keys(who.tenant_id)


def create(view: View, command: CreateNamespace) -> ShownNamespace:
    """A new namespace; the same one again changes nothing."""
    if command.name == MAIN:
        raise StateError("namespace/exists", "Every tenant has the namespace 'main'; it need not be made.")
    before = view.get(Namespace, view.tenant_id, command.name)
    if before is None:
        use(view, "namespaces")
        made = Namespace(view.tenant_id, command.name, command.note, "active", None, view.now)
        view.add(made)
        audit(view, "namespace.created", made.name, {"note": made.note})
        return answer(made, created=True)
    if before.status != "active":
        raise leaving(before)
    if before.note != command.note:
        raise StateError(
            "namespace/exists",
            f"There is a namespace {command.name!r} already, with another note; choose another name.",
        )
    return answer(before)


def delete_keys(command: DeleteNamespace, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The namespace, locked against starts; then how much is open in it; the audit log."""
    for what in (NamespaceTurn, Namespace, OpenIn):
        yield what, (who.tenant_id, command.name)
    yield from audit_keys(who.tenant_id)


def delete(view: View, command: DeleteNamespace) -> ShownNamespace:
    """Close a namespace and leave its rows to a job; refused while executions of it are open. `main` stays."""
    if command.name == MAIN:
        raise StateError("auth/forbidden", "The namespace 'main' cannot be deleted; every tenant has it.")
    before = view.get(Namespace, view.tenant_id, command.name)
    if before is None:
        raise not_found("namespace", command.name)
    if before.status != "active":
        return answer(before)
    found = view.get(OpenIn, view.tenant_id, command.name)
    if found is not None and found.count:
        raise StateError(
            "namespace/in-use",
            f"{counted(found.count)} of the namespace {command.name!r} have not ended; end them first.",
            current=found.count,
        )
    job = Job(
        view.tenant_id, view.new_id(), DELETE_JOB, "running", encoded(Emptying(before.name)), 0, 0, *[view.now] * 3
    )
    closed = replace(before, status="deleting", job_id=job.id)
    view.add(job)
    view.put(closed)
    use(view, "namespaces", -1)
    audit(view, "namespace.deleting", closed.name, {"job_id": job.id})
    return answer(closed)


def counted(count: int) -> str:
    """A number of executions in words; they are counted up to a thousand."""
    return f"At least {count} executions" if count >= 1_000 else "1 execution" if count == 1 else f"{count} executions"


def leaving(namespace: Namespace) -> StateError:
    """409 for a namespace that is being deleted."""
    return StateError(
        "namespace/deleting",
        f"The namespace {namespace.name!r} is being deleted; nothing can be made in it until it is gone.",
        job_id=namespace.job_id,
    )


def entered(view: View, fact: Entered) -> None:
    """Something is made in a namespace: it must be there. What is made open counts against a deletion in this batch."""
    found = view.get(Namespace, fact.tenant_id, fact.namespace)
    if found is None:
        raise StateError(
            "namespace/unknown",
            f"There is no namespace {fact.namespace!r}; make it with POST /v1/namespaces, or leave it out for 'main'.",
            namespace=fact.namespace,
        )
    if found.status != "active":
        raise leaving(found)
    if fact.opens and view.has(OpenIn, fact.tenant_id, fact.namespace):  # somebody deletes it in the same batch
        before = view.get(OpenIn, fact.tenant_id, fact.namespace) or OpenIn(fact.tenant_id, fact.namespace, 0)
        view.put(replace(before, count=before.count + 1))


def keep_deleting(_view: View, fact: CancellingJob) -> None:
    """A namespace that is being deleted cannot be kept."""
    if fact.job.kind == DELETE_JOB:
        raise StateError("job/final", "A namespace that is being deleted cannot be kept: part of its rows are gone.")


def answer(namespace: Namespace, *, created: bool = False) -> ShownNamespace:
    """A namespace as it is answered."""
    return ShownNamespace(
        namespace.name, namespace.note, namespace.status, namespace.job_id, namespace.created_at, created
    )


RULES = [Rule(CreateNamespace, create, create_keys), Rule(DeleteNamespace, delete, delete_keys)]
LISTENERS = [(Entered, entered), (CancellingJob, keep_deleting)]
