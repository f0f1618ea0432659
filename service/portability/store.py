"""What an import asks of the store before it begins: whether the tenant is empty."""

from service.kernel.tables import Table
from service.portability.model import TenantRows

TABLES = [Table(TenantRows, ("tenant_id",), 95, "load_tenant_rows")]
