"""Rows, commands and replies of tenants."""

from typing import Annotated, Literal

import msgspec

from service.kernel.command import PATH
from service.kernel.raw import ABSENT

TenantId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}$(?!\n)", description="1–63 of a–z 0–9 -")]
TenantStatus = Literal["active", "suspended", "archived"]
DEFAULT, IMPORT_JOB = "default", "tenant.import"
UNOPENED = 0
"""The version of a tenant whose import is under way: it is `deleting`, and goes unless the import is finished."""
Most = Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None
Days = Annotated[int, msgspec.Meta(ge=0, le=36_500)] | None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Most of each thing; 0 allows none, null any number. Of requests, `burst` may come at once: null is a second's
    worth. Executions are kept `execution_days` after their end: 0 keeps all of them, null is the server's setting."""

    running_executions: Most = None
    definitions: Most = None
    ready_work_items: Most = None
    events_per_execution: Most = None
    payload_bytes: Most = None
    state_bytes: Most = None
    requests_per_second: Most = None
    burst: Most = None
    tokens: Most = None
    namespaces: Most = None
    workers: Most = None
    execution_days: Days = None


class LimitChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits to change: null lifts one, what is not named stays."""

    running_executions: Most | msgspec.UnsetType = msgspec.UNSET
    definitions: Most | msgspec.UnsetType = msgspec.UNSET
    ready_work_items: Most | msgspec.UnsetType = msgspec.UNSET
    events_per_execution: Most | msgspec.UnsetType = msgspec.UNSET
    payload_bytes: Most | msgspec.UnsetType = msgspec.UNSET
    state_bytes: Most | msgspec.UnsetType = msgspec.UNSET
    requests_per_second: Most | msgspec.UnsetType = msgspec.UNSET
    burst: Most | msgspec.UnsetType = msgspec.UNSET
    tokens: Most | msgspec.UnsetType = msgspec.UNSET
    namespaces: Most | msgspec.UnsetType = msgspec.UNSET
    workers: Most | msgspec.UnsetType = msgspec.UNSET
    execution_days: Days | msgspec.UnsetType = msgspec.UNSET

    def on(self, limits: Limits) -> Limits:
        """The limits after the change."""
        named = {name: most for name, most in msgspec.structs.asdict(self).items() if most is not msgspec.UNSET}
        return msgspec.structs.replace(limits, **named)


class Tenant(msgspec.Struct, frozen=True):
    """A tenant; `limits` and `policy` are JSON."""

    tenant_id: str
    name: str
    status: str
    policy: bytes | None
    limits: str
    version: int
    created_at: int
    updated_at: int


class CreateTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a tenant."""

    id: TenantId
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    policy: msgspec.Raw = ABSENT
    limits: Limits = Limits()


class UpdateTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Change what is given, of `limits` those that are named. `expected_version` (or `If-Match`) guards against lost
    updates."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    status: TenantStatus | None = None
    policy: msgspec.Raw = ABSENT
    limits: LimitChanges | None = None
    expected_version: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None
    id: str = PATH


class DeleteTenant(msgspec.Struct, frozen=True):
    """Begin to delete a tenant: it is closed at once, a job takes its rows away."""

    id: str


class Erasing(msgspec.Struct, frozen=True):
    """What the job that deletes a tenant knows."""

    tenant_id: str


class ShownTenant(msgspec.Struct, frozen=True):
    """A tenant as it is answered."""

    id: str
    name: str
    status: str
    policy: msgspec.Raw | None
    limits: Limits
    version: int
    created_at: int
    updated_at: int
    job_id: str | None = None
