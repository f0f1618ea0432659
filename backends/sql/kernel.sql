-- name: load_standings
-- For each caller: its tenant's status and limits, its token's end. One read for a whole batch. A token without a row went
-- with its tenant: it is as good as revoked, also when there is a new tenant of that name.
WITH rows(tenant_id TEXT, token_tenant TEXT, token_id TEXT) AS (:rows)
SELECT r.tenant_id, r.token_tenant, r.token_id, t.status, t.limits,
       CASE WHEN r.token_id <> '' AND k.id IS NULL THEN 0 ELSE k.revoked_at END, k.expires_at
  FROM rows r
  JOIN tenants t ON t.tenant_id = r.tenant_id
  LEFT JOIN tokens k ON k.tenant_id = r.token_tenant AND k.id = r.token_id;

-- name: lock_tenants
-- Take the tenants' rows: whoever counts against a limit stands in line here.
WITH rows(tenant_id TEXT) AS (:rows)
SELECT t.tenant_id
  FROM rows r
  JOIN tenants t ON t.tenant_id = r.tenant_id
 ORDER BY t.tenant_id FOR UPDATE OF t;

-- name: count_usage
-- How many of each counted thing a tenant has. Its own statement, after the lock: it must see what was just committed.
-- Executions by their tallies, as one snapshot has them, folded or not; ready items no further than one past the
-- greatest limit that is asked for. Every queue has a name; saying so leads SQLite to the index of what is ready, past all
-- that has ended. A token that has expired holds no place.
WITH rows(tenant_id TEXT, name TEXT, most BIGINT, now BIGINT) AS (:rows)
SELECT r.tenant_id, r.name, r.most,
       CASE r.name
         WHEN 'running_executions' THEN CAST(
           (SELECT coalesce(sum(t.count), 0) FROM tallies t
             WHERE t.tenant_id = r.tenant_id AND t.status IN ('pending', 'running', 'paused'))
           + (SELECT coalesce(sum(d.count), 0) FROM tally_changes d BY KEY
               WHERE d.tenant_id = r.tenant_id AND d.status IN ('pending', 'running', 'paused')) AS BIGINT)
         WHEN 'definitions' THEN
           (SELECT count(*) FROM definitions d WHERE d.tenant_id = r.tenant_id)
         WHEN 'ready_work_items' THEN
           (SELECT count(*)
              FROM (SELECT 1 FROM work_items w
                     WHERE w.tenant_id = r.tenant_id AND w.queue > '' AND w.status = 'ready'
                     LIMIT (SELECT max(m.most) + 1 FROM rows m WHERE m.name = 'ready_work_items')) AS at)
           + (SELECT count(*)
                FROM (SELECT 1 FROM work_items w
                       WHERE w.tenant_id = r.tenant_id AND w.queue > '' AND w.status = 'delayed'
                       LIMIT (SELECT max(m.most) + 1 FROM rows m WHERE m.name = 'ready_work_items')) AS later)
         WHEN 'tokens' THEN
           (SELECT count(*) FROM tokens k
             WHERE k.tenant_id = r.tenant_id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > r.now))
         WHEN 'namespaces' THEN
           (SELECT count(*) FROM namespaces n WHERE n.tenant_id = r.tenant_id AND n.status = 'active')
         WHEN 'workers' THEN
           (SELECT count(*) FROM workers k WHERE k.tenant_id = r.tenant_id)
         ELSE 0
       END
  FROM rows r
 ORDER BY r.tenant_id, r.name;

-- name: load_idempotency_keys
-- The answers stored under these keys.
WITH rows(tenant_id TEXT, key TEXT) AS (:rows)
SELECT k.tenant_id, k.key, k.fingerprint, k.status, k.body, k.created_at
  FROM rows r
  JOIN idempotency_keys k ON k.tenant_id = r.tenant_id AND k.key = r.key
 ORDER BY k.tenant_id, k.key;

-- name: insert_idempotency_keys
-- Two requests at once with one key: the second insert is refused, its batch undone, and it then finds the first's answer.
WITH rows(tenant_id TEXT, key TEXT, fingerprint TEXT, status BIGINT, body BYTEA, created_at BIGINT) AS (:rows)
INSERT INTO idempotency_keys (tenant_id, key, fingerprint, status, body, created_at)
SELECT tenant_id, key, fingerprint, status, body, created_at FROM rows;

-- name: expire_idempotency_keys
-- Forget answers older than the time for which they are promised, of every tenant.
DELETE FROM idempotency_keys
 WHERE (tenant_id, key) IN (SELECT tenant_id, key FROM idempotency_keys
                             WHERE created_at < :before ORDER BY created_at LIMIT :limit);

-- name: load_secret
-- A key that the service keeps to itself.
SELECT value FROM secrets WHERE tenant_id = :tenant_id AND name = :name;

-- name: insert_secret
-- The first process to ask makes it.
INSERT INTO secrets (tenant_id, name, value) VALUES (:tenant_id, :name, :value) ON CONFLICT DO NOTHING;

-- name: make_rate
-- A bucket for a tenant that has none yet, empty since ever.
INSERT INTO rates (tenant_id, empty_at) VALUES (:tenant_id, 0) ON CONFLICT DO NOTHING;

-- name: lock_rate
-- When the tenant's bucket is empty again, locked: processes that take from it stand in line.
SELECT r.empty_at FROM rates r WHERE r.tenant_id = :tenant_id FOR UPDATE;

-- name: keep_rate
-- What is left after a slice was taken, under the lock.
UPDATE rates SET empty_at = :empty_at WHERE tenant_id = :tenant_id;
