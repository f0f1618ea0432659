-- name: load_tenants
-- Tenants, locked.
WITH rows(tenant_id TEXT) AS (:rows)
SELECT t.tenant_id, t.name, t.status, t.policy, t.limits, t.version, t.created_at, t.updated_at
  FROM rows r
  JOIN tenants t ON t.tenant_id = r.tenant_id
 ORDER BY t.tenant_id FOR UPDATE OF t;

-- name: insert_tenants
-- A new tenant.
WITH rows(tenant_id TEXT, name TEXT, status TEXT, policy BYTEA, limits TEXT, version BIGINT, created_at BIGINT,
          updated_at BIGINT) AS (:rows)
INSERT INTO tenants (tenant_id, name, status, policy, limits, version, created_at, updated_at)
SELECT tenant_id, name, status, policy, limits, version, created_at, updated_at FROM rows;

-- name: update_tenants
-- A change, from the version it was decided on.
WITH rows(tenant_id TEXT, name TEXT, status TEXT, policy BYTEA, limits TEXT, version BIGINT, updated_at BIGINT,
          was_version BIGINT) AS (:rows)
UPDATE tenants
   SET name = rows.name, status = rows.status, policy = rows.policy, limits = rows.limits, version = rows.version,
       updated_at = rows.updated_at
  FROM rows
 WHERE tenants.tenant_id = rows.tenant_id AND tenants.version = rows.was_version;

-- name: close_import
-- No part of the tenant's import is taken any more.
UPDATE tenants SET version = 1 WHERE tenant_id = :tenant_id AND status = 'deleting' AND version = 0;

-- name: empty_tenant
-- A tenant that every store has is as it was at first, once its rows are gone.
UPDATE tenants
   SET name = :name, status = 'active', policy = NULL, limits = '{}', version = 1, updated_at = :now
 WHERE tenant_id = :tenant_id AND status = 'deleting';

-- name: read_tenant
-- One tenant.
SELECT t.tenant_id, t.name, t.status, t.policy, t.limits, t.version, t.created_at, t.updated_at
  FROM tenants t
 WHERE t.tenant_id = :tenant_id;

-- name: list_tenants
-- All tenants by id, for the system's administrators.
SELECT t.tenant_id, t.name, t.status, t.policy, t.limits, t.version, t.created_at, t.updated_at
  FROM tenants t
 WHERE t.tenant_id > :after AND t.tenant_id <> '' AND {where}
 ORDER BY t.tenant_id
 LIMIT :limit;

-- name: read_usage
-- What a tenant has of everything that can be limited.
SELECT (SELECT count(*) FROM executions e WHERE e.tenant_id = :tenant_id AND e.status <> 'completed'
           AND e.status IN ('pending', 'running', 'paused')),
       (SELECT count(*) FROM definitions d WHERE d.tenant_id = :tenant_id),
       (SELECT count(*) FROM work_items w WHERE w.tenant_id = :tenant_id AND w.queue > '' AND w.status = 'ready')
         + (SELECT count(*) FROM work_items w WHERE w.tenant_id = :tenant_id AND w.queue > '' AND w.status = 'delayed'),
       (SELECT count(*) FROM tokens k
         WHERE k.tenant_id = :tenant_id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now)),
       (SELECT count(*) FROM namespaces n WHERE n.tenant_id = :tenant_id AND n.status = 'active'),
       (SELECT count(*) FROM workers x WHERE x.tenant_id = :tenant_id);
