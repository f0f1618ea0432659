"""The manifest of an export, the commands of an import, and what its job knows."""

from typing import Annotated, Any, Literal

import msgspec

from service.tenants.model import TenantId, TenantStatus

ROWS_MAX = 10_000
IMPORT_MS = 900_000
"""How long an import waits for its next part."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Row = Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": list[Any]})]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)", description="SHA-256, in hexadecimal")]
TableName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Written(msgspec.Struct, frozen=True):
    """How many rows of a table, and the digest of all of them in their order."""

    rows: Count
    sha256: Sha256


class ExportedTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of an export: its columns in their order, how many rows follow, and their digest."""

    columns: Annotated[list[str], msgspec.Meta(max_length=256)]
    rows: Count
    sha256: Sha256


class ExportedTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant's own row; `policy` and `limits` are JSON as text."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    status: TenantStatus
    policy: str | None
    limits: str
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    created_at: Count
    updated_at: Count


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of an export. `schema` is the last migration of the store; `sha256` is of the manifest itself."""

    format: Literal["holdfast.tenant"]
    schema: Count
    tenant_id: TenantId
    exported_at: Count
    tenant: ExportedTenant
    tables: dict[TableName, ExportedTable]
    sha256: str


class TellExport(msgspec.Struct, frozen=True):
    """Say in the tenant's audit log that it is exported, before anything is read."""


class BeginImport(msgspec.Struct, frozen=True):
    """Make room for the tenant of a manifest. The same manifest again, while its import goes on, goes on with it."""

    manifest: Manifest


class ImportPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next rows of an import, of one table, each the array of its columns. `part` counts from 1."""

    part: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    table: TableName
    rows: Annotated[list[Row], msgspec.Meta(min_length=1, max_length=ROWS_MAX)]


class FinishImport(msgspec.Struct, frozen=True):
    """Open the tenant, if everything that the manifest promised has come."""

    id: str


class AbandonImport(msgspec.Struct, frozen=True):
    """Give an import up: its rows go."""

    id: str


class Importing(msgspec.Struct, frozen=True):
    """What the job of an import knows: what must come (`tables`), what has (`written`, up to `part`), and what the
    tenant then is."""

    tenant_id: str
    sha256: str
    status: str
    version: int
    tables: dict[str, Written]
    written: dict[str, Written]
    part: int = 0


class ShownImport(msgspec.Struct, frozen=True):
    """An import and the part that comes next."""

    id: str
    tenant_id: str
    status: str
    next_part: int
    rows: int
    rows_written: int
    created: bool = False


class TenantRows(msgspec.Struct, frozen=True):
    """How many rows a tenant has beside its own."""

    tenant_id: str
    count: int
