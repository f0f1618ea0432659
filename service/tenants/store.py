"""The table of tenants."""

from service.kernel.tables import Table
from service.tenants.model import Tenant

TABLES = [Table(Tenant, ("tenant_id",), 2, "load_tenants", "insert_tenants", "update_tenants")]
