-- name: load_work_items
-- Items by id, locked in the order of their ids. The payload stays where it is: only a claim reads it.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
       w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
       w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
       w.cancel_requested_at, w.created_at, w.settled_at
  FROM rows r
  JOIN work_items w ON w.tenant_id = r.tenant_id AND w.id = r.id
 ORDER BY w.tenant_id, w.id FOR UPDATE OF w;

-- name: open_items_of_executions
-- What is still open in executions that end; their rows are locked, so nothing is added meanwhile.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
       w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
       w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
       w.cancel_requested_at, w.created_at, w.settled_at
  FROM rows r
  JOIN work_items w ON w.tenant_id = r.tenant_id AND w.execution_id = r.execution_id
   AND w.status IN ('ready', 'delayed', 'leased')
 ORDER BY w.tenant_id, w.id FOR UPDATE OF w;

-- name: open_items_by_dedup_key
-- The open item with a dedup key; the unique index allows one.
WITH rows(tenant_id TEXT, dedup_key TEXT) AS (:rows)
SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
       w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
       w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
       w.cancel_requested_at, w.created_at, w.settled_at
  FROM rows r
  JOIN work_items w ON w.tenant_id = r.tenant_id AND w.dedup_key = r.dedup_key
   AND w.dedup_key IS NOT NULL AND w.status IN ('ready', 'delayed', 'leased')
 ORDER BY w.tenant_id, w.id FOR UPDATE OF w;

-- name: insert_work_items
-- New items: never leased, never settled. An id or an open dedup key that is taken is refused here, whichever process it
-- came through.
WITH rows(tenant_id TEXT, id TEXT, execution_id TEXT, node_id TEXT, queue TEXT, requires TEXT, drives TEXT,
          payload BYTEA, priority BIGINT, ready_at BIGINT, max_attempts BIGINT, retry BYTEA, dedup_key TEXT,
          concurrency_key TEXT, status TEXT, digest TEXT, created_at BIGINT) AS (:rows)
INSERT INTO work_items (tenant_id, id, execution_id, node_id, queue, requires, drives, payload, priority, ready_at,
                        max_attempts, retry, dedup_key, concurrency_key, status, digest, created_at, attempt, epoch)
SELECT tenant_id, id, execution_id, node_id, queue, requires, drives, payload, priority, ready_at, max_attempts, retry,
       dedup_key, concurrency_key, status, digest, created_at, 0, 0
  FROM rows;

-- name: update_work_items
-- Move items on, only from the epoch and status they were decided on: the fence, held once more by the store.
WITH rows(tenant_id TEXT, id TEXT, status TEXT, ready_at BIGINT, attempt BIGINT, worker_id TEXT, token_id TEXT,
          epoch BIGINT, lease_ms BIGINT, expires_at BIGINT, progress BYTEA, errors BYTEA, error_type TEXT, result BYTEA,
          settle_digest TEXT, settle_reply BYTEA, cancel_requested_at BIGINT, settled_at BIGINT, payload BYTEA,
          was_epoch BIGINT, was_status TEXT) AS (:rows)
UPDATE work_items
   SET status = rows.status, ready_at = rows.ready_at, attempt = rows.attempt, worker_id = rows.worker_id,
       token_id = rows.token_id, epoch = rows.epoch, lease_ms = rows.lease_ms, expires_at = rows.expires_at,
       progress = rows.progress, errors = rows.errors, error_type = rows.error_type, result = rows.result,
       settle_digest = rows.settle_digest, settle_reply = rows.settle_reply,
       cancel_requested_at = rows.cancel_requested_at, settled_at = rows.settled_at,
       payload = COALESCE(rows.payload, work_items.payload)
  FROM rows
 WHERE work_items.tenant_id = rows.tenant_id AND work_items.id = rows.id AND work_items.epoch = rows.was_epoch
   AND work_items.status = rows.was_status;

-- name: settle_work_items
-- Settle items (or keep their leases): what an attempt changes when it goes well, behind the same fence.
WITH rows(tenant_id TEXT, id TEXT, status TEXT, expires_at BIGINT, result BYTEA, settle_digest TEXT, settle_reply BYTEA,
          cancel_requested_at BIGINT, settled_at BIGINT, was_epoch BIGINT, was_status TEXT) AS (:rows)
UPDATE work_items
   SET status = rows.status, expires_at = rows.expires_at, result = rows.result, settle_digest = rows.settle_digest,
       settle_reply = rows.settle_reply, cancel_requested_at = rows.cancel_requested_at, settled_at = rows.settled_at
  FROM rows
 WHERE work_items.tenant_id = rows.tenant_id AND work_items.id = rows.id AND work_items.epoch = rows.was_epoch
   AND work_items.status = rows.was_status;

-- name: lease_work_items
-- Hand items out (or keep their leases): what the claim of an item changes that nobody settled before.
WITH rows(tenant_id TEXT, id TEXT, status TEXT, attempt BIGINT, worker_id TEXT, token_id TEXT, epoch BIGINT,
          lease_ms BIGINT, expires_at BIGINT, was_epoch BIGINT, was_status TEXT) AS (:rows)
UPDATE work_items
   SET status = rows.status, attempt = rows.attempt, worker_id = rows.worker_id, token_id = rows.token_id,
       epoch = rows.epoch, lease_ms = rows.lease_ms, expires_at = rows.expires_at
  FROM rows
 WHERE work_items.tenant_id = rows.tenant_id AND work_items.id = rows.id AND work_items.epoch = rows.was_epoch
   AND work_items.status = rows.was_status;

-- name: heads_of_shelves
-- The heads of shelves, of one tenant or of many: of each what is ready, and what was put off until now or before. Two
-- index walks a shelf, each cut at what is asked of it, that step over items whose concurrency key is leased, or busy in
-- this batch (`tenant/key`).
WITH rows(tenant_id TEXT, queue TEXT, requires TEXT, most BIGINT) AS (:rows)
SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
       w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
       w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
       w.cancel_requested_at, w.created_at, w.settled_at, w.payload
  FROM rows r
  JOIN work_items w ON w.tenant_id = r.tenant_id AND w.id IN (
     SELECT * FROM (
       SELECT i.id FROM work_items i
        WHERE i.tenant_id = r.tenant_id AND i.queue = r.queue AND i.requires = r.requires AND i.status = 'ready'
          AND (i.concurrency_key IS NULL OR (NOT (i.tenant_id || '/' || i.concurrency_key) IN :busy[] AND NOT EXISTS (
                 SELECT 1 FROM work_items k
                  WHERE k.tenant_id = r.tenant_id AND k.concurrency_key = i.concurrency_key
                    AND k.concurrency_key IS NOT NULL AND k.status = 'leased')))
        ORDER BY i.priority DESC, i.ready_at, i.id
        LIMIT r.most) AS ready
      UNION ALL
     SELECT * FROM (
       SELECT i.id FROM work_items i
        WHERE i.tenant_id = r.tenant_id AND i.queue = r.queue AND i.requires = r.requires AND i.status = 'delayed'
          AND i.ready_at <= :now
          AND (i.concurrency_key IS NULL OR (NOT (i.tenant_id || '/' || i.concurrency_key) IN :busy[] AND NOT EXISTS (
                 SELECT 1 FROM work_items k
                  WHERE k.tenant_id = r.tenant_id AND k.concurrency_key = i.concurrency_key
                    AND k.concurrency_key IS NOT NULL AND k.status = 'leased')))
        ORDER BY i.priority DESC, i.ready_at, i.id
        LIMIT r.most) AS due
       );

-- name: heads_of_shelves @postgres
-- The same with locks: what another transaction holds is stepped over before the walk is cut, not after.
WITH rows(tenant_id TEXT, queue TEXT, requires TEXT, most BIGINT) AS (:rows)
SELECT h.*
  FROM rows r
 CROSS JOIN LATERAL (
SELECT * FROM (
  SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
         w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
         w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
         w.cancel_requested_at, w.created_at, w.settled_at, w.payload
    FROM work_items w
   WHERE w.tenant_id = r.tenant_id AND w.queue = r.queue AND w.requires = r.requires AND w.status = 'ready'
     AND (w.concurrency_key IS NULL OR (NOT (w.tenant_id || '/' || w.concurrency_key) IN :busy[] AND NOT EXISTS (
            SELECT 1 FROM work_items k
             WHERE k.tenant_id = r.tenant_id AND k.concurrency_key = w.concurrency_key
               AND k.concurrency_key IS NOT NULL AND k.status = 'leased')))
   ORDER BY w.priority DESC, w.ready_at, w.id
   LIMIT r.most FOR UPDATE SKIP LOCKED) AS ready
UNION ALL
SELECT * FROM (
  SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
         w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
         w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
         w.cancel_requested_at, w.created_at, w.settled_at, w.payload
    FROM work_items w
   WHERE w.tenant_id = r.tenant_id AND w.queue = r.queue AND w.requires = r.requires AND w.status = 'delayed'
     AND w.ready_at <= :now
     AND (w.concurrency_key IS NULL OR (NOT (w.tenant_id || '/' || w.concurrency_key) IN :busy[] AND NOT EXISTS (
            SELECT 1 FROM work_items k
             WHERE k.tenant_id = r.tenant_id AND k.concurrency_key = w.concurrency_key
               AND k.concurrency_key IS NOT NULL AND k.status = 'leased')))
   ORDER BY w.priority DESC, w.ready_at, w.id
   LIMIT r.most FOR UPDATE SKIP LOCKED) AS due
) AS h;

-- name: shelves_of_keys
-- Where something stands ready under concurrency keys that nobody holds, the most urgent first; paused queues left out. A
-- walk from shelf to shelf by index, one look at each, however much stands there; of so many shelves of a key at most.
WITH RECURSIVE found(tenant_id, concurrency_key, id, place) AS (
  SELECT k.* FROM (
    WITH rows(tenant_id TEXT, concurrency_key TEXT) AS (:rows)
    SELECT r.tenant_id, r.concurrency_key,
           (SELECT i.id FROM work_items i
             WHERE i.tenant_id = r.tenant_id AND i.concurrency_key = r.concurrency_key
               AND i.concurrency_key IS NOT NULL AND i.status = 'ready'
             ORDER BY i.queue, i.requires, i.priority DESC, i.ready_at, i.id
             LIMIT 1), 1
      FROM rows r
     WHERE NOT EXISTS (
             SELECT 1 FROM work_items h
              WHERE h.tenant_id = r.tenant_id AND h.concurrency_key = r.concurrency_key
                AND h.concurrency_key IS NOT NULL AND h.status = 'leased')) AS k
   UNION ALL
  SELECT f.tenant_id, f.concurrency_key,
         COALESCE(
           (SELECT i.id FROM work_items i
             WHERE i.tenant_id = f.tenant_id AND i.concurrency_key = f.concurrency_key
               AND i.concurrency_key IS NOT NULL AND i.status = 'ready'
               AND i.queue = w.queue AND i.requires > w.requires
             ORDER BY i.queue, i.requires, i.priority DESC, i.ready_at, i.id
             LIMIT 1),
           (SELECT i.id FROM work_items i
             WHERE i.tenant_id = f.tenant_id AND i.concurrency_key = f.concurrency_key
               AND i.concurrency_key IS NOT NULL AND i.status = 'ready'
               AND i.queue > w.queue
             ORDER BY i.queue, i.requires, i.priority DESC, i.ready_at, i.id
             LIMIT 1)), f.place + 1
    FROM found f
    JOIN work_items w ON w.tenant_id = f.tenant_id AND w.id = /*+*/f.id
   WHERE f.place < 16)
SELECT w.tenant_id, w.concurrency_key, w.queue, w.requires
  FROM found f
  JOIN work_items w ON w.tenant_id = f.tenant_id AND w.id = /*+*/f.id
  LEFT JOIN queues q ON q.tenant_id = w.tenant_id AND q.name = w.queue
 WHERE q.paused_at IS NULL
 ORDER BY w.priority DESC, w.ready_at, w.id;

-- name: shelves_of_queues
-- The shelves of named queues, paused queues left out.
WITH rows(tenant_id TEXT, queue TEXT) AS (:rows)
SELECT s.tenant_id, s.queue, s.requires
  FROM rows r
  JOIN shelves s ON s.tenant_id = r.tenant_id AND s.queue = r.queue
  LEFT JOIN queues q ON q.tenant_id = s.tenant_id AND q.name = s.queue
 WHERE q.paused_at IS NULL
 ORDER BY s.tenant_id, s.queue, s.requires;

-- name: shelves_of_tenants
-- Every shelf of some tenants, paused queues left out: for claims by pattern.
WITH rows(tenant_id TEXT) AS (:rows)
SELECT s.tenant_id, s.queue, s.requires
  FROM rows r
  JOIN shelves s ON s.tenant_id = r.tenant_id
  LEFT JOIN queues q ON q.tenant_id = s.tenant_id AND q.name = s.queue
 WHERE q.paused_at IS NULL
 ORDER BY s.tenant_id, s.queue, s.requires;

-- name: queue_names
-- Every queue of a tenant that ever had an item, was paused, or is served, by name.
SELECT s.queue FROM shelves s WHERE s.tenant_id = :tenant_id
 UNION
SELECT q.name FROM queues q WHERE q.tenant_id = :tenant_id
 UNION
SELECT v.queue FROM worker_queues v WHERE v.tenant_id = :tenant_id
 ORDER BY 1;

-- name: load_shelves
-- Which shelves exist.
WITH rows(tenant_id TEXT, queue TEXT, requires TEXT) AS (:rows)
SELECT s.tenant_id, s.queue, s.requires
  FROM rows r
  JOIN shelves s ON s.tenant_id = r.tenant_id AND s.queue = r.queue AND s.requires = r.requires
 ORDER BY s.tenant_id, s.queue, s.requires;

-- name: insert_shelves
-- New shelves; one that another process made meanwhile undoes the batch, which then finds it.
WITH rows(tenant_id TEXT, queue TEXT, requires TEXT) AS (:rows)
INSERT INTO shelves (tenant_id, queue, requires)
SELECT tenant_id, queue, requires FROM rows;

-- name: load_queues
-- Queues that were paused or annotated.
WITH rows(tenant_id TEXT, name TEXT) AS (:rows)
SELECT q.tenant_id, q.name, q.paused_at, q.note, q.created_at
  FROM rows r
  JOIN queues q ON q.tenant_id = r.tenant_id AND q.name = r.name
 ORDER BY q.tenant_id, q.name FOR UPDATE OF q;

-- name: insert_queues
-- A queue that is paused or annotated for the first time.
WITH rows(tenant_id TEXT, name TEXT, paused_at BIGINT, note TEXT, created_at BIGINT) AS (:rows)
INSERT INTO queues (tenant_id, name, paused_at, note, created_at)
SELECT tenant_id, name, paused_at, note, created_at FROM rows;

-- name: update_queues
-- Pause or resume, under the queue's lock.
WITH rows(tenant_id TEXT, name TEXT, paused_at BIGINT, note TEXT) AS (:rows)
UPDATE queues SET paused_at = rows.paused_at, note = rows.note
  FROM rows
 WHERE queues.tenant_id = rows.tenant_id AND queues.name = rows.name;

-- name: expired_leases
-- Leases of any tenant that ran out, the longest first, and the execution that ends with an item out of attempts. Ids
-- only, no lock: the decision looks again under the lock.
SELECT w.tenant_id, w.id, w.execution_id,
       CASE WHEN w.drives = 'execution' AND w.attempt >= w.max_attempts THEN w.execution_id END
  FROM work_items w
 WHERE w.status = 'leased' AND w.tenant_id > '' AND w.expires_at <= :now
 ORDER BY w.expires_at, w.tenant_id, w.id
 LIMIT :limit;

-- name: expired_leases_of_tenant
-- The same of one tenant.
SELECT w.tenant_id, w.id, w.execution_id,
       CASE WHEN w.drives = 'execution' AND w.attempt >= w.max_attempts THEN w.execution_id END
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.status = 'leased' AND w.expires_at <= :now
 ORDER BY w.expires_at, w.id
 LIMIT :limit;

-- name: due_items
-- Items of any tenant whose time has come. Ids only, no lock. Not of a tenant that is being imported.
SELECT w.tenant_id, w.id
  FROM work_items w
 WHERE w.status = 'delayed' AND w.tenant_id > '' AND w.ready_at <= :now
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = w.tenant_id AND t.version = 0)
 ORDER BY w.ready_at, w.tenant_id, w.id
 LIMIT :limit;

-- name: due_items_of_all
-- The same, whole but for their payloads, and locked: what another transaction holds is stepped over, and is that one's.
SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
       w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
       w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
       w.cancel_requested_at, w.created_at, w.settled_at
  FROM work_items w
 WHERE w.status = 'delayed' AND w.tenant_id > '' AND w.ready_at <= :now
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = w.tenant_id AND t.version = 0)
 ORDER BY w.ready_at, w.tenant_id, w.id
 LIMIT :limit FOR UPDATE OF w SKIP LOCKED;

-- name: due_items_of_tenant
-- The same of one tenant.
SELECT w.tenant_id, w.id, w.execution_id, w.node_id, w.queue, w.requires, w.drives, w.priority, w.ready_at, w.attempt,
       w.max_attempts, w.retry, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.token_id, w.epoch,
       w.lease_ms, w.expires_at, w.progress, w.errors, w.error_type, w.digest, w.settle_digest, w.settle_reply,
       w.cancel_requested_at, w.created_at, w.settled_at
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.status = 'delayed' AND w.ready_at <= :now
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = :tenant_id AND t.version = 0)
 ORDER BY w.ready_at, w.id
 LIMIT :limit FOR UPDATE OF w SKIP LOCKED;

-- name: read_work_item
-- One item with everything that is known of it; nothing of one whose execution is being removed, and has the sequence 0.
SELECT w.id, w.execution_id, w.node_id, w.queue, w.drives, w.priority, w.ready_at, w.attempt, w.max_attempts, w.retry,
       w.requires, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.epoch, w.expires_at, w.progress, w.errors,
       w.payload, w.result, w.created_at, w.settled_at
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.id = :id
   AND (w.execution_id IS NULL
        OR (SELECT e.sequence FROM executions e WHERE e.tenant_id = w.tenant_id AND e.id = w.execution_id) <> 0);

-- name: list_work_items
-- Items by id, after a position. Those of an execution that is being removed are not shown.
SELECT w.id, w.execution_id, w.node_id, w.queue, w.drives, w.priority, w.ready_at, w.attempt, w.max_attempts, w.retry,
       w.requires, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.epoch, w.expires_at, w.progress, w.errors,
       w.payload, w.result, w.created_at, w.settled_at
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.id > :after AND {where}
   AND (w.execution_id IS NULL
        OR (SELECT e.sequence FROM executions e WHERE e.tenant_id = w.tenant_id AND e.id = w.execution_id) <> 0)
 ORDER BY w.id
 LIMIT :limit;

-- name: list_dead_letters
-- Dead letters, the oldest first, after a position. Those of an execution that is being removed are not shown.
SELECT w.id, w.execution_id, w.node_id, w.queue, w.drives, w.priority, w.ready_at, w.attempt, w.max_attempts, w.retry,
       w.requires, w.dedup_key, w.concurrency_key, w.status, w.worker_id, w.epoch, w.expires_at, w.progress, w.errors,
       w.payload, w.result, w.created_at, w.settled_at
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.status = 'dead' AND (w.settled_at, w.id) > (:at, :after) AND {where}
   AND (w.execution_id IS NULL
        OR (SELECT e.sequence FROM executions e WHERE e.tenant_id = w.tenant_id AND e.id = w.execution_id) <> 0)
 ORDER BY w.settled_at, w.id
 LIMIT :limit;

-- name: count_dead_letters
-- How many dead letters match a filter, but for those of an execution that is being removed.
SELECT count(*)
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.status = 'dead' AND {where}
   AND (w.execution_id IS NULL
        OR (SELECT e.sequence FROM executions e WHERE e.tenant_id = w.tenant_id AND e.id = w.execution_id) <> 0);

-- name: dead_letters_to_redrive
-- The next dead letters for a redrive to look at, of those that had died when it began, after a position; and of each
-- whether it matches. The filter is no condition: however few match, so many are read.
SELECT w.settled_at, w.id, w.dedup_key, CASE WHEN {where} THEN 1 ELSE 0 END
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.status = 'dead' AND (w.settled_at, w.id) > (:at, :after)
   AND w.settled_at <= :until
 ORDER BY w.settled_at, w.id
 LIMIT :limit;

-- name: add_queue_rates
-- What the commits of a process did, added to what others said of the same ten seconds. Not of a tenant that is leaving.
WITH rows(tenant_id TEXT, bucket BIGINT, queue TEXT, enqueued BIGINT, claimed BIGINT, completed BIGINT, failed BIGINT)
  AS (:rows)
INSERT INTO queue_rates (tenant_id, bucket, queue, enqueued, claimed, completed, failed)
SELECT r.tenant_id, r.bucket, r.queue, r.enqueued, r.claimed, r.completed, r.failed
  FROM rows r
  JOIN tenants t ON t.tenant_id = r.tenant_id
 WHERE t.status <> 'deleting'
    ON CONFLICT (tenant_id, bucket, queue) DO UPDATE
   SET enqueued = queue_rates.enqueued + excluded.enqueued, claimed = queue_rates.claimed + excluded.claimed,
       completed = queue_rates.completed + excluded.completed, failed = queue_rates.failed + excluded.failed;

-- name: expire_queue_rates
-- Forget what queues of any tenant did before a time.
DELETE FROM queue_rates
 WHERE (tenant_id, bucket, queue) IN (SELECT q.tenant_id, q.bucket, q.queue FROM queue_rates q
                                       WHERE q.bucket < :before AND q.tenant_id > '' ORDER BY q.bucket LIMIT :limit);

-- name: list_queues
-- How each queue stands, by name. Each count is a walk of an index that ends at a bound: what is ready (with the time of
-- the oldest, `count/time`, so that one walk tells both) or put off, queue by queue; what is leased or dead, once for all.
SELECT n.queue,
       (SELECT count(*) || '/' || min(some_of_them.ready_at)
          FROM (SELECT w.ready_at FROM work_items w
                 WHERE w.tenant_id = :tenant_id AND w.queue = n.queue AND w.status = 'ready' LIMIT :most) AS some_of_them),
       COALESCE(l.held, 0),
       (SELECT count(*)
          FROM (SELECT 1 FROM work_items w
                 WHERE w.tenant_id = :tenant_id AND w.queue = n.queue AND w.status = 'delayed' LIMIT :most) AS some_of_them),
       COALESCE(d.buried, 0),
       n.paused_at, n.note,
       (SELECT count(*)
          FROM worker_queues k
          JOIN workers a ON a.tenant_id = k.tenant_id AND a.id = k.worker_id
         WHERE k.tenant_id = :tenant_id AND k.queue = n.queue AND a.expires_at > :now),
       COALESCE(m.enqueued, 0), COALESCE(m.claimed, 0), COALESCE(m.completed, 0), COALESCE(m.failed, 0)
  FROM (SELECT s.queue, q.paused_at, q.note
          FROM (SELECT h.tenant_id, h.queue FROM shelves h WHERE h.tenant_id = :tenant_id AND h.queue > :after
                 UNION
                SELECT p.tenant_id, p.name FROM queues p WHERE p.tenant_id = :tenant_id AND p.name > :after
                 UNION
                SELECT v.tenant_id, v.queue FROM worker_queues v WHERE v.tenant_id = :tenant_id AND v.queue > :after) AS s
          LEFT JOIN queues q ON q.tenant_id = :tenant_id AND q.name = s.queue
         WHERE {where}
         ORDER BY s.queue
         LIMIT :limit) AS n
  LEFT JOIN (SELECT c.queue, count(*) AS held
               FROM (SELECT w.queue FROM work_items w
                      WHERE w.tenant_id = :tenant_id AND w.expires_at > 0 AND w.status = 'leased' LIMIT :most_held) AS c
              GROUP BY c.queue) AS l ON l.queue = n.queue
  LEFT JOIN (SELECT c.queue, count(*) AS buried
               FROM (SELECT w.queue FROM work_items w
                      WHERE w.tenant_id = :tenant_id AND w.settled_at > 0 AND w.status = 'dead' LIMIT :most_held) AS c
              GROUP BY c.queue) AS d ON d.queue = n.queue
  LEFT JOIN (SELECT t.queue, CAST(sum(t.enqueued) AS BIGINT) AS enqueued, CAST(sum(t.claimed) AS BIGINT) AS claimed,
                    CAST(sum(t.completed) AS BIGINT) AS completed, CAST(sum(t.failed) AS BIGINT) AS failed
               FROM queue_rates t
              WHERE t.tenant_id = :tenant_id AND t.bucket >= :since AND t.bucket < :until
              GROUP BY t.queue) AS m ON m.queue = n.queue
 ORDER BY n.queue;

-- name: count_leased_and_dead
-- How much of a tenant's is leased, and how much is dead, counted up to a bound.
SELECT (SELECT count(*)
          FROM (SELECT 1 FROM work_items w
                 WHERE w.tenant_id = :tenant_id AND w.expires_at > 0 AND w.status = 'leased' LIMIT :most) AS held),
       (SELECT count(*)
          FROM (SELECT 1 FROM work_items w
                 WHERE w.tenant_id = :tenant_id AND w.settled_at > 0 AND w.status = 'dead' LIMIT :most) AS buried);
