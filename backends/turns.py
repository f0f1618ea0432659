"""Statements that nobody writes by hand: whose turn it is, among the tenants that have something for time to make due.

One text for all of them, a walk from tenant to tenant along an index: one look at it for each, however much one has.
"""

OF = {
    "tenants_with_due_alarms": ("alarms", "due_at", ""),
    "tenants_with_due_deletions_of_namespaces": (
        "jobs",
        "due_at",
        " AND x.status = 'running' AND x.kind = 'namespace.delete'",
    ),
    "tenants_with_due_redrives": ("jobs", "due_at", " AND x.status = 'running' AND x.kind = 'work.redrive'"),
    "tenants_with_due_items": ("work_items", "ready_at", " AND x.status = 'delayed'"),
    "tenants_with_expired_leases": ("work_items", "expires_at", " AND x.status = 'leased'"),
}
"""Each statement: the table, the column that says when a row is due, and which rows it is about."""
TEXT = """
WITH RECURSIVE line(tenant_id, place) AS (
  SELECT min(x.tenant_id), 1 FROM {table} x WHERE x.tenant_id > :after{which}
   UNION ALL
  SELECT (SELECT min(x.tenant_id) FROM {table} x WHERE x.tenant_id > line.tenant_id{which}), line.place + 1
    FROM line
   WHERE line.tenant_id IS NOT NULL AND line.place < :looks)
SELECT line.tenant_id,
       CASE WHEN EXISTS (SELECT 1 FROM {table} x WHERE x.tenant_id = line.tenant_id{which} AND x.{at} <= :now)
            THEN 1 ELSE 0 END
  FROM line
 WHERE line.tenant_id IS NOT NULL""".strip()


def texts() -> dict[str, str]:
    """The next tenants, up to `looks`, that have such rows, after one of them; and whether a row of theirs is due."""
    return {name: TEXT.format(table=table, at=at, which=which) for name, (table, at, which) in OF.items()}
