-- name: load_namespaces
-- Namespaces, held (KEY SHARE) against deletion: what starts in one is written before its deletion begins, or refused.
WITH rows(tenant_id TEXT, name TEXT) AS (:rows)
SELECT n.tenant_id, n.name, n.note, n.status, n.job_id, n.created_at
  FROM rows r
  JOIN namespaces n ON n.tenant_id = r.tenant_id AND n.name = r.name
 ORDER BY n.tenant_id, n.name FOR KEY SHARE OF n;

-- name: lock_namespaces
-- Namespaces about to be deleted: starts that hold one are waited for, so that the count after this sees what they wrote.
WITH rows(tenant_id TEXT, name TEXT) AS (:rows)
SELECT n.tenant_id, n.name
  FROM rows r
  JOIN namespaces n ON n.tenant_id = r.tenant_id AND n.name = r.name
 ORDER BY n.tenant_id, n.name FOR UPDATE OF n;

-- name: count_open_in_namespaces
-- How many executions of a namespace have not ended, counted up to a thousand.
WITH rows(tenant_id TEXT, name TEXT) AS (:rows)
SELECT r.tenant_id, r.name,
       (SELECT count(*) FROM (SELECT 1 FROM executions e
                               WHERE e.tenant_id = r.tenant_id AND e.namespace = r.name AND e.namespace <> 'main'
                                 AND e.status IN ('pending', 'running', 'paused') LIMIT 1000) AS some_of_them)
  FROM rows r
 ORDER BY r.tenant_id, r.name;

-- name: insert_namespaces
-- A new namespace.
WITH rows(tenant_id TEXT, name TEXT, note TEXT, status TEXT, job_id TEXT, created_at BIGINT) AS (:rows)
INSERT INTO namespaces (tenant_id, name, note, status, job_id, created_at)
SELECT tenant_id, name, note, status, job_id, created_at FROM rows;

-- name: update_namespaces
-- A deletion that begins.
WITH rows(tenant_id TEXT, name TEXT, status TEXT, job_id TEXT, was_status TEXT) AS (:rows)
UPDATE namespaces SET status = rows.status, job_id = rows.job_id
  FROM rows
 WHERE namespaces.tenant_id = rows.tenant_id AND namespaces.name = rows.name AND namespaces.status = rows.was_status;

-- name: delete_namespace
-- The namespace itself, the last of its rows.
DELETE FROM namespaces WHERE tenant_id = :tenant_id AND name = :name AND status = 'deleting';

-- name: list_namespaces
-- By name, after a position; `main` is there without a row of its own.
SELECT n.name, n.note, n.status, n.job_id, n.created_at
  FROM (SELECT o.name, o.note, o.status, o.job_id, o.created_at FROM namespaces o WHERE o.tenant_id = :tenant_id
         UNION ALL
        SELECT 'main', NULL, 'active', NULL, t.created_at FROM tenants t WHERE t.tenant_id = :tenant_id) AS n
 WHERE n.name > :after
 ORDER BY n.name
 LIMIT :limit;

-- name: read_namespace
-- One namespace; `main` is there without a row of its own.
SELECT o.name, o.note, o.status, o.job_id, o.created_at
  FROM namespaces o
 WHERE o.tenant_id = :tenant_id AND o.name = :name
 UNION ALL
SELECT 'main', NULL, 'active', NULL, t.created_at
  FROM tenants t
 WHERE t.tenant_id = :tenant_id AND :name = 'main';

-- name: count_schedules_of_namespace
-- Its schedules, counted up to a bound.
SELECT count(*)
  FROM (SELECT 1 FROM schedules s WHERE s.tenant_id = :tenant_id AND s.namespace = :namespace LIMIT :most) AS some_of_them;

-- name: count_workers_of_namespace
-- The workers of a namespace that are heard of, among the first of the tenant's; and how many were looked at.
SELECT COALESCE(sum(CASE WHEN some_of_them.namespace = :namespace AND some_of_them.expires_at > :now THEN 1 ELSE 0 END), 0),
       count(*)
  FROM (SELECT k.namespace, k.expires_at FROM workers k WHERE k.tenant_id = :tenant_id LIMIT :most) AS some_of_them;

-- name: ready_on_shelves
-- What is ready on some queues, by what it needs, counted up to a bound: one walk of the index, cut there.
SELECT c.requires, count(*)
  FROM (SELECT w.requires
          FROM work_items w
         WHERE w.tenant_id = :tenant_id AND w.queue IN :queues[] AND w.status = 'ready'
         LIMIT :most) AS c
 GROUP BY c.requires
 ORDER BY c.requires;

-- name: delayed_on_shelves
-- What was put off on some queues, in the same way.
SELECT c.requires, count(*)
  FROM (SELECT w.requires
          FROM work_items w
         WHERE w.tenant_id = :tenant_id AND w.queue IN :queues[] AND w.status = 'delayed'
         LIMIT :most) AS c
 GROUP BY c.requires
 ORDER BY c.requires;

-- name: leased_by_queue
-- What the tenant's workers hold, by queue and by what it needs, counted up to a bound.
SELECT c.queue, c.requires, count(*)
  FROM (SELECT w.queue, w.requires
          FROM work_items w
         WHERE w.tenant_id = :tenant_id AND w.expires_at > 0 AND w.status = 'leased'
         LIMIT :most) AS c
 GROUP BY c.queue, c.requires
 ORDER BY c.queue, c.requires;

-- name: executions_to_erase
-- The next executions of a namespace that is being deleted.
SELECT e.id, e.namespace, e.status, e.sequence
  FROM executions e
 WHERE e.tenant_id = :tenant_id AND e.namespace = :namespace AND e.namespace <> 'main'
 ORDER BY e.status, e.id
 LIMIT :limit;

-- name: erase_alarms_of_namespace
-- What its schedules ring at.
DELETE FROM alarms
 WHERE (tenant_id, owner_id, name) IN
       (SELECT a.tenant_id, a.owner_id, a.name
          FROM schedules s
          JOIN alarms a ON a.tenant_id = s.tenant_id AND a.owner_id = 'schedule/' || s.id
         WHERE s.tenant_id = :tenant_id AND s.namespace = :namespace
         ORDER BY a.tenant_id, a.owner_id, a.name
         LIMIT :limit);

-- name: erase_schedule_runs_of_namespace
-- What is written down of its schedules' occurrences.
DELETE FROM schedule_runs
 WHERE (tenant_id, schedule_id, execution_id) IN
       (SELECT o.tenant_id, o.schedule_id, o.execution_id
          FROM schedules s
          JOIN schedule_runs o ON o.tenant_id = s.tenant_id AND o.schedule_id = s.id
         WHERE s.tenant_id = :tenant_id AND s.namespace = :namespace
         ORDER BY o.tenant_id, o.schedule_id, o.execution_id
         LIMIT :limit);

-- name: erase_schedules_of_namespace
-- Its schedules, once nothing of them is left.
DELETE FROM schedules
 WHERE (tenant_id, id) IN
       (SELECT s.tenant_id, s.id FROM schedules s
         WHERE s.tenant_id = :tenant_id AND s.namespace = :namespace ORDER BY s.tenant_id, s.id LIMIT :limit);

-- name: erase_worker_queues_of_namespace
-- The queues of its workers.
DELETE FROM worker_queues
 WHERE (tenant_id, queue, worker_id) IN
       (SELECT q.tenant_id, q.queue, q.worker_id FROM worker_queues q
         WHERE q.tenant_id = :tenant_id AND q.queue >= :first AND q.queue < :past
         ORDER BY q.tenant_id, q.queue, q.worker_id LIMIT :limit);

-- name: erase_workers_of_namespace
-- Its workers; one that still works is told so at its next heartbeat.
DELETE FROM workers
 WHERE (tenant_id, id) IN
       (SELECT k.tenant_id, k.id FROM workers k
         WHERE k.tenant_id = :tenant_id AND k.namespace = :namespace ORDER BY k.tenant_id, k.id LIMIT :limit);

-- name: erase_shelves_of_namespace
-- Its shelves: those of queues whose names begin with its own.
DELETE FROM shelves
 WHERE (tenant_id, queue, requires) IN
       (SELECT s.tenant_id, s.queue, s.requires FROM shelves s
         WHERE s.tenant_id = :tenant_id AND s.queue >= :first AND s.queue < :past
         ORDER BY s.tenant_id, s.queue, s.requires LIMIT :limit);

-- name: erase_queues_of_namespace
-- Its queues that were paused.
DELETE FROM queues
 WHERE (tenant_id, name) IN
       (SELECT q.tenant_id, q.name FROM queues q
         WHERE q.tenant_id = :tenant_id AND q.name >= :first AND q.name < :past
         ORDER BY q.tenant_id, q.name LIMIT :limit);

-- name: erase_tally_changes_of_namespace
-- What commits said of its executions and was not folded yet.
DELETE FROM tally_changes
 WHERE (tenant_id, id) IN
       (SELECT c.tenant_id, c.id FROM tally_changes c
         WHERE c.tenant_id = :tenant_id AND c.namespace = :namespace ORDER BY c.tenant_id, c.id LIMIT :limit);

-- name: erase_tallies_of_namespace
-- How many executions it had.
DELETE FROM tallies
 WHERE (tenant_id, namespace, status) IN
       (SELECT t.tenant_id, t.namespace, t.status FROM tallies t
         WHERE t.tenant_id = :tenant_id AND t.namespace = :namespace
         ORDER BY t.tenant_id, t.namespace, t.status LIMIT :limit);
