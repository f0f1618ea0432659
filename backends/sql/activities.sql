-- name: read_activity
-- One activity's item, with everything that is known of its attempts; nothing of one whose run is being removed.
SELECT w.id, w.execution_id, w.node_id, w.queue, w.drives, w.status, w.ready_at, w.attempt, w.max_attempts, w.worker_id,
       w.epoch, w.expires_at, w.progress, w.errors, w.payload, w.result, w.cancel_requested_at, w.created_at, w.settled_at
  FROM work_items w
 WHERE w.tenant_id = :tenant_id AND w.id = :id
   AND (SELECT e.sequence FROM executions e WHERE e.tenant_id = w.tenant_id AND e.id = w.execution_id) <> 0;

-- name: read_activity_step
-- How an activity stands with its run.
SELECT s.status
  FROM steps s
 WHERE s.tenant_id = :tenant_id AND s.execution_id = :execution_id AND s.kind = 'activity' AND s.seq = :seq;
