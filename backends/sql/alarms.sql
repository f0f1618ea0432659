-- name: load_alarms
-- Alarms by name, locked.
WITH rows(tenant_id TEXT, owner_id TEXT, name TEXT) AS (:rows)
SELECT a.tenant_id, a.owner_id, a.name, a.due_at, a.detail
  FROM rows r
  JOIN alarms a ON a.tenant_id = r.tenant_id AND a.owner_id = r.owner_id AND a.name = r.name
 ORDER BY a.tenant_id, a.owner_id, a.name FOR UPDATE OF a;

-- name: alarms_of_owners
-- All the alarms of what they belong to, under the lock of its row.
WITH rows(tenant_id TEXT, owner_id TEXT) AS (:rows)
SELECT a.tenant_id, a.owner_id, a.name, a.due_at, a.detail
  FROM rows r
  JOIN alarms a ON a.tenant_id = r.tenant_id AND a.owner_id = r.owner_id
 ORDER BY a.tenant_id, a.owner_id, a.name FOR UPDATE OF a;

-- name: insert_alarms
-- New alarms; a name that is set already is refused here.
WITH rows(tenant_id TEXT, owner_id TEXT, name TEXT, due_at BIGINT, detail BYTEA) AS (:rows)
INSERT INTO alarms (tenant_id, owner_id, name, due_at, detail)
SELECT tenant_id, owner_id, name, due_at, detail FROM rows;

-- name: update_alarms
-- Alarms put off or brought forward, from the time they were read at.
WITH rows(tenant_id TEXT, owner_id TEXT, name TEXT, due_at BIGINT, detail BYTEA, was_due_at BIGINT) AS (:rows)
UPDATE alarms SET due_at = rows.due_at, detail = rows.detail
  FROM rows
 WHERE alarms.tenant_id = rows.tenant_id AND alarms.owner_id = rows.owner_id AND alarms.name = rows.name
   AND alarms.due_at = rows.was_due_at;

-- name: delete_alarms
-- Alarms that have rung, or are no longer wanted, under their locks.
WITH rows(tenant_id TEXT, owner_id TEXT, name TEXT) AS (:rows)
DELETE FROM alarms
 WHERE (tenant_id, owner_id, name) IN (SELECT tenant_id, owner_id, name FROM rows);

-- name: due_alarms
-- Alarms of any tenant whose time has come, in the order of their times. Names only, no lock. Not of a tenant that is
-- being imported (its version is 0): it is not all there.
SELECT a.tenant_id, a.owner_id, a.name
  FROM alarms a
 WHERE a.tenant_id > '' AND a.due_at <= :now
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = a.tenant_id AND t.version = 0)
 ORDER BY a.due_at, a.tenant_id, a.owner_id, a.name
 LIMIT :limit;

-- name: due_alarms_of_tenant
-- The same of one tenant.
SELECT a.tenant_id, a.owner_id, a.name
  FROM alarms a
 WHERE a.tenant_id = :tenant_id AND a.due_at <= :now
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = :tenant_id AND t.version = 0)
 ORDER BY a.due_at, a.owner_id, a.name
 LIMIT :limit;
