-- name: tenants_with_oldest
-- The next active tenants by id, of all, with their limits and when the oldest execution of each began. What another
-- tenant has stays as it is.
SELECT t.tenant_id, t.limits,
       (SELECT e.created_at FROM executions e WHERE e.tenant_id = t.tenant_id ORDER BY e.created_at, e.id LIMIT 1)
  FROM tenants t
 WHERE t.tenant_id > :after AND t.status = 'active'
 ORDER BY t.tenant_id
 LIMIT :limit;

-- name: aged_executions
-- A tenant's executions that began before a time, the oldest first, after a position.
SELECT e.id, e.created_at, e.completed_at, e.sequence
  FROM executions e
 WHERE e.tenant_id = :tenant_id AND (e.created_at, e.id) > (:at, :id) AND e.created_at < :before
 ORDER BY e.created_at, e.id
 LIMIT :limit;

-- name: lock_ended_executions
-- Executions about to be removed, locked: those that ended before a time, and that nobody works on, of an active tenant;
-- with the tenant's limits as they are now.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT e.id, e.namespace, e.status, e.sequence, e.completed_at, t.limits
  FROM rows r
  JOIN tenants t ON t.tenant_id = r.tenant_id AND t.status = 'active'
  JOIN executions e ON e.tenant_id = r.tenant_id AND e.id = r.id AND e.completed_at < :before
 ORDER BY e.tenant_id, e.id FOR UPDATE OF e SKIP LOCKED;

-- name: whole_executions
-- Of executions, those of which nothing was removed yet: the first event is the first to go.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT v.execution_id
  FROM rows r
  JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.id AND v.sequence = 1
 ORDER BY v.execution_id;

-- name: hide_executions
-- Take executions that have ended, and of which something was removed, out of every list: no other has the sequence 0.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
UPDATE executions SET sequence = 0
  FROM rows
 WHERE executions.tenant_id = rows.tenant_id AND executions.id = rows.id AND executions.sequence <> 0
   AND executions.completed_at IS NOT NULL;
