-- name: load_runs
-- Runs by the execution, or by one of its items, locked. The execution's own row is locked before.
WITH rows(tenant_id TEXT, id TEXT, item_id TEXT) AS (:rows)
SELECT u.tenant_id, u.id, u.task_id, u.woken_at, u.submits, u.seen, u.open_steps, u.alarms, u.cancel_requested_at,
       u.first_id, u.previous_id, u.next_id, u.place, u.attempt, u.parent_seq, u.close_policy, u.options, u.memo
  FROM rows r
  LEFT JOIN work_items w ON w.tenant_id = r.tenant_id AND w.id = r.item_id
  JOIN runs u ON u.tenant_id = r.tenant_id AND u.id = CASE WHEN r.id IS NULL THEN w.execution_id ELSE r.id END
 ORDER BY u.tenant_id, u.id FOR UPDATE OF u;

-- name: insert_runs
-- New runs, under the locks of their executions.
WITH rows(tenant_id TEXT, id TEXT, task_id TEXT, woken_at BIGINT, submits BIGINT, seen BIGINT, open_steps BIGINT,
          alarms BIGINT, cancel_requested_at BIGINT, first_id TEXT, previous_id TEXT, next_id TEXT, place BIGINT,
          attempt BIGINT, parent_seq BIGINT, close_policy TEXT, options BYTEA, memo BYTEA) AS (:rows)
INSERT INTO runs (tenant_id, id, task_id, woken_at, submits, seen, open_steps, alarms, cancel_requested_at, first_id,
                  previous_id, next_id, place, attempt, parent_seq, close_policy, options, memo)
SELECT tenant_id, id, task_id, woken_at, submits, seen, open_steps, alarms, cancel_requested_at, first_id, previous_id,
       next_id, place, attempt, parent_seq, close_policy, options, memo
  FROM rows;

-- name: update_runs
-- Runs moved on, under the locks of their executions.
WITH rows(tenant_id TEXT, id TEXT, task_id TEXT, woken_at BIGINT, submits BIGINT, seen BIGINT, open_steps BIGINT,
          alarms BIGINT, cancel_requested_at BIGINT, next_id TEXT, memo BYTEA, was_submits BIGINT) AS (:rows)
UPDATE runs
   SET task_id = rows.task_id, woken_at = rows.woken_at, submits = rows.submits, seen = rows.seen,
       open_steps = rows.open_steps, alarms = rows.alarms, cancel_requested_at = rows.cancel_requested_at,
       next_id = rows.next_id, memo = rows.memo
  FROM rows
 WHERE runs.tenant_id = rows.tenant_id AND runs.id = rows.id AND runs.submits = rows.was_submits;

-- name: load_steps
-- Steps by their counter, locked like the states of executions.
WITH rows(tenant_id TEXT, execution_id TEXT, kind TEXT, seq BIGINT) AS (:rows)
SELECT s.tenant_id, s.execution_id, s.kind, s.seq, s.name, s.digest, s.said, s.status, s.ref, s.detail, s.created_at,
       s.ended_at
  FROM rows r
  JOIN steps s ON s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id AND s.kind = r.kind AND s.seq = r.seq
 ORDER BY s.tenant_id, s.execution_id, s.kind, s.seq FOR UPDATE OF s;

-- name: open_steps_of_executions
-- What a workflow has asked for and not yet got, under the lock of its execution.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT s.tenant_id, s.execution_id, s.kind, s.seq, s.name, s.digest, s.said, s.status, s.ref, s.detail, s.created_at,
       s.ended_at
  FROM rows r
  JOIN steps s ON s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id AND s.status = 'open'
 ORDER BY s.tenant_id, s.execution_id, s.kind, s.seq;

-- name: insert_steps
-- New steps; a counter that is taken is refused here.
WITH rows(tenant_id TEXT, execution_id TEXT, kind TEXT, seq BIGINT, name TEXT, digest TEXT, said BYTEA, status TEXT,
          ref TEXT, detail BYTEA, created_at BIGINT, ended_at BIGINT) AS (:rows)
INSERT INTO steps (tenant_id, execution_id, kind, seq, name, digest, said, status, ref, detail, created_at, ended_at)
SELECT tenant_id, execution_id, kind, seq, name, digest, said, status, ref, detail, created_at, ended_at FROM rows;

-- name: update_steps
-- Steps moved on, from the status they were read in.
WITH rows(tenant_id TEXT, execution_id TEXT, kind TEXT, seq BIGINT, status TEXT, ref TEXT, detail BYTEA,
          ended_at BIGINT, was_status TEXT) AS (:rows)
UPDATE steps SET status = rows.status, ref = rows.ref, detail = rows.detail, ended_at = rows.ended_at
  FROM rows
 WHERE steps.tenant_id = rows.tenant_id AND steps.execution_id = rows.execution_id AND steps.kind = rows.kind
   AND steps.seq = rows.seq AND steps.status = rows.was_status;

-- name: read_task_heads
-- What claimed workflow tasks show of their executions, and when the event was written that their worker had seen last.
WITH rows(tenant_id TEXT, id TEXT, seen BIGINT) AS (:rows)
SELECT e.tenant_id, e.id, r.seen, v.at, e.workflow_id, e.namespace, e.queue, e.status, e.sequence,
       u.cancel_requested_at, u.attempt, u.first_id, u.previous_id, u.memo
  FROM rows r
  JOIN executions e ON e.tenant_id = r.tenant_id AND e.id = r.id
  JOIN runs u ON u.tenant_id = e.tenant_id AND u.id = e.id
  LEFT JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.id AND v.sequence = r.seen
 ORDER BY e.tenant_id, e.id, r.seen;

-- name: read_task_events
-- Parts of their logs: after what a worker has seen, up to what the answer has room for.
WITH rows(tenant_id TEXT, execution_id TEXT, seen BIGINT, until BIGINT) AS (:rows)
SELECT v.tenant_id, v.execution_id, v.sequence, v.kind, v.body, v.at, v.actor, v.node_id, v.work_item_id, v.causation_id
  FROM rows r
  JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.execution_id
   AND v.sequence > r.seen AND v.sequence <= r.until
 ORDER BY v.tenant_id, v.execution_id, v.sequence;
