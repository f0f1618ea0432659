-- name: load_workers
-- Workers, locked: one registration or heartbeat at a time.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT k.tenant_id, k.id, k.namespace, k.identity, k.queues, k.types, k.activities, k.capacities, k.build_id,
       k.heartbeat_ms, k.registered_at, k.heartbeat_at, k.expires_at
  FROM rows r
  JOIN workers k ON k.tenant_id = r.tenant_id AND k.id = r.id
 ORDER BY k.tenant_id, k.id FOR UPDATE OF k;

-- name: insert_workers
-- New workers; one that another process registered meanwhile undoes the batch, which then finds it.
WITH rows(tenant_id TEXT, id TEXT, namespace TEXT, identity TEXT, queues TEXT, types TEXT, activities TEXT, capacities
          TEXT, build_id TEXT, heartbeat_ms BIGINT, registered_at BIGINT, heartbeat_at BIGINT, expires_at BIGINT) AS (:rows)
INSERT INTO workers (tenant_id, id, namespace, identity, queues, types, activities, capacities, build_id, heartbeat_ms,
                     registered_at, heartbeat_at, expires_at)
SELECT tenant_id, id, namespace, identity, queues, types, activities, capacities, build_id, heartbeat_ms, registered_at,
       heartbeat_at, expires_at
  FROM rows;

-- name: update_workers
-- Workers that say something else of themselves, under their locks.
WITH rows(tenant_id TEXT, id TEXT, namespace TEXT, identity TEXT, queues TEXT, types TEXT, activities TEXT, capacities
          TEXT, build_id TEXT, heartbeat_ms BIGINT, registered_at BIGINT, heartbeat_at BIGINT, expires_at BIGINT,
          was_expires_at BIGINT) AS (:rows)
UPDATE workers
   SET namespace = rows.namespace, identity = rows.identity, queues = rows.queues, types = rows.types,
       activities = rows.activities, capacities = rows.capacities, build_id = rows.build_id,
       heartbeat_ms = rows.heartbeat_ms, registered_at = rows.registered_at, heartbeat_at = rows.heartbeat_at,
       expires_at = rows.expires_at
  FROM rows
 WHERE workers.tenant_id = rows.tenant_id AND workers.id = rows.id AND workers.expires_at = rows.was_expires_at;

-- name: beat_workers
-- Workers that were heard of, under their locks.
WITH rows(tenant_id TEXT, id TEXT, heartbeat_at BIGINT, expires_at BIGINT, was_expires_at BIGINT) AS (:rows)
UPDATE workers SET heartbeat_at = rows.heartbeat_at, expires_at = rows.expires_at
  FROM rows
 WHERE workers.tenant_id = rows.tenant_id AND workers.id = rows.id AND workers.expires_at = rows.was_expires_at;

-- name: delete_workers
-- Workers that are forgotten, under their locks.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
DELETE FROM workers WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM rows);

-- name: queues_of_workers
-- The queues of workers, under the workers' locks.
WITH rows(tenant_id TEXT, worker_id TEXT) AS (:rows)
SELECT q.tenant_id, q.queue, q.worker_id
  FROM rows r
  JOIN worker_queues q ON q.tenant_id = r.tenant_id AND q.worker_id = r.worker_id
 ORDER BY q.tenant_id, q.queue, q.worker_id;

-- name: insert_worker_queues
-- Queues that a worker serves from now on.
WITH rows(tenant_id TEXT, queue TEXT, worker_id TEXT) AS (:rows)
INSERT INTO worker_queues (tenant_id, queue, worker_id)
SELECT tenant_id, queue, worker_id FROM rows;

-- name: delete_worker_queues
-- Queues that a worker serves no longer.
WITH rows(tenant_id TEXT, queue TEXT, worker_id TEXT) AS (:rows)
DELETE FROM worker_queues
 WHERE (tenant_id, queue, worker_id) IN (SELECT tenant_id, queue, worker_id FROM rows);

-- name: lost_workers
-- Workers of any tenant that were lost before a time, the longest first. Ids only, no lock. Not of a tenant that is being
-- imported.
SELECT k.tenant_id, k.id
  FROM workers k
 WHERE k.expires_at <= :before
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = k.tenant_id AND t.version = 0)
 ORDER BY k.expires_at, k.tenant_id, k.id
 LIMIT :limit;

-- name: list_workers
-- Workers by id, after a position.
SELECT k.id, k.namespace, k.identity, k.queues, k.types, k.activities, k.capacities, k.build_id, k.heartbeat_ms,
       k.registered_at, k.heartbeat_at, k.expires_at
  FROM workers k
 WHERE k.tenant_id = :tenant_id AND k.id > :after AND {where}
 ORDER BY k.id
 LIMIT :limit;

-- name: read_worker
-- One worker.
SELECT k.id, k.namespace, k.identity, k.queues, k.types, k.activities, k.capacities, k.build_id, k.heartbeat_ms,
       k.registered_at, k.heartbeat_at, k.expires_at
  FROM workers k
 WHERE k.tenant_id = :tenant_id AND k.id = :id;

-- name: leases_of_worker
-- What a worker holds, what runs out first before the rest: a walk of the tenant's leases, in the index alone.
SELECT w.id, w.execution_id, w.queue, w.drives, w.attempt, w.epoch, w.expires_at
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.worker_id = :worker_id AND w.expires_at > 0 AND w.status = 'leased' AND {where}
 ORDER BY w.expires_at, w.id
 LIMIT :limit;

-- name: leased_queues
-- The queues of what a worker holds, as far as it is shown.
SELECT DISTINCT c.queue
  FROM (SELECT w.queue FROM work_items w
         WHERE w.tenant_id = :tenant_id AND w.worker_id = :worker_id AND w.expires_at > 0 AND w.status = 'leased'
         LIMIT 10000) AS c
 ORDER BY c.queue;

-- name: queues_served
-- Every queue that a worker of the tenant serves, as work items know it.
SELECT DISTINCT q.queue FROM worker_queues q WHERE q.tenant_id = :tenant_id ORDER BY q.queue;
