"""How versions are stored and deleted: pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec

from service.definitions.model import (
    Definition,
    DefinitionTurn,
    Deleted,
    DeleteDefinition,
    InUse,
    Stored,
    StoreDefinition,
    Workflow,
)
from service.errors import StateError, not_found
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.limits import usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Wanted
from service.kernel.view import View


def store_keys(command: StoreDefinition, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The workflow, the version, the audit log's head."""
    yield from usage_keys(who.tenant_id, standing, "definitions")
    yield from audit_keys(who.tenant_id)
    yield Workflow, (who.tenant_id, command.workflow_id)
    yield Definition, (who.tenant_id, command.workflow_id, command.version)


def store(view: View, command: StoreDefinition) -> Stored:
    """The same digest again changes nothing; another body for the same version is refused: versions are immutable."""
    before = view.get(Definition, view.tenant_id, command.workflow_id, command.version)
    if before is not None:
        return same_version(before, command)
    use(view, "definitions")
    workflow = view.get(Workflow, view.tenant_id, command.workflow_id)
    revision = 1 if workflow is None else workflow.revision + 1
    if workflow is None:
        view.add(Workflow(view.tenant_id, command.workflow_id, revision))
    else:
        view.put(msgspec.structs.replace(workflow, revision=revision))
    definition = Definition(
        view.tenant_id, command.workflow_id, command.version, revision, command.digest, int(command.validated),
        command.snapshot_events, command.snapshot_bytes, command.snapshot_keep, command.start, view.now, view.who.actor,
        command.body,
    )  # fmt: skip
    view.add(definition)
    audit(view, "definition.stored", f"{command.workflow_id}/{command.version}", {"digest": command.digest})
    return answer(definition, True)


def same_version(before: Definition, command: StoreDefinition) -> Stored:
    """The answer to a version that is there already."""
    if before.digest != command.digest:
        raise StateError(
            "definition/conflict",
            f"Version {command.version!r} of {command.workflow_id!r} is stored with another body; versions are "
            "immutable: store this one under a new version.",
            current_digest=before.digest,
            offered_digest=command.digest,
        )
    return answer(before, False)


def answer(definition: Definition, created: bool) -> Stored:
    """A stored version as it is answered."""
    return Stored(
        definition.workflow_id,
        definition.version,
        definition.digest,
        definition.revision,
        definition.created_at,
        created,
    )


def delete_keys(command: DeleteDefinition, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The version, locked, the workflow, who uses it."""
    yield from audit_keys(who.tenant_id)
    yield Workflow, (who.tenant_id, command.workflow_id)
    for row in (DefinitionTurn, Definition, InUse):
        yield row, (who.tenant_id, command.workflow_id, command.version)


def delete(view: View, command: DeleteDefinition) -> Deleted:
    """Refused while an execution is pinned to the version, whether or not it has ended: its history names it."""
    key = (view.tenant_id, command.workflow_id, command.version)
    definition = view.get(Definition, *key)
    if definition is None:
        raise not_found("definition", f"{command.workflow_id}/{command.version}")
    used = view.get(InUse, *key)
    if used is not None and used.count:
        raise StateError(
            "definition/in-use",
            f"{used.count} executions or more are pinned to this version; it can be deleted when they are gone.",
            executions=used.count,
        )
    view.remove(definition)
    audit(view, "definition.deleted", f"{command.workflow_id}/{command.version}", {"digest": definition.digest})
    return Deleted(command.workflow_id, command.version)


RULES = [Rule(StoreDefinition, store, store_keys), Rule(DeleteDefinition, delete, delete_keys)]
